"""The demo's workflows, and that its counts are what ComfyUI really does."""

import pytest

pytest.importorskip("comfy")

from pack.lab import demo  # noqa: E402

COLUMNS = {column.title: column for column in demo.COLUMNS}


@pytest.fixture(scope="module")
def known():
    return demo.classes()


@pytest.fixture(scope="module")
def info(known):
    return {name: kind.GET_NODE_INFO_V1() for name, kind in known.items() if name.startswith("Guidance")}


def build(title, info):
    return demo.build(COLUMNS[title], "a big red circle on blue", 5, info)


def test_without_a_strategy_the_workflow_is_the_example_file(info):
    workflow = build("CFG 3", info)
    assert workflow[demo.SAMPLER]["inputs"]["seed"] == 5
    workflow[demo.SAMPLER]["inputs"]["seed"] = 0
    assert workflow == demo.json.loads(demo.WORKFLOW.read_text())


def test_a_strategy_lies_on_the_model_wire_with_its_own_defaults(info):
    workflow = build("Perp-CFG", info)
    assert workflow[demo.SAMPLER]["inputs"]["model"] == [demo.STRATEGY, 0]
    assert workflow[demo.STRATEGY]["inputs"]["model"] == [demo.MODEL, 0]
    assert workflow[demo.STRATEGY]["inputs"]["reference"] == "uncond"
    assert build("curve", info)[demo.STRATEGY]["inputs"]["scale"] == "0:2, 0.5:8, 1:1"


@pytest.mark.parametrize("title, at", [("negative", demo.STRATEGY), ("NAG, cfg 1", demo.STRATEGY), ("neg., cfg 1", demo.SAMPLER)])
def test_the_negative_has_a_prompt_of_its_own(title, at, info):
    workflow = build(title, info)
    unwanted = workflow[at]["inputs"]["negative"][0]
    assert workflow[unwanted]["inputs"]["text"] == "a square"
    assert workflow[demo.PROMPT]["inputs"]["text"] == "a big red circle on blue"


@pytest.mark.parametrize("title, rows", [("off", 1), ("CFG 3", 2), ("CFG 8", 2), ("CFG++", 2),
                                         ("Perp-CFG", 2), ("threshold", 2), ("PAG", 2), ("negative", 3), ("neg., cfg 1", 1),
                                         ("NAG, cfg 1", 1)])
def test_rows_and_calls_are_counted_on_the_host(title, rows, known, info):
    workflow = build(title, info)
    workflow[demo.SAMPLER]["inputs"]["steps"] = 2
    workflow[demo.LATENT]["inputs"]["batch_size"] = 2
    assert demo.count(workflow, known) == (rows, 1)


@pytest.mark.parametrize("title", ["interval", "curve"])
def test_where_guidance_is_off_no_row_is_paid_for_the_negative(title, known, info):
    workflow = build(title, info)
    workflow[demo.LATENT]["inputs"]["batch_size"] = 1
    rows, calls = demo.count(workflow, known)
    assert 1 < rows < 2 and calls == 1
