"""Under torch.compile a chain gives what it gives without, whatever is decided anew at each step.

Core's TorchCompileModel drops every guard on transformer_options, so what is decided from them while a graph is traced
stays decided.
"""

import shutil

import pytest
import torch
from comfy_extras.nodes_torch_compile import TorchCompileModel
from pack.tests.host import NODES, OneLevelUNet, node, prompt, sample, tiny_model


@pytest.fixture(scope="module")
def model():
    return tiny_model("eps", family=OneLevelUNet)


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


CASES = {  # what is off, of the effect, before
    "PAG": pag,  # BEFORE_pag
    "PAG from the middle on": lambda model: pag(model, scale="0:0, 0.5:3"),  # BEFORE_sched
    "PAG twice and a negative": twice_and_a_negative,  # BEFORE_twice
}


def assert_compiled_is_as_without(guided, model, backend, scales):
    compiled = TorchCompileModel.execute(guided, backend).result[0]
    for cfg in scales:  # in one compiled model: another cfg is another number of rows
        how = dict(cfg=cfg, steps=3, size=4)
        right = sample(guided, **how)
        error = float((sample(compiled, **how) - right).norm() / (right - sample(model, **how)).norm())
        assert error < 1e-4, f"{error:.4f} of the effect at cfg {cfg}"


@pytest.mark.parametrize("name", CASES)
def test_compiled_is_as_without(name, model):
    """"eager" traces and guards as every backend does, and compiles nothing."""
    assert_compiled_is_as_without(CASES[name](model), model, "eager", [5.0, 1.0])


if shutil.which("g++") or shutil.which("clang++"):

    def test_compiled_by_inductor_is_as_without(model):
        # BEFORE_inductor
        assert_compiled_is_as_without(CASES["PAG from the middle on"](model), model, "inductor", [5.0])
