"""The example workflows: what the script writes, whole, and with a place for every node of the menu."""

import json
import re

import pytest
from PIL import Image

pytest.importorskip("comfy")

from pack.lab import workflows  # noqa: E402
from pack.nodes import NODES  # noqa: E402
from pack.nodes.direction import PerpCFG  # noqa: E402

NEEDS_A_MODEL_OF_ITS_OWN = {"GuidanceLikeness", "GuidanceTextLikeness", "GuidanceDistilled", "GuidanceModelPreset", "GuidanceNegativeTexts"}  # which does not come with the pack
NEEDS_PICTURES = {"GuidanceTrainingDropout"}  # to train with


@pytest.fixture(scope="module")
def files():
    return workflows.files()


def test_the_files_are_what_the_script_writes(files):
    """After a change of the menu: `python dev.py lab workflows`."""
    found = {path.name: path.read_text(encoding="utf-8") for path in workflows.FOLDER.glob("*.json")}
    assert found.keys() == files.keys()
    for name, text in files.items():
        assert found[name] == text, f"{name} is not what `python dev.py lab workflows` writes"


def test_every_node_of_the_menu_has_a_place(files):
    shown = {node["type"] for text in files.values() for node in json.loads(text)["nodes"]}
    assert {node.GET_SCHEMA().node_id for node in NODES} - NEEDS_A_MODEL_OF_ITS_OWN - NEEDS_PICTURES <= shown


def test_a_seed_says_whether_the_page_may_change_it():
    """Or the page gives every INT of that name a control, whose value it then expects in a workflow."""
    for node in NODES:
        types = node.INPUT_TYPES()
        for name, (kind, *more) in {**types.get("required", {}), **types.get("optional", {})}.items():
            assert name not in ("seed", "noise_seed") or "control_after_generate" in more[0], node


@pytest.mark.parametrize("home, name", [("direction", "high_cfg_calmer_directions_3"), ("prompts", "negatives_and_prompts_2"),
                                        ("a_new_file", "what_each_strategy_does")])
def test_a_new_strategy_gets_a_place_by_being_on_the_menu(home, name, monkeypatch):
    new = type("New", (PerpCFG,), {"node_id": "GuidanceNew", "title": "New", "__module__": f"pack.nodes.{home}"})
    known = {**workflows.classes(), "GuidanceNew": new}
    monkeypatch.setattr(workflows, "STRATEGIES", [*workflows.STRATEGIES, new])
    monkeypatch.setattr(workflows, "classes", lambda: known)
    assert [file for file, text in workflows.files().items() if '"GuidanceNew"' in text] == [f"{name}.json"]


def test_links_and_the_points_they_run_through_fit_together(files):
    for name, text in files.items():
        graph = json.loads(text)
        nodes = {node["id"]: node for node in graph["nodes"]}
        points = {point["id"]: point for point in graph["extra"]["reroutes"]}
        last = {entry["id"]: entry["parentId"] for entry in graph["extra"]["linkExtensions"]}
        for number, source, output, target, slot, kind in graph["links"]:
            assert number in nodes[source]["outputs"][output]["links"] and nodes[source]["outputs"][output]["type"] == kind
            assert nodes[target]["inputs"][slot]["link"] == number, name
            point = last.get(number)
            while point:
                assert number in points[point]["linkIds"]
                point = points[point].get("parentId")
        assert all(point["linkIds"] for point in points.values()), name


def test_what_is_written_can_be_read_where_the_page_opens_a_template(files):
    """In a window of 1600 x 900 pixels; below a zoom of 4/7 the classic renderer writes no text at all."""
    for name, text in files.items():
        assert json.loads(text)["extra"]["ds"]["scale"] > 4 / 7, name


def test_every_template_has_a_note_a_small_thumbnail_and_a_name_that_an_address_can_hold(files):
    """After a new template: `python dev.py lab screens`."""
    thumbnails = {path.stem: path for path in workflows.FOLDER.glob("*.jpg")}
    assert thumbnails.keys() == {name.removesuffix(".json") for name in files}
    for name, path in thumbnails.items():
        assert path.stat().st_size < 30_000 and Image.open(path).size == (400, 400), name
        assert re.fullmatch("[a-z0-9_]+", name)
        assert any(node["type"] == "MarkdownNote" for node in json.loads(files[f"{name}.json"])["nodes"]), name


def test_pictures_of_the_readme_are_small_and_two_of_them_carry_their_workflows(files):
    for name, template in (("wiring", "guidance_in_one_minute"), ("editor", None), ("demo", "what_each_strategy_does")):
        path = workflows.FOLDER / f"{name}.png"
        inside = Image.open(path).info.get("workflow")
        assert path.stat().st_size < 150_000, name
        assert (inside and json.loads(inside)) == (template and json.loads(files[f"{template}.json"])), "`python dev.py lab screens`"


def test_the_first_template_is_small_and_makes_the_same_noise_into_two_pictures(files):
    nodes = json.loads(files["guidance_in_one_minute.json"])["nodes"]
    samplers = [node for node in nodes if node["type"] == "KSampler"]
    assert len(nodes) == 12 and len(samplers) == 2 and len({node["widgets_values"][0] for node in samplers}) == 1


def test_no_two_nodes_lie_on_each_other(files):
    for name, text in files.items():
        nodes = json.loads(text)["nodes"]
        boxes = [(*node["pos"], *node["size"]) for node in nodes if not node["flags"]]
        for i, (x, y, width, height) in enumerate(boxes):
            for left, top, across, down in boxes[:i]:
                apart = x >= left + across or left >= x + width or y - 30 >= top + down or top - 30 >= y + height
                assert apart, f"{name}: {(x, y)} and {(left, top)}"
