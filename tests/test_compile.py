"""Under torch.compile a chain gives what it gives without, whatever is decided anew at each step.

Core's TorchCompileModel drops every guard on transformer_options, so what is decided from them while a graph is traced
stays decided.
"""

import shutil

import pytest
import torch
from comfy_extras.nodes_torch_compile import TorchCompileModel
from pack.tests.host import NODES, node, one_level, prompt, sample


@pytest.fixture(scope="module")
def model():
    return one_level()


@pytest.fixture(autouse=True)
def nothing_compiled_before():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def pag(model, **knobs):
    return node(NODES["GuidancePAG"], model, **knobs)


def twice_and_a_negative(model):
    """Two sets of layers, and a third kind of row."""
    model = pag(pag(model, scale=2.0), layers="middle, output", scale=3.0)
    return node(NODES["GuidanceNegative"], model, negative=prompt(7), mode="weighted")


def from_elsewhere(model):
    """A row that is told another time, windows, and a second forward."""
    for id, knobs in (("GuidanceTSG", {"spread": 0.5}), ("GuidanceSWG", {"size": 0.5}), ("GuidanceRectCFGPlusPlus", {})):
        model = node(NODES[id], model, **knobs)
    return model


CASES = {  # the chain, the scales to try; and what was off, of the effect, before
    # 1.00, without a word; in the two-level UNet of most tests torch.cat failed: "Sizes of tensors must match".
    "PAG": (pag, [5.0, 1.0]),
    "PAG from the middle on": (lambda model: pag(model, scale="0:0, 0.5:3"), [5.0]),  # 1.00: never weakened
    "PAG twice and a negative": (twice_and_a_negative, [5.0]),  # 1.01
    "from elsewhere": (from_elsewhere, [5.0]),
}


def assert_compiled_is_as_without(guided, model, backend, scales, limit):
    compiled = TorchCompileModel.execute(guided, backend).result[0]
    for cfg in scales:  # in one compiled model: another cfg is another number of rows
        how = dict(cfg=cfg, steps=3, size=4)
        right = sample(guided, **how)
        error = float((sample(compiled, **how) - right).norm() / (right - sample(model, **how)).norm())
        assert error < limit, f"{error:.5f} of the effect at cfg {cfg}"


@pytest.mark.parametrize("name", CASES)
def test_compiled_is_as_without(name, model):
    """"eager" traces and guards as every backend does, and compiles nothing."""
    make, scales = CASES[name]
    assert_compiled_is_as_without(make(model), model, "eager", scales, 1e-4)


def nag(model):
    return node(NODES["GuidanceNAG"], model, negative=prompt(7))


def test_in_one_session_nothing_compiled_is_taken_for_another_model(model):
    """A node is bypassed, another added: what was compiled with the one was run without it (KeyError: 'guidance_attention'),
    and the other way round."""
    chains = [model, pag(model), model, nag(pag(model)), node(NODES["GuidanceRescale"], model), nag(model), pag(model), model]
    how = dict(cfg=5.0, steps=2, size=4)
    for chain in chains:
        right = sample(chain, **how)
        assert torch.allclose(sample(TorchCompileModel.execute(chain, "eager").result[0], **how), right, rtol=1e-4, atol=1e-4)


if shutil.which("g++") or shutil.which("clang++"):

    def test_compiled_by_inductor_is_as_without(model):
        make, scales = CASES["PAG from the middle on"]  # 1.00 of the effect before
        assert_compiled_is_as_without(make(model), model, "inductor", scales, 1e-3)  # which rounds otherwise
