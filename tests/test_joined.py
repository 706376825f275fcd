"""NAG in one row: the same as every prompt in a row of its own, on every architecture and however the host batches."""

from collections import namedtuple

import pytest
import torch
from pack.tests.architectures import ARCHITECTURES
from pack.tests.joined import OneRow, RowForEach

EXACT = 1e-4  # of the effect
ALL = pytest.mark.parametrize("name", ARCHITECTURES)
Predictions = namedtuple("Predictions", "cond uncond")


def predict(architecture, model, **more):
    """What the guider's first evaluation predicts, streams flattened."""
    seen = []
    model = model.clone()
    model.set_model_sampler_post_cfg_function(lambda args: seen.append(args) or args["denoised"])
    architecture.sample(model, steps=1, **more)
    return Predictions(seen[0]["cond_denoised"].flatten(1), seen[0]["uncond_denoised"].flatten(1))


def error(one, reference, plain):
    """Share of the effect that is wrong."""
    effect = (reference - plain).norm()
    assert effect > 1e-3 * plain.norm()
    return float((one - reference).norm() / effect)


@ALL
@pytest.mark.parametrize("lengths", ("equal", "unequal"))
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
    masks = {"kept": 9} if architecture.masked and name != "hunyuan_video" else {}  # whose own mask takes no batch
    model, negative = architecture.model(), architecture.prompt(4, kept=5 if masks else None)
    given = {"cfg": 3.0, "batch": 2, "positive": architecture.prompt(1, **masks)}
    plain = predict(architecture, model, **given)
    one = OneRow(model, negative)
    joined = predict(architecture, one.model, **given)
    reference = predict(architecture, RowForEach(model, negative, image=architecture.image).model, **given)
    assert error(joined.cond, reference.cond, plain.cond) < EXACT
    assert (joined.uncond - plain.uncond).norm() < 1e-6 * plain.uncond.norm()
    assert one.rows == 4
