"""PAG, SEG, skipped layers and shuffled tokens as nodes: what core's own nodes give, what they cost, on every architecture."""

import pytest
import torch
from comfy_extras.nodes_easycache import EasyCacheNode
from comfy_extras.nodes_slg import SkipLayerGuidanceDiT, SkipLayerGuidanceDiTSimple
from pack.tests.architectures import ARCHITECTURES, MultiGPUThreadPool, TwoDevices
from pack.tests.host import GIVEN, NEGATIVE, NODES, Counter, made, node, one_level, ranged, sample

WHOLE = {"start": 0.0, "end": 1.0}


def off(answer, right, plain):
    return float((answer - right).norm() / (right - plain).norm())


def counted(architecture, model, **given):
    counter = Counter(model)
    return architecture.sample(counter.model, **given), counter.rows, counter.calls


@pytest.mark.parametrize("name", ["flux", "wan", "sd3", "qwen", "ltxv", "chroma"])
def test_skipped_layers_are_what_cores_nodes_give_in_fewer_calls(name):
    architecture = ARCHITECTURES[name]
    model, given = architecture.model(), {"cfg": 3.0, "negative": architecture.prompt(2, architecture.text)}
    single = "single.1, " if name in ("flux", "chroma") else ""
    plain = architecture.sample(model, **given)
    right, rows, calls = counted(architecture, SkipLayerGuidanceDiT.execute(model, 3.0, 0.0, 1.0, "1", "1", 0.0).result[0], **given)
    ours = node(NODES["GuidanceSLG"], model, scale=3.0, layers=f"{single}double.1", **WHOLE)
    answer, our_rows, our_calls = counted(architecture, ours, **given)
    assert off(answer, right, plain) < 1e-4
    assert (rows, calls, our_rows, our_calls) == (6, 4, 6, 2)
    right, rows, calls = counted(architecture, SkipLayerGuidanceDiTSimple.execute(model, 0.0, 1.0, "1", "1").result[0], **given)
    ours = node(NODES["GuidanceSLG"], model, row="the negative's", layers=f"{single}double.1", **WHOLE)
    answer, our_rows, our_calls = counted(architecture, ours, **given)
    assert off(answer, right, plain) < 1e-4
    assert (rows, calls, our_rows, our_calls) == (4, 4, 4, 2)


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_every_node_with_its_own_settings_on_every_architecture(architecture):
    model, given = architecture.model(), {"cfg": 3.0, "negative": architecture.prompt(2, architecture.text)}
    plain = architecture.sample(model, **given)
    for id in ("GuidancePAG", "GuidanceSEG", "GuidanceSLG", "GuidanceTPG", "GuidanceRandomLayers", "GuidanceERG"):
        if id == "GuidanceTPG" and architecture.name in ("sd3", "aura"):
            with pytest.raises(ValueError, match="GuidanceTPG: this model, a .*, tells tokens their places only at its start"):
                made(id, model)
            continue
        answer, rows, calls = counted(architecture, made(id, model), **given)
        assert (rows, calls) == (6, 2), id
        assert answer.isfinite().all(), id
        assert (answer - plain).norm() > 1e-3 * plain.norm(), id


def test_a_saved_workflow_without_the_new_inputs_is_the_same():
    model = one_level()
    old = NODES["GuidancePAG"].execute(model=model, scale=3.0, layers="middle", rescale=0.0).result[0]
    assert torch.equal(sample(old), sample(made("GuidancePAG", model)))
    assert [given.id for given in NODES["GuidancePAG"].inputs][:3] == ["scale", "layers", "rescale"]
    assert all(given.optional for given in NODES["GuidancePAG"].inputs[3:])


def test_a_negative_without_layers_costs_nothing_and_is_idle_at_cfg_1():
    model = one_level()
    skipping = made("GuidanceSLG", model, row="the negative's")
    counter = Counter(skipping)
    assert not torch.equal(sample(counter.model), sample(model))
    assert (counter.rows, counter.calls) == (12, 6)
    assert torch.equal(sample(skipping, cfg=1.0), sample(model, cfg=1.0))


@pytest.mark.parametrize("negative", [[], ranged(NEGATIVE, 1.0, 1.0)], ids=["empty", "never in its range"])
def test_no_other_pack_is_accused_where_no_negative_is_computed(negative, caplog):
    """`another pack has replaced` its layers before."""
    sample(made("GuidanceSLG", one_level(), row="the negative's"), steps=2, negative=negative)
    assert not [record for record in caplog.records if record.name == "comfyui-guidance" and record.levelname == "WARNING"]


def test_a_negative_of_its_own_loses_the_layers_too():
    """The node before replaces the sampler's negative; what is skipped is skipped in what counts."""
    model = one_level()
    own = made("GuidanceSLG", made("GuidanceNegative", model), row="the negative's")
    right = sample(made("GuidanceSLG", model, row="the negative's"), negative=GIVEN["GuidanceNegative"]["negative"])
    assert torch.equal(sample(own), right)


@pytest.mark.parametrize("id", ["GuidanceSLG", "GuidanceTPG", "GuidanceRandomLayers"])
def test_a_step_cache_knows_the_weakened_prediction_from_the_prompts(id, caplog):
    """It remembers predictions by uuid, which ours keep, although they draw anew at each step. And of layers that are drawn
    for a step which it skips it is not said that there are none, as it was before."""
    model = one_level()
    guided = made(id, model)
    counter = Counter(made(id, EasyCacheNode.execute(model, 3.0, 0.15, 0.95, False).result[0]))
    cached, plain = sample(counter.model, steps=12), sample(EasyCacheNode.execute(model, 3.0, 0.15, 0.95, False).result[0], steps=12)
    right, bare = sample(guided, steps=12), sample(model, steps=12)
    # The cache is an approximation; it may cost the strategy little more than it costs CFG.
    assert float((cached - right).norm() / right.norm()) < 2 * float((plain - bare).norm() / bare.norm())
    assert off(cached, right, plain) < 1
    assert "had no effect" not in caplog.text


if MultiGPUThreadPool:
    @pytest.mark.parametrize("name", ["flux", "wan", "sd15"])
    def test_two_devices(name):
        """The weakened row is far from the one it copies."""
        architecture = ARCHITECTURES[name]
        two = TwoDevices(architecture)
        given = {"cfg": 3.0, "negative": architecture.prompt(2, architecture.text)}
        guided = made("GuidancePAG", made("GuidanceSLG", two.model))
        whole, plain = architecture.sample(guided, **given), architecture.sample(two.model, **given)
        assert off(architecture.sample(two.split(guided), **given), whole, plain) < 1e-4
        assert two.seen == two.networks
