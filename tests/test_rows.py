"""Where the rows of a forward stand, and what others who look there are told: patches, wrappers and ControlNets."""

import comfy.cldm.cldm
import comfy.controlnet
import comfy.model_patcher
import comfy.ops
import pytest
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.patcher_extension import WrappersMP
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from nodes import ConditioningSetArea, ConditioningSetMask, ControlNetApply, ControlNetApplyAdvanced
from pack.tests.host import (
    CPU,
    EMPTY,
    NEGATIVE,
    NODES,
    POSITIVE,
    Counter,
    TinyUNet,
    node,
    prompt,
    random_weights,
    sample,
    tiny_model,
)
from pack.tests.measure import error

MODEL = tiny_model("eps")
OTHER = prompt(7)


def negative(model, conditioning=OTHER, mode="weighted", **knobs):
    return node(NODES["GuidanceNegative"], model, negative=conditioning, mode=mode, **knobs)


def pag(model, scale=3.0):
    return node(NODES["GuidancePAG"], model, scale=scale)


# What all but vanishes must leave the picture as it is, whoever else looks at the rows.
FAINT = {
    "weighted": lambda model: negative(model, weight=1e-9),
    "PAG": lambda model: pag(model, 1e-9),
    "both": lambda model: pag(negative(model, weight=1e-9), 1e-9),
    "two negatives": lambda model: negative(negative(model, weight=1e-9), EMPTY, weight=1e-9),
}
faint = pytest.mark.parametrize("chained", FAINT.values(), ids=FAINT)


def small(model, **how):
    return sample(model, **{"steps": 3, "size": 8, **how})


# ------------------------------------------------------------------------------------------------ order

CHAINS = {
    "PAG": (pag, {}, [1, 0, 0]),
    "weighted": (negative, {}, [1, 1, 0]),
    "both": (lambda model: pag(negative(model)), {}, [1, 1, 0, 0]),
    "PAG at cfg 1": (pag, {"cfg": 1.0}, [0, 0]),
    "two negatives": (lambda model: negative(negative(model), EMPTY, mode="perp-neg"), {}, [1, 1, 1, 0]),
}


def spied(model, kind, seen):
    """A clone with another pack's look at the rows; for a DIFFUSION_MODEL wrapper the options come last."""
    def spy(executor, *args, **kwargs):
        options = kwargs.get("transformer_options") or next(a for a in reversed(args) if isinstance(a, dict))
        seen.append(list(options["cond_or_uncond"]))
        return executor(*args, **kwargs)

    patched = model.clone()
    patched.add_wrapper_with_key(kind, "spy", spy)
    return patched


# before: weighted [1, 0, 1], both [1, 0, 1, 0] or [1, 0, 0, 1] by chance, two negatives [1, 0, 1, 1]; in a wrapper that
# stands before ours the raw indices, such as [3, 2, 1, 0]
@pytest.mark.parametrize("kind", [WrappersMP.APPLY_MODEL, WrappersMP.DIFFUSION_MODEL])
@pytest.mark.parametrize("where", ["before ours", "after ours"])
@pytest.mark.parametrize("chained, how, rows", CHAINS.values(), ids=CHAINS)
def test_rows_arrive_as_uncond_negatives_cond_perturbed(chained, how, rows, where, kind):
    seen = []
    model = chained(spied(MODEL, kind, seen)) if where == "before ours" else spied(chained(MODEL), kind, seen)
    small(model, steps=1, **how)
    assert seen == [rows]


@pytest.mark.parametrize("chained, how, rows", CHAINS.values(), ids=CHAINS)
def test_the_first_row_of_each_kind_is_the_hosts_own(chained, how, rows):
    """Patches take .index(0) for the prompt's row and .index(1) for the negative's."""
    guided, seen = chained(MODEL), []

    def spy(x, context, value, options):
        rows = options["cond_or_uncond"]
        seen.append({kind: context[rows.index(kind)].clone() for kind in rows})
        return x, context, value

    guided.set_model_attn2_patch(spy)
    small(guided, steps=1, **how)
    own = {0: POSITIVE[0][0][0], 1: NEGATIVE[0][0][0]}
    assert all(torch.equal(context, own[kind]) for contexts in seen for kind, context in contexts.items())


# [1, 0, 0, 1] or [1, 0, 1, 0], and [3, 2, 1, 0] before
def test_a_model_function_wrapper_is_told_the_same_rows():
    guided, seen = pag(negative(MODEL)), []

    def wrapper(apply, args):
        seen.append((args["cond_or_uncond"], args["c"]["transformer_options"]["cond_or_uncond"]))
        return apply(args["input"], args["timestep"], **args["c"])

    guided.set_model_unet_function_wrapper(wrapper)
    small(guided, steps=1)
    assert seen == [([1, 1, 0, 0], [1, 1, 0, 0])]


# ------------------------------------------------------------------------------------------------ patches

def normalized_attention(model, tokens, scale=2.0, tau=2.5, alpha=0.5):
    """NAG as sd-perturbed-attention has it: all rows from the first cond row on are prompts, those before are not."""
    patched, network = model.clone(), model.model.diffusion_model
    places = {("middle", 0): network.middle_block}
    places |= {("input", i): block for i, block in enumerate(network.input_blocks)}
    places |= {("output", i): block for i, block in enumerate(network.output_blocks)}
    for (name, number), block in places.items():
        for module in block:
            for layer in getattr(module, "transformer_blocks", []):
                against = layer.attn2.to_k(tokens), layer.attn2.to_v(tokens)
                patched.set_model_attn2_replace(nag(against, scale, tau, alpha), name, number)
    return patched


def nag(against, scale, tau, alpha):
    def replace(q, k, v, options):
        heads, rows = options["n_heads"], options["cond_or_uncond"]
        z = optimized_attention(q, k, v, heads)
        if 0 not in rows:
            return z
        size = len(q) // len(rows)
        first = rows.index(0) * size
        count = rows.count(0) * size
        away = optimized_attention(q[first:], *(t.repeat_interleave(count, 0) for t in against), heads)
        pushed = z[first:] + scale * (z[first:] - away)
        ratio = pushed.norm(p=1, dim=-1, keepdim=True) / z[first:].norm(p=1, dim=-1, keepdim=True)
        mixed = alpha * pushed * (ratio.clamp(max=tau) / ratio) + (1 - alpha) * z[first:]
        return torch.cat([z[rows.index(1) * size:first], mixed]) if 1 in rows else mixed

    return replace


# before, at cfg 7 and 1: weighted 0.47 and 0.16, both 0.32 and 0.11, two negatives 0.65 and 0.21; PAG was right
@faint
@pytest.mark.parametrize("cfg", [7.0, 1.0])
def test_normalized_attention_of_another_pack_acts_on_the_prompts_rows(chained, cfg):
    foreign = normalized_attention(MODEL, EMPTY[0][0])
    assert error(small(foreign, cfg=cfg), small(MODEL, cfg=cfg)) > 1e-2
    assert error(small(chained(foreign), cfg=cfg), small(foreign, cfg=cfg)) < 1e-4


# ------------------------------------------------------------------------------------------------ ControlNets

class ToldRows(comfy.controlnet.ControlNet):
    """As Advanced-ControlNet: a factor for the negative's rows, which it finds by cond_or_uncond."""

    factor = 1.0

    def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
        self.rows = transformer_options["cond_or_uncond"]
        return super().get_control(x_noisy, t, cond, batched_number, transformer_options)

    def control_merge(self, control, control_prev, output_dtype):
        for output in (tensor for tensors in control.values() for tensor in tensors):
            size = len(output) // len(self.rows)
            for i, kind in enumerate(self.rows):
                if kind == 1:
                    output[i * size:(i + 1) * size] *= self.factor
        return super().control_merge(control, control_prev, output_dtype)

    def pre_run(self, model, percent_to_timestep_function):
        self.ran.append(model)
        super().pre_run(model, percent_to_timestep_function)

    def copy(self):
        c = type(self)(self.control_model, load_device=self.load_device)
        self.copy_to(c)
        c.factor, c.ran = self.factor, self.ran
        return c


def tiny_controlnet(factor=1.0, seed=30):
    config = {name: TinyUNet.unet_config[name] for name in TinyUNet.unet_config.keys() - {"out_channels"}}
    network = comfy.cldm.cldm.ControlNet(**config, hint_channels=3, operations=comfy.ops.disable_weight_init)
    control = ToldRows(random_weights(network, seed), load_device=CPU)
    control.factor, control.ran = factor, []
    return control


HINT = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(31))


def for_all(*controls):
    """The prompt under these ControlNets, one on the other; the host's older node gives them to all conditionings."""
    positive = POSITIVE
    for control in controls:
        (positive,) = ControlNetApply().apply_controlnet(positive, control, HINT, 1.0)
    return {"positive": positive}


def for_two(*controls):
    """As the host's newer node gives them: to the prompt and the sampler's negative alone."""
    pair = POSITIVE, NEGATIVE
    for control in controls:
        pair = ControlNetApplyAdvanced().apply_controlnet(*pair, control, HINT, 1.0, 0.0, 1.0)
    return dict(zip(("positive", "negative"), pair))


CONTROLS = {
    "for all": lambda factor=0.3: for_all(tiny_controlnet(factor)),
    "one on another, for two": lambda factor=0.3: for_two(tiny_controlnet(factor), tiny_controlnet(factor, seed=32)),
}
controls = pytest.mark.parametrize("controls", CONTROLS.values(), ids=CONTROLS)


@controls
def test_a_controlnet_and_its_factor_for_the_negatives_rows_matter(controls):
    """What the tests below stand on."""
    assert error(small(MODEL, **controls()), small(MODEL)) > 1e-2
    assert error(small(MODEL, **controls()), small(MODEL, **controls(1.0))) > 1e-2


# 0.68 to 1.48 before, all
@controls
@faint
def test_a_controlnet_is_told_which_rows_are_the_negatives(chained, controls):
    given = controls()
    assert error(small(chained(MODEL), **given), small(MODEL, **given)) < 1e-4


# 0.87 to 1.77 before, all; right only for ControlNets that do not ask
@controls
@pytest.mark.parametrize("cfg", [7.0, 1.0])
def test_pag_under_controlnets_is_cores(cfg, controls):
    given = controls()
    cores = small(PerturbedAttentionGuidance.execute(MODEL, 3.0).result[0], cfg=cfg, **given)
    assert error(small(pag(MODEL), cfg=cfg, **given), cores) < 1e-5


# 1.48 before
def test_a_controlnet_for_all_is_also_for_a_further_negative():
    """The sampler's own negative once more takes nothing away: the two predictions are the same."""
    given = for_all(tiny_controlnet(0.3))
    assert error(small(negative(MODEL, NEGATIVE), **given), small(MODEL, **given)) < 1e-5


# ------------------------------------------------------------------------------------------------ weak models

def autoguided(model, weak, share=0.5):
    return node(NODES["GuidanceAutoguidance"], model, weak_model=weak, share=share)


def loaded(seed):
    """A model that the host can load again."""
    model = tiny_model("eps", seed)
    model.cached_patcher_init = (tiny_model, ("eps", seed))
    return model


def on_two_devices(model):
    """As the host's MultiGPU node makes it; both devices are the CPU, which torch does not mind being numbered."""
    patched = model.clone()
    other = patched.deepclone_multigpu(torch.device("cpu", 1))
    other.is_multigpu_base_clone = True
    patched.set_additional_models("multigpu", [other])
    patched.match_multigpu_clones()
    return patched


# 3 times for 2 before, at last with the weak model
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_controlnet_is_run_in_with_the_model_that_is_sampled_and_no_more_often_than_without_us(share):
    plain, ours = tiny_controlnet(), tiny_controlnet()
    small(MODEL, **for_two(plain))
    small(autoguided(MODEL, tiny_model("eps", seed=9), share), **for_two(ours))
    assert ours.ran == plain.ran


if hasattr(comfy.model_patcher.ModelPatcher, "match_multigpu_clones"):  # one device before 0.29

    @pytest.mark.parametrize("chained", [pag, negative, lambda model: pag(negative(model))])
    def test_two_devices_make_the_same_picture(chained):
        model = loaded(0)
        assert error(small(chained(on_two_devices(model))), small(chained(model))) < 1e-5

    # weak model on two devices: 0.66 before with half of its share, because it also computed the prompt
    @pytest.mark.parametrize("share", [0.5, 1.0])
    @pytest.mark.parametrize("weak_also", [False, True])
    @pytest.mark.parametrize("first", [False, True], ids=["split last", "split first"])
    def test_two_devices_with_a_weak_model(first, weak_also, share):
        model, weak = loaded(0), loaded(9)
        weaker = on_two_devices(weak) if weak_also else weak
        split, last = (on_two_devices, lambda model: model) if first else (lambda model: model, on_two_devices)
        ours = last(autoguided(split(model), weaker, share))
        given = for_two(tiny_controlnet(0.3))
        for how in ({}, given):
            assert error(small(ours, **how), small(autoguided(model, weak, share), **how)) < 1e-5
        assert not any(ran is weak.model for ran in given["positive"][0][1]["control"].ran)

    # RuntimeError before, in the host: it tried to load the weak model for the other device too
    def test_two_devices_with_a_weak_model_that_cannot_be_loaded_again():
        model, weak = loaded(0), tiny_model("eps", seed=9)
        assert error(small(autoguided(on_two_devices(model), weak)), small(autoguided(model, weak))) < 1e-5


# ------------------------------------------------------------------------------------------------ areas

HALF = torch.zeros(1, 16, 16)
HALF[..., :8] = 1
WITHIN, WITHOUT = (..., slice(0, 5)), (..., slice(11, 16))  # well away from the seam, which may be soft


def in_half(conditioning, how):
    if how == "area":
        return ConditioningSetArea().append(conditioning, 64, 128, 0, 0, 1.0)[0]
    return ConditioningSetMask().append(conditioning, HALF, how, 1.0)[0]


halves = pytest.mark.parametrize("how", ["area", "mask bounds", "default"])


def once(model=MODEL, **how):
    """One evaluation: the guided prediction itself."""
    return sample(model, steps=1, **how)


def alone(conditioning):
    return once(positive=conditioning, cfg=1.0)


# before, area and mask bounds: 2 rows and 2 calls for each one (at cfg 7 24 for 12 in 6 steps), and 0.26 off
@halves
@pytest.mark.parametrize("cfg", [7.0, 1.0])
def test_a_negative_of_no_weight_costs_nothing_also_with_an_area(cfg, how):
    ours, plain = Counter(negative(MODEL, in_half(OTHER, how), weight=0.0)), Counter(MODEL)
    assert torch.equal(sample(ours.model, steps=3, cfg=cfg), sample(plain.model, steps=3, cfg=cfg))
    assert (ours.rows, ours.calls) == (plain.rows, plain.calls)


# before: area 0.27, mask bounds 0.34
@halves
def test_an_area_of_ours_touches_no_other_conditioning(how):
    ours = negative(MODEL, in_half(OTHER, how), weight=1e-9)
    assert error(sample(ours, steps=3), sample(MODEL, steps=3)) < 1e-4


# before: outside 3.3 times the term that is right inside; inside 0.89 off with an area, right with a mask
@halves
def test_a_weighted_negative_acts_inside_its_area_alone(how):
    term = once(negative(MODEL, in_half(OTHER, how), weight=2.0)) - once()
    right = -2.0 * (alone(in_half(OTHER, how)) - alone(NEGATIVE))
    assert term[WITHOUT].abs().max() < 1e-4 * right[WITHIN].abs().max()
    assert error(term[WITHIN], right[WITHIN]) < 1e-4


@pytest.mark.parametrize("mode", ["weighted", "perp-neg"])
def test_an_area_of_the_whole_picture_is_none(mode):
    (whole,) = ConditioningSetArea().append(OTHER, 128, 128, 0, 0, 1.0)
    assert error(once(negative(MODEL, whole, mode)), once(negative(MODEL, OTHER, mode))) < 1e-5


# before: inside 0.28 off with an area, outside 2.9 with all
@halves
def test_a_plain_negative_stands_for_the_samplers_inside_its_area_alone(how):
    ours = once(negative(MODEL, in_half(OTHER, how), "plain"))
    cond, uncond, other = alone(POSITIVE), alone(NEGATIVE), alone(in_half(OTHER, how))
    inside, outside = (negative + 7.0 * (cond - negative) for negative in (other, uncond))
    assert error(ours[WITHIN], inside[WITHIN]) < 1e-4
    assert error(ours[WITHOUT], outside[WITHOUT]) < 1e-4


def test_a_further_negative_is_taken_where_a_regional_prompt_takes_the_samplers():
    """The sampler's own negative once more takes nothing away, also where both are seen in the prompt's regions."""
    regional = [*POSITIVE, *in_half(EMPTY, "area")]
    assert error(once(negative(MODEL, NEGATIVE), positive=regional), once(positive=regional)) < 1e-5
