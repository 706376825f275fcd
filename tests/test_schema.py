"""What every node takes and gives is forever: migration/nodes.json against the nodes, and what may change in it."""

import copy
import json

import pytest

pytest.importorskip("comfy")

from pack.lab import schema  # noqa: E402

KEPT = json.loads(schema.FILE.read_text(encoding="utf-8"))
HOW = ("`python dev.py lab schema` writes migration/nodes.json again, and a line in CHANGELOG.md says what users will notice. An "
       "id, an input or an output that was there must not go or move; new inputs come last and are optional.")


def test_the_nodes_are_what_was_written_down():
    now = schema.snapshot()
    assert not schema.broken(KEPT, now), HOW
    assert now.keys() == KEPT.keys(), HOW
    for id in now:
        assert now[id] == KEPT[id], f"{id} has changed. {HOW}"
    assert schema.text(now) == schema.FILE.read_text(encoding="utf-8"), HOW


def changed(**inputs):
    now = copy.deepcopy(KEPT)
    now["GuidancePAG"]["inputs"] = inputs["of"](now["GuidancePAG"]["inputs"])
    return now


def optional(id):
    return {"id": id, "type": "FLOAT", "default": 1.0, "optional": True}


@pytest.mark.parametrize("of, says", [
    (lambda given: given[:-1], "its inputs were model, scale"),
    (lambda given: [*given[:2], given[3], given[2], *given[4:]], "none goes or moves"),
    (lambda given: [*given[:3], optional("new"), *given[3:]], "new ones come last"),
    (lambda given: [*given, {"id": "new", "type": "FLOAT"}], "new is new, so it has to be optional"),
    (lambda given: [*given[:-1], {**given[-1], "options": ["percent"]}], "unit can no longer be sigma"),
])
def test_what_workflows_and_programs_rely_on_cannot_be_written_away(of, says, tmp_path, monkeypatch):
    now = changed(of=of)
    (sentence,) = schema.broken(KEPT, now)
    assert says in sentence
    file = tmp_path / "nodes.json"
    file.write_text(schema.FILE.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(schema, "FILE", file)
    monkeypatch.setattr(schema, "snapshot", lambda: now)
    with pytest.raises(SystemExit, match="was not written"):
        schema.write()
    assert json.loads(file.read_text(encoding="utf-8")) == KEPT


def test_nodes_and_outputs_stay_and_new_things_may_come():
    without = {id: node for id, node in KEPT.items() if id != "GuidancePAG"}
    assert schema.broken(KEPT, without) == ["GuidancePAG has gone; a node's id is forever."]
    assert "its outputs were" in schema.broken(KEPT, {**KEPT, "GuidancePAG": {**KEPT["GuidancePAG"], "outputs": []}})[0]
    assert not schema.broken(KEPT, changed(of=lambda given: [*given, optional("new")]))
    assert not schema.broken(KEPT, {**KEPT, "GuidanceNew": KEPT["GuidancePAG"]})
