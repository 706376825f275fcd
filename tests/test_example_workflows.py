"""The example workflows on the bundled model: every node of the pack has a place there and changes a picture there."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from pack.lab import demo as lab_demo
from pack.lab.canvas import is_widget
from pack.lab.workflows import EXTRAS
from pack.nodes import STRATEGIES
from pack.nodes.sweep import written
from pack.nodes.values import cells
from pack.tests.host import NODES

FILES = sorted((Path(__file__).parent.parent / "example_workflows").glob("*.json"))
every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
NOTES = ("MarkdownNote", "Note")
ELSEWHERE = {"GuidanceLikeness", "GuidanceTextLikeness", "GuidanceDistilled", "GuidanceModelPreset", "GuidanceNegativeTexts", "GuidanceTrainingDropout"}  # need a model, or pictures, that the pack does not bring
STEPS = 4
# Four steps are too few for these to act as they are set.
HASTY = {"GuidanceAdaptive": {"threshold": 1.0}, "GuidanceBudget": {"rows": 6}}


def to_api(graph, known):
    """The API format of a workflow as the editor saves it: a node's widgets are listed in the order of its inputs."""
    sources = {link[0]: [str(link[1]), link[2]] for link in graph["links"]}
    workflow = {}
    for entry in graph["nodes"]:
        if entry["type"] in NOTES:
            continue
        types = known[entry["type"]].INPUT_TYPES()
        types = {**types["required"], **types.get("optional", {})}
        widgets = [name for name, (kind, *more) in types.items()
                   if is_widget(kind, more[0] if more else {}) and kind != "COMFY_AUTOGROW_V3"]
        values = list(entry.get("widgets_values", ()))
        for name in widgets:
            if isinstance(types[name][-1], dict) and types[name][-1].get("control_after_generate"):
                values.pop(widgets.index(name) + 1)  # the editor's own
        assert len(values) == len(widgets), entry["type"]
        linked = {i["name"]: sources[i["link"]] for i in entry["inputs"] if i["link"] is not None}
        workflow[str(entry["id"])] = {"class_type": entry["type"], "inputs": dict(zip(widgets, values)) | linked}
    return workflow


@pytest.fixture(scope="module")
def known():
    return {**lab_demo.classes(), **EXTRAS}


def quick(file, known):
    """The workflow with one picture in few steps, and of a sweep the last cell."""
    workflow = to_api(json.loads(file.read_text()), known)
    for number, entry in list(workflow.items()):
        if entry["class_type"] == "GuidanceValues":
            cell, found = cells(**entry["inputs"])[-1], SimpleNamespace(get_node=workflow.get)
            workflow |= written(found, set(workflow) - {number}, number, (*cell, cell), "")
    for entry in workflow.values():
        more = {"KSampler": {"steps": STEPS}, "EmptyLatentImage": {"batch_size": 1}, **HASTY}
        entry["inputs"] |= more.get(entry["class_type"], {})
    return workflow


def samplers(workflow):
    return [number for number, entry in workflow.items() if entry["class_type"] == "KSampler"]


def on_the_wire(workflow, sampler):
    """The strategies that a sampler's model has come through."""
    number, ids = workflow[sampler]["inputs"]["model"][0], {cls.node_id for cls in STRATEGIES}
    while workflow[number]["class_type"] in {*ids, "GuidanceProbe"}:
        if workflow[number]["class_type"] in ids:
            yield number
        number = workflow[number]["inputs"]["model"][0]


def bypassed(workflow, link, number):
    """The MODEL link without that node; what stands after it on the wire is copied into the workflow."""
    if link[0] == number:
        return workflow[number]["inputs"]["model"]
    after = workflow[link[0]]
    copy = f"{link[0]} without {number}"
    before = bypassed(workflow, after["inputs"]["model"], number)
    workflow[copy] = {**after, "inputs": {**after["inputs"], "model": before}}
    return [copy, link[1]]


@every_file
def test_every_sampler_runs_and_every_strategy_before_it_changes_its_picture(file, known):
    workflow, results = quick(file, known), {}
    assert samplers(workflow), "which has no KSampler"
    for sampler in samplers(workflow):
        picture = lab_demo.evaluate(workflow, sampler, known, results)[0]["samples"]
        assert picture.isfinite().all() and picture.shape == (1, 3, 32, 32)
        inputs = workflow[sampler]["inputs"]
        for number in list(on_the_wire(workflow, sampler)):
            without = f"{sampler} without {number}"
            model = bypassed(workflow, inputs["model"], number)
            workflow[without] = {**workflow[sampler], "inputs": {**inputs, "model": model}}
            other = lab_demo.evaluate(workflow, without, known, results)[0]["samples"]
            assert (picture - other).abs().max() > 0.01, f"{workflow[number]['class_type']} ({number}) changes nothing"


def test_the_plot_of_the_probe_runs_and_has_seen_every_step(known):
    workflow = quick(next(file for file in FILES if file.stem == "measure_what_guidance_does"), known)
    (plot,) = (number for number, entry in workflow.items() if entry["class_type"] == "GuidanceProbePlot")
    picture, numbers = lab_demo.evaluate(workflow, plot, known, {})
    assert picture.isfinite().all() and len(json.loads(numbers)["step"]) == STEPS
    assert json.loads(numbers)["streams"][0]["added"].keys() == {"CFG", "PAG", "APG"}


def test_the_inverted_picture_is_made_again_and_another_prompt_makes_another(known):
    workflow = quick(next(file for file in FILES if file.stem == "edit_a_picture"), known)
    for entry in workflow.values():
        entry["inputs"] |= {"BasicScheduler": {"steps": STEPS}, "GuidanceNullText": {"rate": 0.1}}.get(entry["class_type"], {})
    results, (first,) = {}, samplers(workflow)
    picture = lab_demo.evaluate(workflow, first, known, results)[0]["samples"]
    again, edited = (lab_demo.evaluate(workflow, number, known, results)[0]["samples"]
                     for number, entry in workflow.items() if entry["class_type"] == "SamplerCustomAdvanced")
    assert (again - picture).square().mean() < 0.01 < (edited - picture).square().mean()


def test_every_node_has_a_place_in_an_example_workflow_and_every_strategy_before_a_sampler(known):
    found, sampled = set(), set()
    for file in FILES:
        workflow = quick(file, known)
        found |= {entry["class_type"] for entry in workflow.values()}
        for sampler in samplers(workflow):
            sampled |= {workflow[number]["class_type"] for number in on_the_wire(workflow, sampler)}
    assert NODES.keys() - found == ELSEWHERE
    assert sampled == {cls.node_id for cls in STRATEGIES} - ELSEWHERE
