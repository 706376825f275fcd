"""NAG and negative weights as nodes: what they have to equal, what they cost, and what they refuse."""

import pytest
import torch
from nodes import ConditioningSetArea
from pack.nodes.bridge.joined import Nag
from pack.tests.architectures import ARCHITECTURES
from pack.tests.host import NODES, Counter, node, sample, tiny_model
from pack.tests.host import prompt as unet_prompt
from pack.tests.joined import RowForEach


def nag(model, negative, **knobs):
    return node(NODES["GuidanceNAG"], model, negative=negative, **knobs)


def push(model, away, **knobs):
    return node(NODES["GuidancePushAway"], model, away=away, **knobs)


def error(ours, right, plain):
    return float((ours - right).norm() / (right - plain).norm())


@pytest.mark.parametrize("name", ["sd15", "sdxl", "wan", "flux", "sd3", "qwen", "z_image", "ltxv", "cosmos_predict2"])
def test_the_nodes_are_the_reference_with_a_row_for_each_prompt(name):
    """The reference runs each prompt in a row of its own, whose attentions meet. Lengths differ, where that is exact."""
    kind = ARCHITECTURES[name]
    lengths = (kind.text, kind.text) if name in ("z_image", "ltxv") else (8, 4)
    model, negative, away, image = kind.model(), kind.prompt(5, lengths[0]), kind.prompt(6, lengths[1]), kind.image
    plain = kind.predict(model)[0]
    reference = RowForEach(model, negative=negative, image=image, nag=Nag(3.0, 2.0, 0.5))
    assert error(kind.predict(nag(model, negative, scale=3.0, tau=2.0, alpha=0.5))[0], kind.predict(reference.model)[0], plain) < 1e-4
    reference = RowForEach(model, pushed=away, image=image, weight=0.7)
    assert error(kind.predict(push(model, away, weight=0.7))[0], kind.predict(reference.model)[0], plain) < 1e-4


@pytest.fixture(scope="module")
def model():
    return tiny_model("eps")


NEGATIVE, AWAY = unet_prompt(7, 9), unet_prompt(8, 3)


@pytest.mark.parametrize("cfg, rows", [(1.0, 6), (5.0, 12)])
def test_they_cost_no_row_and_no_call(cfg, rows, model):
    counter = Counter(push(nag(model, NEGATIVE), AWAY))
    answer = sample(counter.model, cfg=cfg)
    assert (counter.rows, counter.calls) == (rows, 6)
    assert not torch.equal(answer, sample(model, cfg=cfg))


def test_a_window_and_a_curve_are_obeyed(model):
    plain = sample(model, last_step=3)
    assert torch.equal(sample(nag(model, NEGATIVE, start=0.5), last_step=3), plain)
    assert torch.equal(sample(push(model, AWAY, weight="0:0, 3:0, 3.5:1 steps"), last_step=3), plain)
    assert not torch.equal(sample(nag(model, NEGATIVE, end=0.5), last_step=3), plain)


def test_uncond_and_other_rows_do_not_see_the_negative(model):
    """Beside PAG and a weighted negative whose weights are next to nothing, the picture is that of NAG alone."""
    alone = sample(nag(model, NEGATIVE), cfg=3.0)
    weighted = node(NODES["GuidanceNegative"], nag(model, NEGATIVE), negative=unet_prompt(4, 6), mode="weighted", weight=1e-9)
    with_pag = node(NODES["GuidancePAG"], weighted, scale=1e-9)
    torch.testing.assert_close(sample(with_pag, cfg=3.0), alone, rtol=1e-4, atol=1e-3)


def test_pag_perturbs_a_prompt_that_is_read_beside_its_negative(model):
    either = [sample(chain, cfg=3.0) for chain in (
        node(NODES["GuidancePAG"], nag(model, NEGATIVE)), nag(node(NODES["GuidancePAG"], model), NEGATIVE))]
    torch.testing.assert_close(*either, rtol=1e-4, atol=1e-3)


def test_several_words_are_pushed_away_together(model):
    both = push(push(model, AWAY, weight=0.5), unet_prompt(9, 2), weight=1.5)
    assert not torch.allclose(sample(both), sample(push(model, AWAY, weight=0.5)))
    none = push(both, unet_prompt(4, 2), weight=0.0)
    assert torch.equal(sample(none), sample(both))


def test_what_cannot_be_read_beside_the_prompt_is_refused_at_the_node(model):
    with pytest.raises(ValueError, match="has 2 parts; it has to have one"):
        nag(model, NEGATIVE + AWAY)
    with pytest.raises(ValueError, match="has area; it is read by the whole picture"):
        nag(model, ConditioningSetArea().append(NEGATIVE, 64, 128, 0, 0, 1.0)[0])
    model = tiny_model("eps")
    model.model.diffusion_model.__class__ = type("Unknown", (type(model.model.diffusion_model),), {})
    with pytest.raises(ValueError, match="this model, a Unknown, does not let attention be told apart"):
        nag(model, NEGATIVE)


def test_a_negative_of_another_width_is_refused_before_the_first_step(model):
    wide = [[torch.randn(1, 4, 20), {"pooled_output": None}]]
    with pytest.raises(ValueError, match="NAG.*different text encoders: their tokens are 16 and 20 wide"):
        sample(nag(model, wide))
