"""Through the HTTP API of a running ComfyUI, as a program drives it: what works, and how mistakes are told."""

import asyncio
import importlib.util
import itertools
import json
from pathlib import Path

import pytest
from pack import dev
from pack.nodes import STRATEGIES

pytestmark = pytest.mark.xdist_group("server")  # one for all of these tests


@pytest.fixture(scope="module")
def info(server):
    return server.get("/object_info")[1]


def workflow(node=None, **inputs):
    """A red circle from core nodes, with one of ours on the MODEL wire."""
    graph = {
        "model": ["GuidanceDemoModel", {"prediction": "v"}],
        "positive": ["CLIPTextEncode", {"clip": ["model", 1], "text": "a big red circle on blue"}],
        "negative": ["CLIPTextEncode", {"clip": ["model", 1], "text": ""}],
        "unwanted": ["CLIPTextEncode", {"clip": ["model", 1], "text": "a big blue circle on red"}],
        "latent": ["EmptyLatentImage", {"width": 32, "height": 32, "batch_size": 1}],
        "sampler": ["KSampler", {"model": ["model", 0], "positive": ["positive", 0], "negative": ["negative", 0],
                                 "latent_image": ["latent", 0], "seed": 1, "steps": 4, "cfg": 5.0,
                                 "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}],
        "decoded": ["VAEDecode", {"samples": ["sampler", 0], "vae": ["model", 2]}],
        "saved": ["SaveImage", {"images": ["decoded", 0], "filename_prefix": "test"}],
    }
    if node:
        graph["ours"] = [node, {"model": ["model", 0], **inputs}]
        graph["sampler"][1]["model"] = ["ours", 0]
    return {name: {"class_type": kind, "inputs": values, "_meta": {"title": name}} for name, (kind, values) in graph.items()}


GIVEN = {
    "GuidanceNegative": {"negative": ["unwanted", 0]},
    "GuidanceNAG": {"negative": ["unwanted", 0]},
    "GuidancePushAway": {"away": ["unwanted", 0]},
    "GuidanceTextEncode": {"clip": ["model", 1], "text": "a big red circle, (blue:-1)"},
}


def defaults(info, node):
    given = {**info[node]["input"].get("required", {}), **info[node]["input"].get("optional", {})}
    return {name: more[0]["default"] for name, (_, *more) in given.items() if more and "default" in more[0]}


EXAMPLES = sorted((Path(__file__).parent.parent / "example_workflows").glob("*.json"))


OTHER_MODELS = {"GuidanceAutoguidance", "GuidanceClassifier", "GuidanceDistilled"}  # are for more, or others, than the bundled one


@pytest.mark.parametrize("node", [cls.node_id for cls in STRATEGIES if not cls.node_id in OTHER_MODELS])
def test_a_strategy_runs_with_a_plain_ksampler(server, info, node):
    outputs = server.run(workflow(node, **defaults(info, node), **GIVEN.get(node, {})))
    (image,) = outputs["saved"]["images"]
    assert (server.output / image["filename"]).stat().st_size > 100


def test_a_plan_stands_in_the_history_and_lets_the_model_through(server, info):
    graph = workflow("GuidancePlan", **defaults(info, "GuidancePlan"), sampler_name="heun", scheduler="normal")
    outputs = server.run(graph)
    assert outputs["ours"]["text"][0].startswith("20 steps with heun, cfg 8: 78 rows in 39 calls.")
    assert outputs["saved"]["images"]


def test_every_node_has_a_place_in_an_example_workflow(info):
    shown = {node["type"] for example in EXAMPLES for node in json.loads(example.read_text())["nodes"]}
    needs_a_model_of_its_own = {"GuidanceLikeness", "GuidanceTextLikeness", "GuidanceDistilled", "GuidanceModelPreset", "GuidanceNegativeTexts", "GuidanceTrainingDropout"}  # or pictures, which do not come with the pack
    assert {name for name in info if name.startswith("Guidance")} - needs_a_model_of_its_own <= shown


def test_the_menu_says_what_each_node_does(info):
    ours = {name: node for name, node in info.items() if name.startswith("Guidance")}
    assert len(ours) > len(STRATEGIES)
    for name, node in ours.items():
        assert node["display_name"] and len(node["description"]) > 40, name
        assert node["category"].split("/")[0] == "guidance", name
        for inputs in (node["input"].get("required", {}), node["input"].get("optional", {})):
            for input_name, (kind, *more) in inputs.items():
                plain = kind in ("MODEL",)
                assert plain or (more and more[0].get("tooltip")), f"{name}.{input_name} has no tooltip"


def test_every_node_has_a_help_page_that_the_host_serves(server, info):
    for name in info:
        if name.startswith("Guidance"):
            status, page = server.get(f"/extensions/{dev.PACK}/docs/{name}.md")
            assert status == 200 and len(page) > 200, name


@pytest.mark.parametrize("node, wrong, says", [
    ("GuidanceCFG", {"scale": "0:7.5, x:1"}, "where a number"),
    ("GuidanceCFG", {"scale": "1e9"}, "belongs"),
    ("GuidanceCFG", {"scale": "9999"}, "between -100 and 100"),
    ("GuidanceCFGPlusPlus", {"strength": "nan"}, "has to be between 0 and 4"),
    ("GuidanceCFGPlusPlus", {"strength": -1}, "strength is -1; it has to be between 0 and 4"),
    ("GuidancePerpCFG", {"eta": "many"}, "a number"),
    ("GuidancePAG", {"scale": 1e6}, "between -100 and 100"),
    ("GuidanceNegative", {"weight": "0:1, 0:2"}, "Two points"),
])
def test_a_wrong_knob_is_refused_with_400_and_our_sentence(server, info, node, wrong, says):
    graph = workflow(node, **{**defaults(info, node), **GIVEN.get(node, {}), **wrong})
    status, answer = server.post("/prompt", {"prompt": graph})
    assert status == 400
    (error,) = answer["node_errors"]["ours"]["errors"]
    assert error["type"] == "custom_validation_failed" and says in error["details"]


@pytest.mark.parametrize("node, wrong, says", [
    ("GuidanceCFG", {"start": 0.8, "end": 0.2}, "0 <= start <= end <= 1"),
    ("GuidanceCFG", {"start": 0.3, "end": 5.0, "unit": "sigma"}, "start has to be the larger"),
    ("GuidancePAG", {"layers": "middle.7"}, "it has input."),
    ("GuidancePAG", {"rescale": float("nan")}, "rescale is nan; it has to be between 0 and 1"),
])
def test_what_depends_on_more_than_one_knob_is_told_by_the_node_before_sampling(server, info, node, wrong, says):
    with pytest.raises(dev.Failure) as failure:
        server.run(workflow(node, **{**defaults(info, node), **GIVEN.get(node, {}), **wrong}))
    text = str(failure.value)
    assert says in text
    assert '"node_type": "%s"' % node in text and "ValueError" in text
    assert "torch" not in text  # not a traceback from the depths


@pytest.mark.parametrize("node, text", [("GuidancePAG", "0:0, 0.5:3"), ("GuidanceCFG", "0:7.5, 1:1 smooth"), ("GuidanceCFG", 4)])
def test_a_schedule_can_be_written_where_a_number_stands(server, info, node, text):
    assert server.run(workflow(node, **{**defaults(info, node), "scale": text}))


@pytest.mark.parametrize("node, wrong, kind", [
    ("GuidanceCFG", {"unit": "steps"}, "value_not_in_list"),
    ("GuidanceCFG", {"start": "soon"}, "invalid_input_type"),
    ("GuidanceCFG", {"start": -1.0}, "value_smaller_than_min"),
    ("GuidancePAG", {"rescale": 2.0}, "value_bigger_than_max"),
    ("GuidancePAG", {"model": ["negative", 0]}, "return_type_mismatch"),
    ("GuidanceNegative", {"negative": ["model", 0]}, "return_type_mismatch"),
    ("GuidanceNegative", {}, "required_input_missing"),
])
def test_what_the_host_can_check_it_refuses_with_400(server, info, node, wrong, kind):
    status, answer = server.post("/prompt", {"prompt": workflow(node, **{**defaults(info, node), **wrong})})
    assert status == 400
    assert kind in {error["type"] for error in answer["node_errors"]["ours"]["errors"]}


def test_a_word_that_the_bundled_model_does_not_know_is_told_with_those_it_does(server):
    graph = workflow()
    graph["positive"]["inputs"]["text"] = "a big red elephant on blue"
    with pytest.raises(dev.Failure, match="elephant.*circle"):
        server.run(graph)


def test_a_cached_model_gives_the_same_image_again_and_after_another_size(server, info):
    """The second prompt finds the strategy's MODEL in ComfyUI's cache."""
    def image(size, seed):
        graph = workflow("GuidancePAG", **defaults(info, "GuidancePAG"))
        graph["latent"]["inputs"].update(width=size, height=size)
        graph["sampler"]["inputs"]["seed"] = seed
        (saved,) = server.run(graph)["saved"]["images"]
        from PIL import Image

        return Image.open(server.output / saved["filename"]).tobytes()

    first = image(32, seed=7)
    image(48, seed=7)
    image(32, seed=8)
    graph = workflow()
    assert server.run(graph)  # something else in between
    assert image(32, seed=7) == first


def test_a_probe_tells_its_numbers_in_the_history(server):
    graph = workflow("GuidanceProbe")
    graph["plot"] = {"class_type": "GuidanceProbePlot", "inputs": {"probe": ["ours", 1], "latent": ["sampler", 0]}}
    outputs = server.run(graph)
    numbers = json.loads(outputs["plot"]["text"][0])
    assert numbers["rows"] == [2] * 4 and numbers["streams"][0]["scale"] == [5.0] * 4
    assert len(outputs["plot"]["images"]) == 1


# ------------------------------------------------------------------------------------------------ the example client

API = Path(__file__).parent.parent / "example_workflows" / "api"


@pytest.fixture(scope="module")
def client():
    spec = importlib.util.spec_from_file_location("client", API / "client.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def driven(client, server, *settings, progress=lambda value, most: None):
    """(the run, its pictures' bytes) of the example's workflow with inputs set."""
    async def drive():
        async with client.Client(server.address) as connection:
            prompt = client.changed(json.loads((API / "workflow.json").read_text()), settings)
            run = await connection.run(prompt, progress)
            return run, [await connection.picture(file) for file in run.pictures]

    return asyncio.run(asyncio.wait_for(drive(), 60))


def test_the_example_client_follows_a_run_and_reads_what_it_tells(client, server):
    steps = []
    run, pictures = driven(client, server, "sampler.steps=4", progress=lambda value, most: steps.append((value, most)))
    assert steps[-1] == (4, 4)
    assert run.told["cfg"].startswith("In force: cfg") and "Chain: CFG, PAG" in run.told["pag"]
    assert [point["value"] for point in run.applied["schedule"]][0] == 8.0 and len(run.applied["schedule"]) >= 3
    (picture,) = pictures
    assert picture.startswith(b"\x89PNG")


@pytest.mark.parametrize("setting, error", [
    ("pag.scale=1e6", {"node": "pag", "type": "custom_validation_failed", "input": "scale"}),
    ("pag.rescale=2", {"node": "pag", "type": "value_bigger_than_max", "input": "rescale"}),
    ("pag.layers=middle.7", {"node": "pag", "type": "ValueError", "input": None}),
    ("pag.model=[\"positive\", 0]", {"node": "pag", "type": "return_type_mismatch", "input": "model"}),
])
def test_the_example_client_hands_on_errors_that_a_program_can_read(client, server, setting, error):
    with pytest.raises(client.Refused) as refused:
        driven(client, server, setting)
    (found,) = refused.value.errors
    assert found.pop("message").strip() and found == error


# ------------------------------------------------------------------------------------------------ nodes that nobody has

def missing(**inputs):
    """A workflow with a node of another pack that is not installed, as a program writes it: without `_meta`."""
    graph = workflow("DynamicThresholdingSimple", **inputs)
    for node in graph.values():
        del node["_meta"]
    return graph


def test_a_missing_node_of_which_ours_is_the_same_is_replaced(server, info):
    assert "DynamicThresholdingSimple" not in info
    ours = workflow("GuidanceMimic", **{**defaults(info, "GuidanceMimic"), "mimic_scale": 3.0, "per_channel": False})
    theirs = missing(mimic_scale=3.0, threshold_percentile=1.0)
    assert pixels(server, theirs) == pixels(server, ours) != pixels(server, workflow())
    assert pixels(server, missing(mimic_scale=3.0)) == pixels(server, ours)  # without one that has a default


NUMBERS = itertools.count()


def pixels(server, graph):
    from PIL import Image

    graph["saved"]["inputs"]["filename_prefix"] = f"test-{next(NUMBERS)}"  # older hosts do not tell of what is in the cache
    (saved,) = server.run(graph)["saved"]["images"]
    return Image.open(server.output / saved["filename"]).tobytes()


@pytest.mark.parametrize("change, kind, about", [
    (lambda graph: graph["ours"]["inputs"].pop("model"), "required_input_missing", "model"),
    (lambda graph: graph["ours"]["inputs"].update(threshold_percentile=0.1), "value_smaller_than_min", "percentile"),
    (lambda graph: graph["ours"]["inputs"].update(mimic_scale="x" * 10**6), "custom_validation_failed", "mimic_scale"),
])
def test_what_is_wrong_with_a_replaced_node_is_refused_as_with_ours(server, client, change, kind, about):
    graph = missing(mimic_scale=3.0, threshold_percentile=1.0)
    change(graph)
    status, answer = server.post("/prompt", {"prompt": graph})
    (error,) = client.refusal(answer).errors
    assert status == 400 and (error["node"], error["type"], error["input"]) == ("ours", kind, about)


def test_the_page_is_told_of_the_replacements(server):
    status, known = server.get("/node_replacements")
    assert status == 200
    (told,) = known["DynamicThresholdingSimple"]
    assert told["new_node_id"] == "GuidanceMimic" and told["old_widget_ids"] == ["mimic_scale", "threshold_percentile"]
    assert {"new_id": "per_channel", "set_value": False} in told["input_mapping"]


@pytest.mark.parametrize("prompt", [{"ours": {"class_type": "DynamicThresholdingSimple"}}, {"a": {"class_type": ["TCFG"], "inputs": {}}}])
def test_a_prompt_that_is_none_is_left_to_the_host(server, prompt):
    pack = importlib.import_module("pack.nodes.replacements")
    assert pack.replaced({"prompt": prompt}, pack.PLAIN) == {"prompt": prompt}
    for request in ({"prompt": [1]}, {"prompt": {"a": 3}}, [], None):
        assert pack.replaced(request, pack.PLAIN) == request
