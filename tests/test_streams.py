"""A scale for each stream of a packed latent: each is what it would be alone at its scale, under every guider."""

import logging

import pytest
import torch
from pack.tests.architectures import ARCHITECTURES
from pack.tests.host import NODES, Counter, cfg_guider, node, one_level, perp_neg_guider, short
from pack.tests.measure import error
from pack.tests.test_guiders import AUDIO, PACK, STREAMS, VIDEO, both, small


def guided(model, video, audio, **when):
    return node(NODES["GuidanceStreamCFG"], model, video=str(video), audio=str(audio), **when)


def alone(model, scale, noise, **when):
    return small(cfg_guider(node(NODES["GuidanceCFG"], model, scale=str(scale), **when)), 4, noise=noise)


PAIRS = [(3, 7), (5, 5), (1, 7), (3, 1), (0, 2), ("0:1, 0.5:6 step", "0:5, 1:1")]
pairs = pytest.mark.parametrize("video, audio", PAIRS)


@pairs
def test_each_stream_is_bit_for_bit_that_stream_alone(video, audio):
    answers = small(cfg_guider(guided(STREAMS, video, audio), 2.0), 4, noise=PACK).unbind()
    assert all(map(torch.equal, answers, (alone(STREAMS, video, VIDEO), alone(STREAMS, audio, AUDIO))))


@pairs
def test_so_it_is_where_the_guider_has_two_scales(video, audio):
    answers = small(both(guided(STREAMS, video, audio), 2.0, 4.0), 4, noise=PACK).unbind()
    for answer, right in zip(answers, (alone(STREAMS, video, VIDEO), alone(STREAMS, audio, AUDIO))):
        assert error(answer, right) < 1e-6


@pytest.mark.parametrize("video, audio, rows", [(3, 7, 8), (1, 7, 8), (3, 1, 8), (1, 1, 4), ("0:1, 0.5:6 step", 1, 6),
                                                ("0:1, 0.5:6 step", "0:2, 0.5:1 step", 8)])
def test_the_negative_is_computed_while_any_stream_is_guided(video, audio, rows, caplog):
    caplog.set_level(logging.INFO, "comfyui-guidance")
    counter = Counter(guided(STREAMS, video, audio))
    small(cfg_guider(counter.model, 2.0), 4, noise=PACK)
    assert (counter.rows, counter.calls) == (rows, 4)
    assert f"{rows} rows planned" in caplog.text


def test_a_window_and_an_empty_scale():
    answers = small(cfg_guider(guided(STREAMS, "", 7, start=0.3, end=0.8), 3.0), 4, noise=PACK).unbind()
    when = {"start": 0.3, "end": 0.8}
    assert all(map(torch.equal, answers, (alone(STREAMS, 3, VIDEO, **when), alone(STREAMS, 7, AUDIO, **when))))
    answers = small(both(guided(STREAMS, 2, ""), 3.0, 7.0), 4, noise=PACK).unbind()
    assert error(answers[1], alone(STREAMS, 7, AUDIO)) < 1e-6


def test_the_run_says_both_scales(caplog):
    caplog.set_level(logging.INFO, "comfyui-guidance")
    small(cfg_guider(guided(STREAMS, 3, 7)), 4, noise=PACK)
    assert caplog.text.count("CFG for video and audio: video cfg 3, audio cfg 7;") == 2


@pytest.mark.parametrize("name", ["APG", "Rescale", "CFGZeroStar", "DynamicThreshold", "FDG"])
@pytest.mark.parametrize("video, audio", [(3, 7), (1, 7)])
def test_the_chain_acts_on_each_stream_at_its_scale(name, video, audio):
    def more(model):
        return node(NODES[f"Guidance{name}"], model)

    answers = small(cfg_guider(more(guided(STREAMS, video, audio))), 4, noise=PACK).unbind()
    for answer, right in zip(answers, (alone(more(STREAMS), video, VIDEO), alone(more(STREAMS), audio, AUDIO))):
        assert error(answer, right) < 1e-6


def test_what_other_packs_added_to_the_answer_is_kept():
    model = STREAMS.clone()
    model.set_model_sampler_post_cfg_function(lambda args: args["denoised"] + 0.1 * args["input"])
    answers = small(cfg_guider(guided(model, 3, 7)), 4, noise=PACK).unbind()
    for answer, right in zip(answers, (alone(model, 3, VIDEO), alone(model, 7, AUDIO))):
        assert error(answer, right) < 1e-6


def test_a_guider_that_has_a_term_for_all_streams_is_named(caplog):
    small(perp_neg_guider(guided(STREAMS, 3, 7)), 2, noise=PACK)
    small(perp_neg_guider(guided(STREAMS, 3, 3)), 2, noise=PACK)
    assert sum("Guider_PerpNeg adds a term of its own" in record.message for record in caplog.records) == 1


def test_another_scale_that_a_later_node_sets_is_for_both():
    later = node(NODES["GuidanceCFG"], guided(STREAMS, 3, 7), scale="5")
    answers = small(cfg_guider(later), 4, noise=PACK).unbind()
    assert all(map(torch.equal, answers, (alone(STREAMS, 5, VIDEO), alone(STREAMS, 5, AUDIO))))


def test_of_one_stream_the_first_scale_is_its_scale():
    model = one_level()
    assert torch.equal(short(guided(model, 4, 9)), short(model, cfg=4.0))


@pytest.mark.parametrize("video, audio", [(3.0, 7.0), (1.0, 7.0), (3.0, 1.0)])
def test_ltx_2_with_a_plain_sampler_is_ltx_2_under_its_own_guider(video, audio):
    kind = ARCHITECTURES["ltxav"]
    model, noise = kind.model(), kind.noise()
    ours = kind.sample(guided(model, video, audio), cfg=2.0)
    guider = both(model, video, audio)
    guider.set_conds(kind.prompt(1), kind.prompt(2))
    right = torch.cat([part.flatten(1) for part in small(guider, 2, noise=noise).unbind()], dim=1)
    assert error(ours, right) < 1e-5
