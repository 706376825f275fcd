"""PLADIS: its functions' and its own identities; and attention to the text on every architecture that has one of its own."""

from functools import partial

import pytest
import torch
from comfy.ldm.modules import attention
from comfy_extras.nodes_torch_compile import TorchCompileModel
from pack.guidance import pladis as pladis_step
from pack.guidance.core import Sparse, Timeline
from pack.guidance.pladis import FUNCTIONS, sparser
from pack.tests.architectures import ARCHITECTURES
from pack.tests.host import Counter, made
from pack.tests.joined import RowForEach

EXACT = 1e-4  # of the effect


def searched(logits, power):
    """The weights ((power - 1) logits - threshold) ** (1 / (power - 1)) that sum to 1, by bisection in float64."""
    logits = (power - 1) * logits.double()
    low = logits.amax(-1, keepdim=True) - 1
    high = low + 1
    for _ in range(60):
        middle = (low + high) / 2
        enough = (logits - middle).clamp_min(0).pow(1 / (power - 1)).sum(-1, keepdim=True) >= 1
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    return (logits - low).clamp_min(0).pow(1 / (power - 1))


POWERS = {"entmax 1.5": 1.5, "sparsemax": 2.0}
every_function = pytest.mark.parametrize("function", FUNCTIONS)


# ------------------------------------------------------------------------------------------------ the functions

@every_function
@pytest.mark.parametrize("size", [0.01, 1.0, 10.0, 1000.0])
@pytest.mark.parametrize("count", [1, 2, 77, 1024])
def test_weights_are_those_that_a_search_finds(function, size, count):
    logits = size * torch.randn(50, count)
    weights = FUNCTIONS[function](logits)
    torch.testing.assert_close(weights.double(), searched(logits, POWERS[function]), atol=2e-5, rtol=0)
    torch.testing.assert_close(weights.sum(-1), torch.ones(50), atol=2e-5, rtol=0)
    assert (weights >= 0).all()


@every_function
def test_what_weights_are_like(function):
    weights = FUNCTIONS[function]
    torch.testing.assert_close(weights(torch.full((1, 7), 5.0)), torch.full((1, 7), 1 / 7))
    assert torch.equal(weights(torch.tensor([[9.0, 0.0, -3e38]])), torch.tensor([[1.0, 0.0, 0.0]]))
    logits = torch.randn(20, 30)
    torch.testing.assert_close(weights(logits + 100), weights(logits), atol=1e-4, rtol=0)
    assert (weights(10 * logits) == 0).float().mean() > 0.5
    masked = torch.cat([logits, torch.full((20, 9), float("-inf"))], 1)
    torch.testing.assert_close(weights(masked), torch.cat([weights(logits), torch.zeros(20, 9)], 1))
    assert weights(torch.full((1, 5), -3e38)).isfinite().all()


@every_function
def test_logits_that_are_no_numbers_make_no_weights_and_leave_the_others_alone(function):
    """`index -1 is out of bounds` before, which on a GPU ends the process."""
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    broken = torch.cat([logits, torch.full((1, 5), float("nan")), torch.full((1, 5), -float("inf"))])
    weights = FUNCTIONS[function](broken)
    assert torch.equal(weights[:3], FUNCTIONS[function](logits)) and weights[3:].isnan().all()


# ------------------------------------------------------------------------------------------------ the change

def reference(q, k, v, mask, scale, function):
    logits = q.double() @ k.double().mT * q.shape[-1] ** -0.5 + (0 if mask is None else mask)
    return (scale * searched(logits, POWERS[function]) + (1 - scale) * torch.softmax(logits, -1)) @ v.double()


@every_function
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("shape", [None, (1, 1, 1, 9), (2, 1, 20, 9), (20, 9)])
def test_attention_and_the_change_are_the_papers_attention_however_many_queries_fit(function, scale, shape, monkeypatch):
    q, k, v = (3 * torch.randn(2, 3, count, 8) for count in (20, 9, 9))
    mask = None if shape is None else torch.randn(shape)
    change = sparser(q, k, v, mask, scale, function)
    dense = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close((dense + change).double(), reference(q, k, v, mask, scale, function), atol=1e-4, rtol=0)
    constant = torch.ones(2, 3, 9, 8)  # all weights sum to 1, so what is the same everywhere stays
    torch.testing.assert_close(sparser(q, k, constant, mask, scale, function), torch.zeros(2, 3, 20, 8), atol=2e-5, rtol=0)
    monkeypatch.setitem(sparser.__globals__, "AT_ONCE", 2 * 3 * 9 * 7)
    torch.testing.assert_close(sparser(q, k, v, mask, scale, function), change, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_comes_back_and_is_finite(dtype):
    q, k, v = (1000 * torch.randn(1, 2, 5, 8).to(dtype) for _ in range(3))
    change = sparser(q, k, v)
    assert change.dtype == dtype and change.isfinite().all()


def test_scale_0_plans_nothing():
    moment = Timeline((1.0, 0.5, 0.0)).moment(0.5, 7.0)
    assert pladis_step(0.0).plan(moment) is moment
    assert pladis_step(1.5, "sparsemax").plan(moment).sparse == Sparse(1.5, "sparsemax")
    assert pladis_step().plan(moment).rows == 2


# ------------------------------------------------------------------------------------------------ on the host

def attending(attend, q, k, v, heads, mask=None, tokens=12, **kwargs):
    """Attention whose weights are the paper's at scale 2, where it is to this many tokens of text."""
    axis = 2 if kwargs.get("skip_reshape") else 1
    if k.shape[axis] != tokens or q.shape[axis] == tokens:
        return attend(q, k, v, heads, mask, **kwargs)
    q, k, v = (t if axis == 2 else t.unflatten(2, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    mask = mask.unsqueeze(1) if mask is not None and mask.ndim == 3 else mask
    out = reference(q, k, v, mask, 2.0, "entmax 1.5").to(v.dtype)
    return out if kwargs.get("skip_output_reshape") else out.transpose(1, 2).flatten(2)


def right(architecture, model, tokens, **given):
    """What a prompt of that many tokens predicts with the paper's attention; alone in its forward."""
    changed = model.clone()
    changed.model_options["transformer_options"]["optimized_attention_override"] = partial(attending, tokens=tokens)
    return architecture.predict(changed, cfg=1.0, **given).cond


def error(one, reference, plain):
    effect = (reference - plain).norm()
    assert effect > 1e-3 * plain.norm()
    return float((one - reference).norm() / effect)


CROSS = [name for name, architecture in ARCHITECTURES.items() if architecture.image is None]
FEW = pytest.mark.parametrize("name", ["sd15", "wan", "ltxav"])


@pytest.mark.parametrize("name", CROSS)
def test_every_row_has_the_papers_attention_to_its_text_whatever_the_lengths(name):
    """The host evens out lengths by repeating a text, which would change sparse weights. With masks where there are masks."""
    architecture = ARCHITECTURES[name]
    masks = {"kept": 9} if architecture.masked else {}
    model, positive = architecture.model(), architecture.prompt(1, **masks)
    negative = architecture.prompt(2, architecture.text if masks or name == "ltxav" else 8)
    tokens = negative[0][0].shape[1]
    counters = Counter(made("GuidancePLADIS", model)), Counter(model)
    ours, plain = (architecture.predict(counter.model, cfg=3.0, positive=positive, negative=negative) for counter in counters)
    assert error(ours.cond, right(architecture, model, 12, positive=positive), plain.cond) < EXACT
    assert error(ours.uncond, right(architecture, model, tokens, positive=negative), plain.uncond) < EXACT
    assert len({(counter.rows, counter.calls) for counter in counters}) == 1


class SparseRowForEach(RowForEach):
    def attend(self, name, meeting, func, *args):
        q, k, v, given, kwargs = args
        return super().attend(name, meeting, partial(attending, func, tokens=7 if name == "negative" else 12), q, k, v, given, kwargs)


@FEW
def test_with_nag_both_prompts_are_looked_at_so(name):
    architecture = ARCHITECTURES[name]
    model, negative = architecture.model(), architecture.prompt(4, 7)
    guided = made("GuidanceNAG", made("GuidancePLADIS", model), negative=negative)
    one, plain = architecture.sample(guided), architecture.sample(made("GuidanceNAG", model, negative=negative))
    assert error(one, architecture.sample(SparseRowForEach(model, negative).model), plain) < EXACT


@FEW
def test_a_batch_that_memory_splits_and_a_weakened_row(name, monkeypatch):
    architecture = ARCHITECTURES[name]
    model, given = architecture.model(), {"cfg": 3.0, "batch": 2}
    guided = made("GuidancePAG", made("GuidancePLADIS", model))
    whole, plain = architecture.sample(guided, **given), architecture.sample(made("GuidancePAG", model), **given)
    monkeypatch.setattr(model.model, "memory_required", lambda *args, **kwargs: 1e30 if "cond_shapes" in kwargs else 1)
    assert error(architecture.sample(guided, **given), whole, plain) < EXACT


def test_compiled_it_is_as_without():
    torch._dynamo.reset()
    architecture = ARCHITECTURES["wan"]
    model, given = architecture.model(num_layers=1), {"cfg": 3.0}
    guided = made("GuidancePLADIS", model, scale="0:0, 1:4")  # first without, then with it
    expected, plain = architecture.sample(guided, **given), architecture.sample(model, **given)
    compiled = TorchCompileModel.execute(guided, "eager").result[0]
    assert error(architecture.sample(compiled, **given), expected, plain) < EXACT
    torch._dynamo.reset()


def test_attention_to_the_text_that_another_pack_has_replaced_keeps_what_that_adds():
    """As IPAdapter does it."""
    architecture = ARCHITECTURES["sd15"]
    model, adapted = architecture.model(), architecture.model()

    def replace(added, q, k, v, options):
        return attention.optimized_attention(q, k, v, options["n_heads"]) + added

    for block in (("input", 1), ("input", 3), ("middle", 0), *(("output", i) for i in range(4))):
        model.set_model_attn2_replace(partial(replace, 0.0), *block)
        adapted.set_model_attn2_replace(partial(replace, 0.3), *block)
    bare, plain = ARCHITECTURES["sd15"].model(), architecture.predict(model)
    ours = architecture.predict(made("GuidancePLADIS", model))
    assert error(ours.cond, right(architecture, bare, 12), plain.cond) < EXACT
    assert error(architecture.predict(made("GuidancePLADIS", adapted)).cond, ours.cond, plain.cond) > 0.1


@pytest.mark.parametrize("name", ["flux", "sd3", "lumina2"])
def test_where_text_and_picture_share_attention_it_is_refused_in_one_sentence(name):
    with pytest.raises(ValueError, match=r"^GuidancePLADIS: this model, a \w+, has no attention to the text alone that is known\.$"):
        made("GuidancePLADIS", ARCHITECTURES[name].model())


def test_an_override_that_displaces_ours_is_told_in_one_sentence():
    architecture = ARCHITECTURES["sd15"]
    guided = made("GuidancePLADIS", architecture.model())
    guided.model_options["transformer_options"]["optimized_attention_override"] = lambda attend, *args, **kwargs: attend(*args, **kwargs)
    with pytest.raises(RuntimeError, match="Attention to the text was to be sparser, but another pack has replaced it"):
        architecture.sample(guided)
