"""The reshaping strategies as nodes: on the demo model through their example workflow, and with ComfyUI's samplers."""

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("comfy")

from pack.lab import demo  # noqa: E402
from pack.nodes import STRATEGIES  # noqa: E402
from pack.nodes.answer import DynamicThreshold  # noqa: E402
from pack.nodes.direction import APG, CFGZeroStar, Momentum, PerpCFG  # noqa: E402
from pack.nodes.scale import BetaCFG  # noqa: E402
from pack.tests.host import Counter, node, sample, tiny_model  # noqa: E402

WORKFLOW = Path(__file__).parent.parent / "example_workflows" / "calm_high_cfg.json"
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")


SHAPING = [cls for cls in STRATEGIES if cls.__module__.endswith(("answer", "direction")) and cls is not PerpCFG] + [BetaCFG]


def to_api(graph, known):
    """The API format of a workflow as the editor saves it: a node's widgets are listed in the order of its inputs."""
    sources = {link[0]: [str(link[1]), link[2]] for link in graph["links"]}
    workflow = {}
    for entry in graph["nodes"]:
        if entry["type"] == "MarkdownNote":
            continue
        types = known[entry["type"]].INPUT_TYPES()
        types = {**types["required"], **types.get("optional", {})}
        widgets = [name for name, (kind, *_) in types.items()
                   if not isinstance(kind, str) or kind.split(",")[0] in WIDGETS]
        values = list(entry["widgets_values"])
        if "seed" in widgets:
            values.pop(widgets.index("seed") + 1)  # the editor's own "fixed"
        assert len(values) == len(widgets), entry["type"]
        inputs = dict(zip(widgets, values)) | {i["name"]: sources[i["link"]] for i in entry["inputs"]}
        workflow[str(entry["id"])] = {"class_type": entry["type"], "inputs": inputs}
    return workflow


@pytest.fixture(scope="module")
def known():
    return demo.classes()


@pytest.fixture(scope="module")
def pictures(known):
    """Per row of the example workflow, by strategy: the KSampler's latent, in four steps."""
    workflow, results, pictures = to_api(json.loads(WORKFLOW.read_text()), known), {}, {}
    for number, entry in workflow.items():
        if entry["class_type"] == "KSampler":
            entry["inputs"]["steps"] = 4
        if entry["class_type"] == "EmptyLatentImage":
            entry["inputs"]["batch_size"] = 1
    for number, entry in workflow.items():
        if entry["class_type"] == "KSampler":
            patched = workflow[entry["inputs"]["model"][0]]
            pictures[patched["class_type"]] = demo.evaluate(workflow, number, known, results)[0]["samples"]
    return pictures


def test_every_strategy_has_a_place_in_the_example_workflow(pictures):
    assert set(pictures) == {"GuidanceDemoModel", *(cls.node_id for cls in SHAPING)}


@pytest.mark.parametrize("cls", SHAPING, ids=lambda cls: cls.node_id)
def test_it_changes_the_picture_there(cls, pictures):
    answer = pictures[cls.node_id]
    assert answer.isfinite().all() and answer.shape == (1, 3, 32, 32)
    assert (answer - pictures["GuidanceDemoModel"]).abs().max() > 0.01


def test_auto_takes_pixels_for_pixels(pictures, known):
    assert pictures["GuidanceDynamicThreshold"].abs().max() <= 1
    sd = node(DynamicThreshold, tiny_model())
    latents = node(DynamicThreshold, tiny_model(), form="latents")
    assert torch.equal(sample(sd), sample(latents))
    assert not torch.equal(sample(sd), sample(node(DynamicThreshold, tiny_model(), form="pixels")))


def test_zero_init_stands_still_in_a_flow_model_at_any_cfg():
    model = tiny_model("flow")
    for cfg, rows in ((7.0, (1, 1, 2, 2, 2, 2)), (1.0, (1,) * 6)):
        counter = Counter(node(CFGZeroStar, model, zero_steps=2))
        seen = []
        sample(counter.model, cfg=cfg, callback=lambda step, denoised, x, total: seen.append(x.clone()))
        assert torch.equal(seen[0], seen[1]) and torch.equal(seen[1], seen[2]) and not torch.equal(seen[2], seen[3])
        assert (counter.rows, counter.calls) == (sum(rows), 6)


@pytest.mark.parametrize("sampler", ["heun", "dpm_2", "dpmpp_sde"])
@pytest.mark.parametrize("cls", [APG, CFGZeroStar, BetaCFG, Momentum], ids=lambda cls: cls.node_id)
def test_what_counts_steps_runs_with_samplers_that_evaluate_a_step_more_than_once(cls, sampler):
    guided = node(cls, tiny_model("flow"))
    first = sample(guided, sampler=sampler, steps=4)
    assert first.isfinite().all() and torch.equal(sample(guided, sampler=sampler, steps=4), first)


def test_momentum_guidance_costs_no_row_at_cfg_1_and_still_works():
    model = tiny_model("flow")
    counter = Counter(node(Momentum, model))
    assert not torch.equal(sample(counter.model, cfg=1.0), sample(model, cfg=1.0))
    assert (counter.rows, counter.calls) == (6, 6)
