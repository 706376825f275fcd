"""The example workflows: what the script writes, whole, and with a place for every node of the menu."""

import json

import pytest

pytest.importorskip("comfy")

from pack.lab import workflows  # noqa: E402
from pack.nodes import NODES  # noqa: E402
from pack.nodes.direction import PerpCFG  # noqa: E402

NEEDS_A_MODEL_OF_ITS_OWN = {"GuidanceLikeness", "GuidanceTextLikeness", "GuidanceDistilled", "GuidanceSinglePass", "GuidanceModelPreset", "GuidanceNegativeTexts"}  # which does not come with the pack
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


@pytest.mark.parametrize("home, name", [("direction", "calm_high_cfg"), ("prompts", "fewer_rows_other_models"),
                                        ("a_new_file", "demo")])
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


def test_no_two_nodes_lie_on_each_other(files):
    for name, text in files.items():
        nodes = json.loads(text)["nodes"]
        boxes = [(*node["pos"], *node["size"]) for node in nodes if not node["flags"]]
        for i, (x, y, width, height) in enumerate(boxes):
            for left, top, across, down in boxes[:i]:
                apart = x >= left + across or left >= x + width or y - 30 >= top + down or top - 30 >= y + height
                assert apart, f"{name}: {(x, y)} and {(left, top)}"
