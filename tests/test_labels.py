"""What the page shows of an input: its label, and when it is hidden (web/js/used.js)."""

import pytest

pytest.importorskip("comfy_api", reason="needs the host: run `python3 dev.py test`")

from comfy_api.latest import io
from pack.guidance.presets import PRESETS, preset
from pack.nodes import NODES
from pack.nodes.inputs import check

INPUTS = [(node.define_schema().node_id, given) for node in NODES for given in node.define_schema().inputs]
WIDGETS = [(node_id, getattr(given, "input_override", None) or given) for node_id, given in INPUTS]
SAYS_NOTHING_ALONE = {"arm", "off", "over", "full", "restore", "where", "skim", "flips", "unit", "form", "share", "spend", "literal", "null"}


def test_a_label_says_more_and_holds_the_id():
    """Messages, help pages and the API say the id, so the user has to find it on the node."""
    for node_id, given in WIDGETS:
        label = given.display_name or given.id
        assert given.id.replace("_", " ") in label.replace("_", " ") and len(label) <= 24, (node_id, label)
        assert label not in SAYS_NOTHING_ALONE, node_id


def told(node_id):
    return [(given, told) for owner, given in WIDGETS if owner == node_id and (told := given.as_dict().get("guidance"))]


def test_what_hides_an_input_is_there_and_comes_first():
    found = 0
    for node in NODES:
        order = [given.id for owner, given in INPUTS if owner == node.define_schema().node_id]
        options = {given.id: given.options for owner, given in WIDGETS
                   if owner == node.define_schema().node_id and isinstance(given, io.Combo.Input)}
        for given, rules in told(node.define_schema().node_id):
            for by, choices in (rules.get("used_when") or rules["choices_by"]).items():
                assert order.index(by) < order.index(given.id)
                assert set(choices) <= set(options[by]), given.id
                found += 1
    assert found >= 13


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_hides_just_the_knobs_that_do_nothing(name):
    for given, rules in told("GuidanceSchedulePreset"):
        changed = preset(name, 5.0, **{given.id: given.default + 0.1}) != preset(name, 5.0)
        assert changed == (name in rules["used_when"]["preset"]), given.id


def test_the_offered_values_are_those_that_exist():
    from pack.nodes.demo.classifier import ATTRIBUTES, DemoClassifier

    [(given, rules)] = told("GuidanceDemoClassifier")
    assert list(rules["choices_by"]["attribute"]) == list(ATTRIBUTES)
    for attribute, words in rules["choices_by"]["attribute"].items():
        for word in words:
            assert check(given, word) == word
            assert DemoClassifier.execute(attribute=attribute, value=word)
