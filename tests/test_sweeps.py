"""Sweeps through the host's own executor: any knob, only what changed, what each cell cost, and mistakes."""

import asyncio
import copy
import itertools
import json
import logging
from types import SimpleNamespace

import execution
import folder_paths
import nodes
import pytest
import torch
from pack.lab import demo as lab_demo
from pack.lab import workflows
from pack.nodes.bridge import costs
from pack.tests.test_example_workflows import to_api

PROMPTS = itertools.count()


class Host:
    """The host's executor with all nodes, and how often something was sampled."""

    def __init__(self, cache):
        server = SimpleNamespace(client_id=None, last_node_id=None, send_sync=lambda *event: None)
        self.executor = execution.PromptExecutor(server, cache_type=cache, cache_args={"lru": 0, "ram": 0.0, "ram_inactive": 0.0})
        self.runs = 0

    def run(self, workflow, *outputs):
        """What these nodes put out: a list for each of their outputs. Raises ValueError with the host's word for a mistake."""
        number, workflow = str(next(PROMPTS)), copy.deepcopy(workflow)  # which the host completes
        valid, _, _, mistakes = asyncio.run(execution.validate_prompt(number, workflow, None))
        assert valid, mistakes
        self.executor.execute(workflow, number, {}, list(outputs))
        if not self.executor.success:
            raise ValueError(next(data for event, data in self.executor.status_messages if event == "execution_error")
                             ["exception_message"].strip())
        cache = self.executor.caches.outputs
        kept = getattr(cache, "get_local", cache.get)  # as later hosts call it
        return [kept(node).outputs for node in outputs]


@pytest.fixture(params=[execution.CacheType.CLASSIC, execution.CacheType.RAM_PRESSURE], ids=lambda cache: cache.name)
def host(request, monkeypatch, tmp_path, caplog):
    for name, cls in {**lab_demo.classes(), **workflows.EXTRAS}.items():
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, name, cls)
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))
    caplog.set_level(logging.INFO, "comfyui-guidance")
    made = Host(request.param)
    made.sampled = lambda: sum("rows in" in record.message for record in caplog.records)
    return made


classic = pytest.mark.parametrize("host", [execution.CacheType.CLASSIC], indirect=True, ids=["CLASSIC"])


def sweep(first="1, 3", second="1, 2", knobs=(("cfg", "scale"), ("sampler", "seed"))):
    """Values, wired to a knob each, before two steps of the bundled model."""
    graph = {
        "values": ["GuidanceValues", {"first": first, "first_name": "cfg", "second": second, "second_name": "seed"}],
        "model": ["GuidanceDemoModel", {"prediction": "v"}],
        "cfg": ["GuidanceCFG", {"model": ["model", 0], "scale": "4", "start": 0.0, "end": 1.0, "unit": "percent"}],
        "positive": ["CLIPTextEncode", {"clip": ["model", 1], "text": "a big red circle on blue"}],
        "negative": ["CLIPTextEncode", {"clip": ["model", 1], "text": ""}],
        "latent": ["EmptyLatentImage", {"width": 32, "height": 32, "batch_size": 1}],
        "sampler": ["KSampler", {
            "model": ["cfg", 0], "positive": ["positive", 0], "negative": ["negative", 0], "latent_image": ["latent", 0], "seed": 5,
            "steps": 2, "cfg": 5.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}],
        "decoded": ["VAEDecode", {"samples": ["sampler", 0], "vae": ["model", 2]}],
        "swept": ["GuidanceSweep", {"image": ["decoded", 0], "cell": ["values", 3]}],
        "sheet": ["GuidanceGrid", {"images": ["swept", 0], "labels": ["values", 2], "columns": 0, "notes": ["swept", 1]}],
    }
    for output, (node, knob) in enumerate(knobs):
        graph[node][1][knob] = ["values", output]
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in graph.items()}


def test_only_the_cells_of_a_changed_value_are_computed_again(host):
    (_, before), _ = host.run(sweep("1, 3, 8", "1, 2"), "swept", "sheet")
    assert host.sampled() == 6
    (_, after), _ = host.run(sweep("5, 1, 3, 8", "1, 2"), "swept", "sheet")
    assert host.sampled() == 6 + 2
    assert after[1:4] + after[5:] == before  # with the seconds that they took then
    assert [note.split(" s")[0].split(",")[0] for note in after] == ["4 rows", "2 rows", "4 rows", "4 rows"] * 2


@classic
def test_pictures_are_those_of_the_values_and_of_the_hosts_own_lists(host):
    (pictures, _), _, (lists,) = host.run(sweep("1, 3", "1, 2"), "swept", "sheet", "decoded")
    assert len(pictures) == 4 and all(map(torch.equal, pictures, lists))
    for picture, (seed, cfg) in zip(pictures, itertools.product((1, 2), (1, 3))):
        alone = sweep(knobs=())
        alone["cfg"]["inputs"]["scale"], alone["sampler"]["inputs"]["seed"] = str(cfg), seed
        assert torch.equal(picture, host.run(alone, "decoded")[0][0][0])


@classic
@pytest.mark.parametrize("values, node, knob, alone", [
    ("euler\ndpmpp_2m", "sampler", "sampler_name", ["euler", "dpmpp_2m"]),
    ("0:1, 1:8\n0:8, 1:1 smooth", "cfg", "scale", ["0:1, 1:8", "0:8, 1:1 smooth"]),
    ("2..3", "sampler", "steps", [2, 3]),
    ("0.5, 1", "sampler", "denoise", [0.5, 1.0]),
    ("a big red circle\na big blue star", "positive", "text", ["a big red circle", "a big blue star"]),
], ids=lambda value: value if isinstance(value, str) else "")
def test_any_knob_takes_them(values, node, knob, alone, host):
    (pictures, _), = host.run(sweep(values, "", [(node, knob)]), "swept")
    for picture, value in zip(pictures, alone, strict=True):
        graph = sweep(knobs=())
        graph[node]["inputs"][knob] = value
        assert torch.equal(picture, host.run(graph, "decoded")[0][0][0])


@classic
def test_a_sampler_without_a_strategy_has_no_note_and_one_that_all_share_is_nobodys(host):
    graph = sweep("1, 3", "", [("sampler", "cfg")])
    graph["sampler"]["inputs"]["model"] = ["model", 0]
    assert host.run(graph, "swept")[0][1] == ["", ""]
    graph = sweep("8, 16", "", [])
    graph["scaled"] = {"class_type": "ImageScale", "inputs": {"image": ["decoded", 0], "upscale_method": "area", "crop": "disabled",
                                                              "width": ["values", 0], "height": 8}}
    graph["swept"]["inputs"]["image"] = ["scaled", 0]
    (pictures, notes), = host.run(graph, "swept")
    assert [picture.shape[2] for picture in pictures] == [8, 16] and notes == ["", ""]


@classic
def test_costs_of_lists_are_told_item_by_item_and_only_those_of_one_prompt_are_kept(host):
    graph = sweep("1, 3", "", [("cfg", "scale")])
    graph["cost"] = {"class_type": "GuidanceCost", "inputs": {"image": ["decoded", 0]}}
    (_, notes), = host.run(graph, "cost")
    assert [note.split(",")[0] for note in notes] == ["2 rows", "4 rows"] and all(note.endswith(" s") for note in notes)
    host.run(sweep("2", "", [("cfg", "scale")]), "swept")
    assert len(costs._COSTS) == 1


def test_costs_outside_a_prompt_are_nobodys():
    before = copy.deepcopy(costs._COSTS)
    costs.record(3, 0.1)
    assert costs._COSTS == before and costs.recorded(["1"]) is None


def two_of_values(graph):
    graph["more"] = copy.deepcopy(graph["values"])
    graph["sampler"]["inputs"]["steps"] = ["more", 0]


@classic
@pytest.mark.parametrize("change, says", [
    (lambda graph: graph["values"]["inputs"].update(second=""), "second is empty"),
    (lambda graph: (graph["cfg"]["inputs"].update(scale="3"), graph["sampler"]["inputs"].update(seed=1)), "does not depend on"),
    (two_of_values, "one node has two axes"),
    (lambda graph: graph["swept"]["inputs"].update(cell="1, 2"), "straight to GuidanceValues"),
    (lambda graph: graph["swept"]["inputs"].update(image="picture"), "has to be linked"),
], ids=["second is empty", "no knob", "two nodes of values", "no cell", "no picture"])
def test_what_cannot_be_swept_is_told_in_one_sentence(change, says, host):
    graph = sweep()
    change(graph)
    with pytest.raises(ValueError, match=says) as error:
        host.run(graph, "sheet")
    assert str(error.value).startswith("GuidanceSweep: ") and str(error.value).count("\n") == 0 and host.sampled() == 0


@classic
def test_without_a_second_axis_its_output_ends_the_prompt_with_a_sentence(host):
    graph = sweep("1, 3", "", [("cfg", "scale")])
    graph["sampler"]["inputs"]["seed"] = ["values", 1]
    host.run(graph, "decoded")  # blocked, which the host tells the page
    assert host.sampled() == 0


# ------------------------------------------------------------------------------------------------ the five pictures

@classic
def test_the_five_pictures_are_what_they_are_called(host):
    known = {**lab_demo.classes(), **workflows.EXTRAS}
    graph = to_api(json.loads((workflows.FOLDER / "what_cfg_is.json").read_text()), known)
    for entry in graph.values():
        entry["inputs"] |= {"KSampler": {"steps": 4}}.get(entry["class_type"], {})
    kinds = {kind: [id for id, entry in graph.items() if entry["class_type"] == kind] for kind in ("CreateList", "GuidanceGrid")}
    (listed,), (notes,), (image,) = host.run(graph, *kinds["CreateList"], *kinds["GuidanceGrid"])
    assert host.sampled() == 5 and [note.split(",")[0] for note in notes] == ["4 rows", *["8 rows"] * 4]
    assert image[0].shape[2] >= 950

    def alone(scale, positive="a big red circle on blue", negative=""):
        plain = sweep(knobs=())
        plain["cfg"]["inputs"]["scale"] = str(scale)
        plain["positive"]["inputs"]["text"], plain["negative"]["inputs"]["text"] = positive, negative
        plain["sampler"]["inputs"].update(steps=4, seed=0)
        return host.run(plain, "decoded")[0][0][0]

    cond, uncond, both, other, exchanged = listed
    assert torch.equal(cond, alone(1)) and torch.equal(both, alone(5)) and torch.equal(other, alone(5, negative="a big circle on blue"))
    assert torch.allclose(uncond, alone(1, positive=""), atol=1e-5)
    assert torch.allclose(exchanged, alone(-4), atol=1e-4)
    for one, two in itertools.combinations(listed, 2):
        assert (one - two).abs().max() > 0.1
