"""What the user is told: the line of a run before and after it, each strategy's own line, and what idles at cfg 1."""

import logging
import sys
from types import SimpleNamespace

import pytest
import torch
from pack.nodes import STRATEGIES
from pack.nodes.bridge.report import what_acts_at_1
from pack.tests.host import NODES, ON_FLUX, home, made, node, one_level, prompt, sample, tiny_flux
from pack.tests.test_architectures import two_streams


@pytest.fixture(scope="module")
def model():
    return one_level()


@pytest.fixture
def lines(caplog):
    """What the log says of the runs, as it grows."""
    caplog.set_level(logging.INFO, "comfyui-guidance")
    return lambda: [r.message.removeprefix("Guidance: ") for r in caplog.records if r.message.startswith("Guidance: ")]


@pytest.fixture
def told(monkeypatch):
    """What stands under each node in the end."""
    said = {}
    server = SimpleNamespace(client_id="page", send_sync=lambda event, data, client: said.update({data["node"]: data["text"]}))
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=server)))
    return said


def chained(model, *links):
    for number, (name, knobs) in enumerate(links):
        cls = NODES[f"Guidance{name}"]
        hidden, cls.hidden = cls.__dict__.get("hidden"), SimpleNamespace(unique_id=str(number))
        try:
            model = node(cls, model, **knobs)
        finally:
            cls.hidden = hidden
    return model


LINKS = [("CFG", {}), ("PAG", {}), ("APG", {}), ("Adaptive", {"threshold": 0.25})]


def test_a_chain_says_what_it_plans_and_what_it_did(model, lines, told):
    sample(chained(model, *LINKS), steps=20)
    before, after = lines()
    names = "CFG, PAG, APG, Adaptive guidance"
    assert before == f"{names}: cfg 7; 20 steps, 60 rows planned."
    assert after == (f"{names}: cfg 7 for 2 steps, 1 for 18; 42 rows in 20 calls, 60 planned. "
                     "Adaptive guidance: no negative from step 3 of 20 on.")
    assert told == {
        "0": "Changed nothing in this run (cfg 7 for 2 steps, 1 for 18).",
        "1": "Acted at 20 of 20 steps, 20 rows.",
        "2": "Acted at 2 of 20 steps.",
        "3": f"No negative from step 3 of 20 on.\nChain: {after}",
    }


def test_at_cfg_1_what_is_idle_is_named_with_what_would_act(model, lines, told):
    sample(chained(model, *LINKS), cfg=1.0)
    before, after = lines()
    idle = f"Idle at cfg 1: CFG, APG, Adaptive guidance; what acts there: {what_acts_at_1(model)}."
    assert before == f"CFG, PAG, APG, Adaptive guidance: cfg 1; 6 steps, 12 rows planned. {idle}"
    assert after == f"CFG, PAG, APG, Adaptive guidance: cfg 1; 12 rows in 6 calls, 12 planned. {idle}"
    nothing = "Idle: cfg was 1 throughout."
    assert told == {"0": nothing, "1": "Acted at 6 of 6 steps, 6 rows.", "2": nothing, "3": f"{nothing}\nChain: {after}"}


def test_a_node_says_which_scale_it_put_in_force(model, lines, told):
    sample(chained(model, ("CFG", {"scale": "0:7, 0.5:1 step"}), ("APG", {})), steps=20)
    assert told["0"] == "In force: cfg 7 for 10 steps, 1 for 10."


@pytest.mark.parametrize("model, acting, not_acting", [
    (one_level, "NAG, Push a word away or a prompt with negative weights, PAG", "Distilled"),
    (tiny_flux, "Distilled guidance over time, NAG", None),
    (two_streams, "a Negative prompt that is weighted", "NAG"),
], ids=["UNet", "Flux", "unknown"])
def test_at_cfg_1_what_would_act_is_what_the_model_can_do(model, acting, not_acting):
    said = what_acts_at_1(model())
    assert said.startswith(acting) and (not_acting is None or not_acting not in said)
    assert said.endswith("or a CFG node with a scale above 1 for a short part of the run, best at its start")


@pytest.mark.parametrize("curve, says", [
    ("0:1, 0.5:8, 1:1", "cfg 1 to 7"),  # "cfg 1 for 20" before, because its ends are equal
    ("0:7, 0.5:1 step", "cfg 7 for 10 steps, 1 for 10"),
    ("4", "cfg 4"),
])
def test_a_curve_is_told_by_its_range(curve, says, model, lines):
    sample(node(NODES["GuidanceCFG"], model, scale=curve), steps=20)
    assert all(says in line for line in lines())


def test_rows_that_the_host_could_not_stack_are_said(model, lines):
    sample(node(NODES["GuidanceCFG"], model), negative=prompt(2, tokens=7), positive=prompt(1, tokens=5))
    assert "12 rows in 12 calls" in lines()[1] and "The host could not put all rows into one call" in lines()[1]


MORE = [("GuidanceNegative", {"mode": "weighted"}), ("GuidancePerpCFG", {"literal": True}),
        ("GuidanceDynamicThreshold", {"form": "pixels"}), ("GuidanceCFGZeroStar", {"zero_steps": 1})]


DEFAULT = {"GuidanceDistilled": {"scale": 5.0}}  # whose own default is that of the model


@pytest.mark.parametrize("id, knobs", [*((cls.node_id, DEFAULT.get(cls.node_id, {})) for cls in STRATEGIES), *MORE], ids=str)
def test_what_a_strategy_declares_of_cfg_1_is_true(id, knobs):
    model = home(id, one_level("flow"))
    weak = {"weak_model": one_level("flow", seed=9)} if id == "GuidanceAutoguidance" else {}
    guided = made(id, model, **weak, **knobs)
    declared = guided.model_options["guidance_chain"][-1].acts_at_1
    assert torch.equal(sample(guided, cfg=1.0, steps=3), sample(model, cfg=1.0, steps=3)) is not declared


@pytest.mark.parametrize("id", [cls.node_id for cls in STRATEGIES if cls.node_id not in ON_FLUX])
def test_what_is_called_idle_behind_a_strategy_that_acts_is_idle(id, lines):
    """Rescale, norm and thresholds act at cfg 1 on what PAG has done; they were said to be idle."""
    model = node(NODES["GuidancePAG"], one_level("flow"))
    weak = {"weak_model": one_level("flow", seed=9)} if id == "GuidanceAutoguidance" else {}
    same = torch.equal(sample(made(id, model, **weak), cfg=1.0, steps=3), sample(model, cfg=1.0, steps=3))
    assert all(("Idle" in line) is same for line in lines()[:2])
