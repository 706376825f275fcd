"""CADS on real ComfyUI: noise on the prompt alone."""

import logging

import pytest
import torch
from comfy.patcher_extension import WrappersMP
from nodes import ConditioningSetArea
from pack.nodes.bridge.guider import embedded
from pack.nodes.perturbed import PAG
from pack.nodes.prompts import CADS
from pack.tests.host import (
    POSITIVE,
    latent,
    node,
    one_level,
    prompt,
    sample,
)
from pack.tests.measure import close, far


@pytest.fixture(scope="module")
def model():
    return one_level()


def contexts(model, batch=2, **how):
    """What every forward of a run is given as prompt: [(cond_or_uncond, (rows, tokens, width)), ...]."""
    seen = []

    def look(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options={}, **kwargs):
        seen.append((transformer_options["cond_or_uncond"], c_crossattn.clone()))
        return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)

    looking = model.clone()
    looking.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "look", look)
    sample(looking, batch=batch, **how)
    return seen


def test_only_the_prompt_is_noised_each_picture_by_itself_and_not_after_tau1(model):
    seen = contexts(node(CADS, model, noise=0.2, start=0.5))
    plain = contexts(model)
    assert len(seen) == len(plain) == 6
    different = []
    for (order, noised), (_, clean) in zip(seen, plain):
        assert order == [1, 0]
        assert torch.equal(noised[:2], clean[:2])  # the negative
        different.append(not torch.equal(noised[2:], clean[2:]))
        if different[-1]:
            assert (noised[2] - noised[3]).abs().max() > 1e-3
    assert different == [True, True, True, False, False, False]  # 1, .8, .6, .4, .2, 0 of the time remain


def test_cads_changes_the_picture_with_the_seed_and_only_with_it(model):
    one, two = (sample(node(CADS, model, seed=seed)) for seed in (1, 2))
    far(one, two)
    assert torch.equal(one, sample(node(CADS, model, seed=1)))
    close(
        sample(node(CADS, model, seed=1), noise=latent(3))[:1], sample(node(CADS, model, seed=1), noise=latent(3)[:1])
    )


def test_a_perturbed_branch_starts_from_the_same_noised_prompt(model):
    for order, rows in contexts(node(PAG, node(CADS, model)), batch=1):
        assert order == [1, 0, 0]
        assert torch.equal(rows[1], rows[2])


def test_every_region_is_noised(model):
    positive = ConditioningSetArea().append(POSITIVE, 64, 128, 0, 0, 1.0)[0] + prompt(8)
    clean = {tuple(entry[0][0].flatten().tolist()) for entry in positive}
    first = contexts(node(CADS, model), batch=1, positive=positive)[0]
    for order, rows in [first]:
        for kind, row in zip(order, rows):
            assert kind == 1 or tuple(row.flatten().tolist()) not in clean


def test_a_model_without_cross_attention_says_so(model, caplog, monkeypatch):
    assert embedded([{"model_conds": {}}], lambda y: y, 1) is None
    monkeypatch.setattr("pack.nodes.bridge.evaluation.embedded", lambda *given: None)
    with caplog.at_level(logging.WARNING):
        answer = sample(node(CADS, model))
    assert torch.equal(answer, sample(model))
    assert sum("The prompt was not changed" in record.message for record in caplog.records) == 1


def test_tau1_above_tau2_is_refused(model):
    with pytest.raises(ValueError, match="start has to be the smaller"):
        node(CADS, model, start=0.9, full=0.6)
