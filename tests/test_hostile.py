"""What a node is given by mistake or by malice, and who may end a run: one sentence at the node, and never the page."""

import json
import logging
import sys
from types import SimpleNamespace

import comfy.model_management
import folder_paths
import pack.nodes
import pytest
import torch
from comfy_api.latest import io
from comfy_extras.nodes_hypertile import HyperTile
from comfy_extras.nodes_tomesd import TomePatchModel
from pack.guidance.schedule import Schedule, parse
from pack.tests.host import GIVEN, NODES, home, made, one_level
from pack.tests.host import short as sample
from safetensors.torch import save_file

STRATEGIES = {cls.node_id: cls for cls in pack.nodes.STRATEGIES}


@pytest.fixture(scope="module")
def model():
    return one_level()


def assert_one_sentence(error, *words):
    text = str(error)
    assert "\n" not in text and text.endswith(".") and len(text) < 400, text
    for word in words:
        assert word in text, text


# ------------------------------------------------------------------------------------------------ the page


class Page(list):
    """What a page hears that has queued the run."""

    def __init__(self, monkeypatch):
        self.server = SimpleNamespace(client_id="page", send_sync=lambda event, data, sid: self.append((event, data)))
        monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=self.server)))


@pytest.fixture
def page(monkeypatch):
    return Page(monkeypatch)


def from_node(text, source):
    """A schedule as a node of the page makes it."""
    made = parse(text)
    return Schedule(made.points, made.interpolation, made.axis, source)


def told(page, source):
    return page[-1][1]["nodes"][source] if page and page[-1][0] == "guidance.applied" else None


SCHEDULABLE = [(id, given) for id, cls in STRATEGIES.items() for given in cls.inputs if isinstance(given, io.MultiType.Input)]


@pytest.mark.parametrize("id, given", SCHEDULABLE, ids=lambda value: getattr(value, "id", value))
def test_with_a_page_every_schedule_runs_and_the_page_is_told_what_was_applied(id, given, model, page):
    """KeyError 'start' for APG's three knobs before; it has a unit, but no window."""
    widget = given.input_override
    low, high = (widget.min, widget.max) if isinstance(widget, io.Float.Input) else (-100, 100)
    first = widget.default if isinstance(widget.default, float) else 5.0
    last = first + 0.4 if first + 0.4 <= high else max(first - 0.4, low)
    text = f"0:{first}, 3:{round(last, 3)} steps"
    more = {"mode": "weighted"} if id == "GuidanceNegative" else {}
    model = home(id, model)
    answer = sample(made(id, model, **{given.id: from_node(text, "12"), **more}))
    rows = told(page, "12")
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert [row["value"] for row in rows] == pytest.approx([parse(text).value(step) for step in range(4)], rel=1e-6)
    json.dumps(page, allow_nan=False)
    assert torch.equal(answer, sample(made(id, model, **{given.id: text, **more})))


def test_a_page_that_listens_to_three_schedules_at_once(model, page):
    """KeyError 'start' before."""
    def chain(scale, eta, strength):
        return made("GuidanceCFG", made("GuidanceAPG", made("GuidancePAG", model, scale=strength), eta=eta), scale=scale)

    texts = ("0:7, 1:2", "0:0, 1:1", "0:0, 0.5:3")
    answer = sample(chain(*map(from_node, texts, ("1", "2", "3"))))
    assert torch.equal(answer, sample(chain(*texts)))
    assert page[-1][0] == "guidance.applied" and all(len(told(page, source)) == 4 for source in "123")
    assert [event for event, _ in page[:-1]] == ["guidance.marker"] * 4


def test_an_interrupt_reaches_the_sampler_and_the_page_hears_what_was_done(model, page):
    def interrupt(step, *_):
        if step == 1:
            raise comfy.model_management.InterruptProcessingException()

    guided = made("GuidanceAPG", made("GuidancePAG", model, scale=from_node("0:1, 1:3", "1")), eta=0.5)
    first = sample(guided)
    page.clear()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(guided, callback=interrupt)
    assert len(told(page, "1")) == 2
    assert torch.equal(sample(guided), first)  # passes before


def test_a_page_that_cannot_be_told_does_not_end_a_run(model, page, monkeypatch):
    """The page's own error ended the run before."""
    def gone(*args):
        raise RuntimeError("the socket is closed")

    monkeypatch.setattr(NODES["GuidanceCFG"], "hidden", SimpleNamespace(unique_id="7"))
    guided = made("GuidanceCFG", model, scale=from_node("0:7, 1:2", "1"))
    right = sample(guided)
    page.server.send_sync = gone
    assert torch.equal(sample(guided), right)


class FailsForThePage(Schedule):
    """A schedule that only the maths can evaluate."""

    def __call__(self, moment):
        if "guidance" not in sys._getframe(1).f_code.co_filename.replace("\\", "/").split("/")[-2:]:
            raise ZeroDivisionError("a schedule")
        return super().__call__(moment)


def test_a_schedule_that_fails_only_where_the_page_asks_does_not_end_a_run(model, page):
    """ZeroDivisionError before."""
    failing = FailsForThePage(((0.0, 1.0), (1.0, 3.0)), source="1")
    assert torch.equal(sample(made("GuidancePAG", model, scale=failing)), sample(made("GuidancePAG", model, scale="0:1, 1:3")))


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize("sigmas", [[10.0, NAN, 1.0, 0.0], [NAN, 1.0, 0.0], [10.0, 1.0, NAN], [INFINITE, 1.0, 0.0]], ids=str)
def test_sigmas_that_are_no_numbers_make_no_invalid_json(sigmas, model, page):
    """NaN in every marker before, which no browser can parse; the host runs such sigmas without a word."""
    sample(made("GuidanceCFG", model, scale=from_node("0:7, 1:2", "1")), sigmas=torch.tensor(sigmas))
    json.dumps(page, allow_nan=False)
    assert page[-1][0] == "guidance.applied"


# ------------------------------------------------------------------------------------------------ knobs

WRONG = {
    "a dict": {"a": 1}, "broken points": {"points": [[1]]}, "a huge integer": 10**400, "lists": [[1, 2], [3]],
    "bytes": b"7", "None": None, "an object": object(),
}


def is_knob(given):
    widget = getattr(given, "input_override", None) or given
    return isinstance(widget, (io.Float.Input, io.Int.Input, io.String.Input, io.Combo.Input, io.Boolean.Input))


KNOBS = [(id, given.id) for id, cls in STRATEGIES.items() for given in cls.inputs if is_knob(given)]


LEFT_OUT = {("GuidanceCFG", "scale"), ("GuidanceStreamCFG", "video"), ("GuidanceStreamCFG", "audio")}  # the sampler's cfg


@pytest.mark.parametrize("id", STRATEGIES)
@pytest.mark.parametrize("wrong", WRONG)
def test_a_knob_that_is_nothing_like_one_is_refused_by_name(id, wrong, model):
    """Of 83 knobs before: Python's own words from 62 for a dict, lists or a huge integer, from 61 for None, from 32 for
    bytes; and nearly all others, such as choices and switches, took anything."""
    for knob in [knob for owner, knob in KNOBS if owner == id]:
        if wrong == "None" and (id, knob) in LEFT_OUT:
            continue
        with pytest.raises(ValueError) as error:
            made(id, home(id, model), **{knob: WRONG[wrong]})
        assert_one_sentence(error.value, knob)


DEFAULTS = {
    "GuidanceSchedule": {"schedule": "0:7, 1:1"},
    "GuidanceSchedulePreset": {},
    "GuidanceScheduleMath": {"a": "0:1, 1:2", "b": "0:1, 1:2"},
    "GuidanceSchedulePreview": {"schedule": "0:7, 1:1"},
    "GuidancePlan": {},
    "GuidanceDemoModel": {},
    "GuidanceDemoClassifier": {},
    "GuidanceValues": {},
}


@pytest.mark.parametrize("id", DEFAULTS)
@pytest.mark.parametrize("wrong", WRONG)
def test_so_it_is_in_the_nodes_that_make_no_strategy(id, wrong, model):
    inputs = NODES[id].define_schema().inputs
    defaults = {"model": model} if inputs[0].id == "model" or any(given.id == "model" for given in inputs) else {}
    for given in filter(is_knob, inputs):
        widget = getattr(given, "input_override", None) or given
        options = getattr(widget, "options", None)
        defaults[given.id] = widget.default if widget.default is not None else options and options[0]
    defaults |= DEFAULTS[id]
    for given in filter(is_knob, inputs):
        if given.optional and wrong == "None":
            continue
        with pytest.raises(ValueError) as error:
            NODES[id].execute(**{**defaults, given.id: WRONG[wrong]})
        assert_one_sentence(error.value, given.id)


LINKED = ("MODEL", "CLIP", "CLIP_VISION", "VAE", "CONDITIONING", "IMAGE", "SAMPLER", "GUIDANCE_CLASSIFIER")
TYPED = ["x", 1.5, True, {"a": 1}, [1, 2]]  # a program's, in place of a link
RAW = {"GuidanceSweep", "GuidanceCost"}  # take no picture themselves


@pytest.mark.parametrize("id", sorted(NODES.keys() - RAW))
def test_what_is_typed_where_a_link_belongs_is_refused_by_name(id, model):
    """`'str' object has no attribute 'clone'` and the like before; the host hands on what it gets."""
    inputs = NODES[id].GET_SCHEMA().inputs
    given = {"model": home(id, model), **GIVEN.get(id, {}), "vae": SimpleNamespace(decode=None, latent_dim=2),
             "clip_vision": SimpleNamespace(encode_image=None), "image": torch.zeros(1, 8, 8, 3), "labels": [""], "columns": [0]}
    for input in inputs:
        widget = getattr(input, "input_override", None) or input
        if input.id not in given and is_knob(input):
            options = getattr(widget, "options", None)
            given[input.id] = widget.default if widget.default is not None else options and options[0]
    given = {input.id: given[input.id] for input in inputs if input.id in given}
    for link in [input for input in inputs if input.get_io_type() in LINKED]:
        for typed in TYPED:
            with pytest.raises(ValueError) as error:
                NODES[id].execute(**{**given, link.id: [typed] if id == "GuidanceGrid" else typed})
            assert_one_sentence(error.value, link.id, link.get_io_type())


@pytest.mark.parametrize("id, knobs, wrong", [
    ("GuidanceScheduleMath", {"a": "0:7, 1:1", "b": 2.0}, {"a": "0:7, x:1"}),  # the host compared a text with a number before
    ("GuidanceSchedulePreview", {"schedule": "0:7, 1:1"}, {"schedule": "0:7, 1:1e9"}),  # so it did here
    ("GuidanceSchedule", {"schedule": "0:7, 1:1"}, {"schedule": [1, 2]}),  # Python's own words before
    ("GuidanceValues", {"first": "1, 2", "second": ""}, {"second": ["a"]}),  # and here
])
def test_what_is_typed_is_refused_before_anything_runs(id, knobs, wrong):
    assert NODES[id].validate_inputs(**knobs) is True
    assert_one_sentence(NODES[id].validate_inputs(**{**knobs, **wrong}), *wrong)


@pytest.mark.parametrize("id, knob", [("GuidanceSWG", "scale"), ("GuidancePAG", "scale"), ("GuidanceRescale", "strength")])
def test_true_is_1_as_in_the_hosts_own_numbers(id, knob, model):
    assert torch.equal(sample(made(id, model, **{knob: True})), sample(made(id, model, **{knob: 1.0})))


def test_an_unknown_word_of_a_megabyte_is_quoted_in_part(demo):
    """The whole megabyte before."""
    with pytest.raises(ValueError) as error:
        demo.encode("a big " + "x" * 2**20)
    assert_one_sentence(error.value, "'xxxxx", "circle")


# ------------------------------------------------------------------------------------------------ files


@pytest.fixture
def embeddings(tmp_path, monkeypatch):
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "embeddings", ([str(tmp_path)], {".safetensors", ".pt"}))
    folder_paths.filename_list_cache.pop("embeddings", None)
    yield tmp_path
    folder_paths.filename_list_cache.pop("embeddings", None)


TOKENS = torch.ones(4, 16)
FAULTS = {  # what is in the file, and a word of the fault
    "NaN": ({"tokens": TOKENS * NAN}, "finite"),  # a latent of NaN before
    "infinite": ({"tokens": TOKENS / 0}, "finite"),  # a latent of NaN before
    "pooled NaN": ({"tokens": TOKENS, "pooled": torch.ones(16) * NAN}, "finite"),  # taken before
    "no rows": ({"tokens": torch.zeros(0, 16)}, "(0, 16)"),  # ZeroDivisionError in the sampler before
    "no width": ({"tokens": torch.zeros(4, 0)}, "(4, 0)"),  # a sentence before, but in the sampler
    "bool": ({"tokens": TOKENS > 0}, "bool"),  # taken before
    "complex": ({"tokens": TOKENS.to(torch.complex64)}, "complex64"),  # taken before, without its imaginary part
    "empty": ({}, "tensor"),  # a sentence before, but in the sampler
    "garbage": (b"not a header at all, and long enough", "safetensors"),  # SafetensorError before, as the next two
    "cut off": (b"\x40\x00\x00\x00\x00\x00\x00\x00{", "safetensors"),
    "nothing": (b"", "safetensors"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_null_file_that_is_no_null_is_refused_at_the_node_with_its_fault(fault, embeddings, model):
    content, word = FAULTS[fault]
    if isinstance(content, bytes):
        (embeddings / "null.safetensors").write_bytes(content)
    else:
        save_file(content, embeddings / "null.safetensors")
    with pytest.raises(ValueError) as error:
        made("GuidanceNull", model, null="file", embedding="null.safetensors")
    assert_one_sentence(error.value, "null.safetensors", word)


# ------------------------------------------------------------------------------------------------ models that do not fit


def test_the_demos_classifier_on_another_model_is_refused_at_the_node(model):
    """Torch's words about a convolution, out of the sampler, before: 4 channels where the judge sees 3."""
    judge = NODES["GuidanceDemoClassifier"].execute(attribute="color", value="red").result[0]
    with pytest.raises(ValueError) as error:
        made("GuidanceClassifier", model, classifier=judge)
    assert_one_sentence(error.value, "channels", "4", "3")


MERGERS = {
    "ToMe": lambda model: TomePatchModel.execute(model, 0.5).result[0],
    "HyperTile": lambda model: HyperTile.execute(model, 32, 2, 0, False)[0],
}


@pytest.mark.parametrize("ours_first", [True, False])
@pytest.mark.parametrize("merger", MERGERS)
def test_layers_whose_tokens_another_pack_merges_are_weakened_or_it_is_said_that_they_cannot_be(merger, ours_first, model, caplog):
    """`Sizes of tensors must match except in dimension 0` out of the attention before."""
    pag = lambda m: made("GuidancePAG", m, layers="input.1")
    guided = MERGERS[merger](pag(model)) if ours_first else pag(MERGERS[merger](model))
    caplog.set_level(logging.WARNING, "comfyui-guidance")
    try:
        answer = sample(guided, size=16)
    except ValueError as error:
        assert_one_sentence(error, "input.1")
        return
    assert answer.isfinite().all()
    said = [record.message for record in caplog.records if record.name == "comfyui-guidance"]
    if said:
        assert_one_sentence(said[0])
        return
    torch.manual_seed(0)
    alone = sample(MERGERS[merger](model), size=16)
    assert float((answer - alone).norm() / alone.norm()) > 1e-3
