"""NAG in one row: the same as every prompt in a row of its own, on every architecture and however the host batches."""

from functools import partial

import comfy.conds
import comfy.controlnet
import comfy.ops
import pytest
import torch
from comfy.ldm.modules import attention
from comfy_api.torch_helpers import set_torch_compile_wrapper
from comfy_extras.nodes_context_windows import ContextWindowsManualNode
from comfy_extras.nodes_easycache import EasyCacheNode
from comfy_extras.nodes_torch_compile import skip_torch_compile_dict
from pack.guidance.nag import nag
from pack.nodes.bridge import attention as bridge
from pack.nodes.bridge import calls, joined
from pack.tests.architectures import ARCHITECTURES, MultiGPUThreadPool, TwoDevices
from pack.tests.joined import OneRow, RowForEach

EXACT = 1e-4  # of the effect
ALL = pytest.mark.parametrize("name", ARCHITECTURES)


def error(one, reference, plain):
    """Share of the effect that is wrong."""
    effect = (reference - plain).norm()
    assert effect > 1e-3 * plain.norm()
    return float((one - reference).norm() / effect)


@ALL
@pytest.mark.parametrize("lengths", ["equal", "unequal"])
def test_one_row_is_what_a_row_for_each_prompt_gives(name, lengths):
    architecture = ARCHITECTURES[name]
    model, negative = architecture.model(), architecture.prompt(4, getattr(architecture, {"equal": "text"}.get(lengths, lengths)))
    one = OneRow(model, negative)
    reference = architecture.sample(RowForEach(model, negative, image=architecture.image).model)
    assert error(architecture.sample(one.model), reference, architecture.sample(model)) < EXACT
    assert (one.calls, one.rows) == (2, 2)  # two steps


@ALL
def test_beside_cfg_the_uncond_stays_what_it_was(name):
    """With a batch of two, and masks that differ where there are masks."""
    architecture = ARCHITECTURES[name]
    masks = {"kept": 9} if architecture.masked and not name.startswith("hunyuan") else {}  # whose mask takes no batch
    model, negative = architecture.model(), architecture.prompt(4, kept=5 if masks else None)
    given = {"cfg": 3.0, "batch": 2, "positive": architecture.prompt(1, **masks)}
    plain = architecture.predict(model, **given)
    one = OneRow(model, negative)
    joined = architecture.predict(one.model, **given)
    reference = architecture.predict(RowForEach(model, negative, image=architecture.image).model, **given)
    assert error(joined.cond, reference.cond, plain.cond) < EXACT
    assert (joined.uncond - plain.uncond).norm() < 1e-6 * plain.uncond.norm()
    assert one.rows == 4


@pytest.mark.parametrize("name", [name for name, architecture in ARCHITECTURES.items() if architecture.masked])
@pytest.mark.parametrize("kept", [(9, None), (None, 5), (9, 5)])
def test_masks_of_the_prompt_and_of_the_negative(name, kept):
    architecture = ARCHITECTURES[name]
    model, negative = architecture.model(), architecture.prompt(4, kept=kept[1])
    given = {"positive": architecture.prompt(1, kept=kept[0])}
    reference = architecture.sample(RowForEach(model, negative, image=architecture.image).model, **given)
    assert error(architecture.sample(OneRow(model, negative).model, **given), reference, architecture.sample(model, **given)) < EXACT


@pytest.mark.parametrize("rows", [(2, 1), (1, 2)])
def test_a_prompt_for_each_picture_of_the_batch(rows):
    architecture = ARCHITECTURES["flux"]
    model, negative = architecture.model(), architecture.prompt(4, batch=rows[1])
    given = {"positive": architecture.prompt(1, batch=rows[0]), "batch": 2}
    reference = architecture.sample(RowForEach(model, negative, image=48).model, **given)
    assert error(architecture.sample(OneRow(model, negative).model, **given), reference, architecture.sample(model, **given)) < EXACT


JOINT = [name for name, architecture in ARCHITECTURES.items() if architecture.image]


@pytest.mark.parametrize("name", JOINT)
def test_attending_to_the_image_once_is_the_same(name, monkeypatch):
    """With torch's own attention, which can be taken apart; masks cannot."""
    architecture = ARCHITECTURES[name]
    model, negative = architecture.model(), architecture.prompt(4, architecture.unequal)
    happened = []
    once = joined._joint_once
    monkeypatch.setattr(joined, "_joint_once", lambda *args: happened.append(1) or once(*args))
    fast = architecture.sample(OneRow(model, negative, attention=attention.attention_pytorch).model)
    assert happened
    assert error(fast, architecture.sample(OneRow(model, negative).model), architecture.sample(model)) < EXACT


@pytest.mark.parametrize("device", ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_kernel_that_tells_what_it_divided_by_is_there(device, dtype):
    assert calls.partial_works(torch.device(device), dtype, 64)


FEW = pytest.mark.parametrize("name", ["sd15", "wan", "flux", "z_image"])


@FEW
def test_where_memory_splits_the_batch_the_numbers_are_the_same(name, monkeypatch):
    architecture = ARCHITECTURES[name]
    model, negative = architecture.model(), architecture.prompt(4, 24)
    one = OneRow(model, negative)
    # In cross-attention the host evens out lengths: by repeating both of these on a UNet, if they are alike on Wan.
    given = {"cfg": 3.0, "batch": 2, "negative": architecture.prompt(2, 24 if name == "sd15" else 36)}
    plain, whole = architecture.sample(model, **given), architecture.sample(one.model, **given)
    calls = one.calls
    monkeypatch.setattr(model.model, "memory_required", lambda *args, **kwargs: 1e30 if "cond_shapes" in kwargs else 1)
    assert error(architecture.sample(one.model, **given), whole, plain) < EXACT
    assert one.calls - calls == 4 and calls == (2 if name in ("sd15", "wan") else 4)


@FEW
def test_each_of_several_prompts_has_the_negative(name):
    """Prompts of different lengths for the left and the right half, each against what it predicts alone."""
    architecture = ARCHITECTURES[name]
    left = torch.zeros(1, *architecture.latent[-2:])
    left[..., : left.shape[-1] // 2] = 1
    model, negative = architecture.model(), architecture.prompt(4)
    one = OneRow(model, negative)
    prompts = {1: architecture.prompt(1, 12), 0: architecture.prompt(6, 9)}
    halves = [[tokens, {**values, "mask": left if side else 1 - left, "mask_strength": 1.0}]
              for side, [[tokens, values]] in prompts.items()]
    both = architecture.predict(one.model, positive=halves).cond
    alone = {side: architecture.predict(one.model, positive=prompt).cond for side, prompt in prompts.items()}
    expected = torch.where(left.expand(architecture.latent).flatten().bool(), alone[1], alone[0])
    plain = architecture.predict(model, positive=halves).cond
    assert error(both, expected, plain) < EXACT


def test_context_windows():
    architecture = ARCHITECTURES["wan"]
    noise = torch.randn(1, 16, 7, 10, 8)
    windowed = ContextWindowsManualNode.execute(architecture.model(), 4, 2, "standard_static", 1, False, "pyramid", 2, False).result[0]
    negative, given = architecture.prompt(4, 7), {"noise": noise, "cfg": 3.0}
    one = OneRow(windowed, negative)
    reference = architecture.sample(RowForEach(windowed, negative).model, **given)
    assert error(architecture.sample(one.model, **given), reference, architecture.sample(windowed, **given)) < EXACT
    assert one.calls > 4


if MultiGPUThreadPool:
    @FEW
    def test_two_devices(name):
        architecture = ARCHITECTURES[name]
        two = TwoDevices(architecture)
        one = OneRow(two.model, architecture.prompt(4, 7))
        whole, plain = architecture.predict(one.model, cfg=3.0), architecture.predict(two.model, cfg=3.0)
        split = architecture.predict(two.split(one.model), cfg=3.0)
        assert error(split.cond, whole.cond, plain.cond) < EXACT
        assert (split.uncond - plain.uncond).norm() < 1e-6 * plain.uncond.norm()
        assert two.seen == two.networks


@ALL
def test_pushed_tokens_are_values_turned_round_in_the_same_softmax(name):
    """NegPip's negative weights, alone and together with a negative prompt."""
    architecture = ARCHITECTURES[name]
    model, pushed = architecture.model(), architecture.prompt(5)
    for negative in (None, architecture.prompt(4)):
        if negative is None and name not in FEW.args[1]:
            continue
        given = {"negative": negative, "pushed": pushed, "weight": 1.5}
        reference = architecture.sample(RowForEach(model, image=architecture.image, **given).model)
        without = architecture.sample(OneRow(model, negative).model if negative else model)
        assert error(architecture.sample(OneRow(model, **given).model), reference, without) < EXACT


def test_a_token_pushed_by_minus_one_is_a_token_of_the_prompt():
    architecture = ARCHITECTURES["sd15"]
    model, prompt, pushed = architecture.model(), architecture.prompt(1), architecture.prompt(5, 7)
    longer = [[torch.cat([prompt[0][0], pushed[0][0]], dim=1), prompt[0][1]]]
    result = architecture.sample(OneRow(model, pushed=pushed, weight=-1.0).model)
    assert error(result, architecture.sample(model, positive=longer), architecture.sample(model)) < EXACT


def test_each_pushed_token_has_its_weight():
    architecture = ARCHITECTURES["sd15"]
    model, pushed = architecture.model(), architecture.prompt(5, 3)
    each = architecture.sample(OneRow(model, pushed=pushed, weight=(2.0, 2.0, 0.5)).model)
    assert torch.equal(architecture.sample(OneRow(model, pushed=pushed, weight=(2.0,) * 3).model),
                       architecture.sample(OneRow(model, pushed=pushed, weight=2.0).model))
    assert not torch.equal(each, architecture.sample(OneRow(model, pushed=pushed, weight=2.0).model))


def test_compiled_networks_do_not_keep_what_was_decided_for_one_forward():
    """Core's own compiling drops the guards on transformer_options. First a run without a negative, then one with it."""
    architecture = ARCHITECTURES["wan"]
    model, negative = architecture.model(num_layers=1), architecture.prompt(4)
    expected, plain = architecture.predict(OneRow(model, negative).model), architecture.predict(model)
    set_torch_compile_wrapper(model, "eager", options={"guard_filter_fn": skip_torch_compile_dict})
    one = OneRow(model, negative)
    one.nag = joined.Nag(0.0)
    torch.testing.assert_close(architecture.predict(one.model), plain)
    one.nag = joined.Nag(4.0)
    assert error(architecture.predict(one.model).cond, expected.cond, plain.cond) < EXACT


def test_nothing_is_left_in_the_network():
    architecture = ARCHITECTURES["flux2"]
    model = architecture.model()
    plain = architecture.sample(model)
    architecture.sample(OneRow(model, architecture.prompt(4)).model)
    assert torch.equal(architecture.sample(model), plain)
    assert not any("forward" in module.__dict__ for module in model.model.diffusion_model.modules())


def test_an_override_of_another_pack_is_called_for_every_part():
    architecture = ARCHITECTURES["sd15"]
    model, negative = architecture.model(), architecture.prompt(4)
    expected = architecture.sample(OneRow(model, negative).model)
    seen = []

    def other(attend, q, k, v, *args, **kwargs):
        seen.append(k.shape[1])
        return attend(q, k, v, *args, **kwargs)

    model.model_options["transformer_options"]["optimized_attention_override"] = other
    assert torch.equal(architecture.sample(OneRow(model, negative).model), expected)
    assert 24 not in seen and seen.count(12) > 2


def test_attention_to_the_text_that_another_pack_has_replaced():
    """As IPAdapter does it: it attends to the text without the options, and adds what belongs to each kind of row."""
    architecture = ARCHITECTURES["sd15"]
    model, negative, seen = architecture.model(), architecture.prompt(4, 7), []
    images = torch.randn(1, 1, 1), torch.randn(1, 1, 1)

    def replace(strength, q, k, v, options):
        seen.append((k.shape[1], options["cond_or_uncond"]))
        out = attention.optimized_attention(q, k, v, options["n_heads"])
        added = torch.cat([images[i].expand(len(q) // len(options["cond_or_uncond"]), -1, -1) for i in options["cond_or_uncond"]])
        return out + strength * added

    def adapted(strength):
        patched = model.clone()
        for block in (("input", 1), ("input", 3), ("middle", 0), *(("output", i) for i in range(4))):
            patched.set_model_attn2_replace(partial(replace, strength), *block)
        return patched

    given = {"cfg": 3.0, "negative": architecture.prompt(2, 19)}  # as long as prompt and negative prompt together
    expected, plain = architecture.predict(OneRow(model, negative).model, **given), architecture.predict(model, **given)
    result = architecture.predict(OneRow(adapted(0.0), negative).model, **given)
    assert error(result.cond, expected.cond, plain.cond) < EXACT
    assert {tokens for tokens, _ in seen} == {12, 7, 19} and {len(kinds) for _, kinds in seen} == {1}
    result, plain = architecture.predict(OneRow(adapted(0.5), negative).model, **given), architecture.predict(adapted(0.5), **given)
    assert (result.uncond - plain.uncond).norm() < 1e-6 * plain.uncond.norm()
    assert error(result.cond, expected.cond, plain.cond) > 0.1


def test_an_override_that_displaces_ours_is_told_in_one_sentence():
    """The prompt's rows would take prompt and negative for one prompt."""
    architecture = ARCHITECTURES["sd15"]
    one = OneRow(architecture.model(), architecture.prompt(4))
    one.model.model_options["transformer_options"]["optimized_attention_override"] = lambda attend, *args, **kwargs: attend(*args, **kwargs)
    with pytest.raises(RuntimeError, match="another pack has replaced the attention"):
        architecture.sample(one.model)


def test_a_cache_that_skips_the_network_is_no_displaced_attention(caplog):
    architecture = ARCHITECTURES["flux"]
    model, negative = architecture.model(), architecture.prompt(4)
    cached = EasyCacheNode.execute(OneRow(model, negative).model, 100.0, 0.15, 0.95, False).result[0]
    with caplog.at_level("INFO"):
        architecture.sample(cached, steps=10)
    assert "EasyCache - skipped" in caplog.text and "skipped 0/" not in caplog.text


@pytest.mark.parametrize("name", ["sd15", "wan", "lumina2", "sd3", "flux"])
def test_text_as_long_as_the_image(name):
    """So that the number of tokens does not tell self-attention from attention to the text."""
    architecture = ARCHITECTURES[name]
    image = architecture.image or {"sd15": 48, "wan": 40}[name]
    model, negative = architecture.model(), architecture.prompt(4, image - architecture.text)
    reference = architecture.sample(RowForEach(model, negative, image=architecture.image).model)
    assert error(architecture.sample(OneRow(model, negative).model), reference, architecture.sample(model)) < EXACT


def test_rows_that_another_part_of_the_pack_answers_can_be_left_out():
    streams = joined.Streams(3, 0, 5, (), joined.Nag(4.0))
    rows = joined.Rows([streams, None, streams], joined.Form("img_in"))
    part = rows.only([1, 2])
    assert part.streams == [None, streams] and part.noted is rows.noted and part.bounds == [(0, 3), (3, 8)]


LAYOUTS = {
    "flat": {}, "heads": {"skip_reshape": True}, "heads in and out": {"skip_reshape": True, "skip_output_reshape": True},
    "v by head": {}, "grouped": {"skip_reshape": True, "enable_gqa": True},
}
if not hasattr(comfy.ops, "repeat_kv_for_gqa"):
    del LAYOUTS["grouped"]  # an older host


@pytest.mark.parametrize("masked", [None, 2, 3, 4])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_and_mask_of_the_hosts_attention(layout, masked):
    """Two rows of which the second has a negative, in an attention over text and image."""
    kwargs = LAYOUTS[layout]
    q, k, v = torch.randn(3, 2, 4, 20, 8)
    if "enable_gqa" in kwargs:
        k, v = k[:, :2], v[:, :2]
    mask = None if masked is None else torch.randn(*[1] * (masked - 2), 20, 20) if masked != 3 else torch.randn(2, 1, 20)
    streams = joined.Streams(3, 0, 5, (), joined.Nag(4.0))
    form = joined.Form("img_in")
    axis = 2 if kwargs.get("skip_output_reshape") else 1

    def attend(rows, queries, keys):
        part = mask
        if mask is not None:
            part = mask[..., keys] if mask.shape[-2] == 1 else mask[..., queries, :][..., keys]
            part = part[rows] if part.ndim > 2 and part.shape[0] == 2 else part
        options = {**kwargs, "mask": part}
        q_, k_, v_ = q[rows][:, :, queries], k[rows][:, :, keys], v[rows][:, :, keys]
        if not kwargs.get("skip_reshape"):
            q_, k_ = (t.transpose(1, 2).flatten(2) for t in (q_, k_))
            v_ = v_.transpose(1, 2) if layout == "v by head" else v_.transpose(1, 2).flatten(2)
        return attention.attention_pytorch(q_, k_, v_, 4, **options)

    image, everything = torch.arange(8, 20), torch.arange(20)
    prompt, away = (torch.cat([text, image]) for text in (torch.arange(3), torch.arange(3, 8)))
    plus, minus = attend(slice(1, 2), prompt, prompt), attend(slice(1, 2), away, away)
    guided = nag(plus.narrow(axis, 3, 12), minus.narrow(axis, 5, 12), 4.0, features=(1, 3) if axis == 2 else (-1,))
    second = torch.cat([plus.narrow(axis, 0, 3), minus.narrow(axis, 0, 5), guided], axis)

    rows = joined.Rows([streams, None], form)
    if kwargs.get("skip_reshape"):
        given = q, k, v
    else:
        flat = [t.transpose(1, 2) for t in (q, k, v)]
        given = flat[0].flatten(2), flat[1].flatten(2), flat[2] if layout == "v by head" else flat[2].flatten(2)
    given = [t.flip(0) for t in given]  # the row with the negative first
    turned = mask.flip(0) if mask is not None and mask.ndim > 2 and mask.shape[0] == 2 else mask
    out = bridge.override(None, attention.attention_pytorch, *given, 4, mask=turned, transformer_options={joined.JOINED: rows}, **kwargs)
    torch.testing.assert_close(out.flip(0), torch.cat([attend(slice(0, 1), everything, everything), second]))


def test_what_cannot_be_joined_is_told_in_one_sentence():
    architecture = ARCHITECTURES["flux"]
    model = architecture.model()

    def entry(width=16, **more):
        return {"model_conds": {"c_crossattn": comfy.conds.CONDRegular(torch.zeros(1, 3, width)), **more}}

    assert joined.refusal(model, [entry(), entry()]) is None
    assert "16 and 24 wide" in joined.refusal(model, [entry(), entry(24)])
    assert "style model" in joined.refusal(model, [entry(attention_mask=1), entry()])
    assert "no tokens" in joined.refusal(model, [{"model_conds": {}}])
    unknown = ARCHITECTURES["sd15"].model()
    unknown.model.diffusion_model = torch.nn.Linear(1, 1)
    assert "a Linear" in joined.refusal(unknown, [entry()])


class Control(comfy.controlnet.ControlBase):
    """A ControlNet that notes the prompt that the host's ControlNets would read, and controls nothing."""

    def __init__(self):
        super().__init__()
        self.tokens = set()

    def get_control(self, x, t, cond, batched_number, transformer_options):
        self.tokens.add(cond.get("crossattn_controlnet", cond["c_crossattn"]).shape[1])
        return {"input": [], "middle": [], "output": []}

    def copy(self):
        return self

    def get_models(self):
        return []


@FEW
def test_a_controlnet_reads_the_prompt_as_it_was(name):
    architecture = ARCHITECTURES[name]
    model, negative, control = architecture.model(), architecture.prompt(4, 7), Control()
    given = {"cfg": 3.0, "positive": architecture.prompt(1, control=control), "negative": architecture.prompt(2, control=control)}
    result = architecture.sample(OneRow(model, negative).model, **given)
    assert control.tokens == {12}
    expected = architecture.sample(OneRow(model, negative).model, cfg=3.0)
    assert error(result, expected, architecture.sample(model, cfg=3.0)) < EXACT
