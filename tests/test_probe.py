"""The probe on the real host: what it records adds up to the answer, and it changes, reads and keeps nothing."""

import gc
import json
import logging
import sys
import weakref
from collections import Counter as Tally
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pack.guidance import ops
from pack.guidance.measures import CFG, OTHERS, QUANTILE, numbers, taken
from pack.nodes import STRATEGIES
from pack.nodes.bridge import record as bridge
from pack.nodes.bridge.run import Run
from pack.nodes.probe import ProbeNode, ProbePlot
from pack.tests.host import NEGATIVE, Counter, basic_guider, cfg_guider, counted, guided_by, home, made, one_level, ranged
from pack.tests.host import short as sample
from pack.tests.measure import error
from pack.tests.test_guiders import PACK, STREAMS, small

MODEL = one_level()
STEPS = 4


def probed(model):
    return ProbeNode.execute(model).result


def wired(model, *line):
    """The line as a user wires it: ids of strategies, with their knobs or without, and other packs' functions."""
    for part in line:
        if callable(part):
            model = model.clone()
            model.set_model_sampler_post_cfg_function(part)
        else:
            id, knobs = part if isinstance(part, tuple) else (part, {})
            model = made(f"Guidance{id}", model, **knobs)
    return model


def recorded(model, run=sample, **how):
    guided, probe = probed(model)
    run(guided, **how)
    return probe.seen.record()


@pytest.fixture
def views(monkeypatch):
    """What each number is made from: (cond, direction, the one before, answer, parts)."""
    seen = []

    def watched(vectors):
        seen.extend((cond, direction, before, answer, parts) for cond, answer, direction, before, *parts in vectors)
        return taken(vectors)

    monkeypatch.setattr(bridge, "taken", watched)
    return seen


def darker(args):
    return 0.9 * args["denoised"]


def darker_in_place(args):
    return args["denoised"].mul_(0.9)


LINES = {
    "a foreign function between": [("CFG", {"scale": "5"}), "PAG", darker, ("APG", {"momentum": 0.0}), "Rescale"],
    "which writes into the answer": [("CFG", {"scale": "5"}), "PAG", darker_in_place, ("APG", {"momentum": 0.0}), "Rescale"],
    "first and last": [darker, "PerpCFG", ("Mimic", {"mimic_scale": 2.0}), darker],
    "another ground": ["PerpCFG", "Autoguidance", "DynamicThreshold"],
}


@pytest.mark.parametrize("name", LINES)
def test_what_is_recorded_adds_up_to_the_answer(name, views):
    answers = []
    guided, probe = probed(wired(MODEL, *LINES[name]))
    sample(wired(guided, lambda args: answers.append({**args, "denoised": args["denoised"].clone()}) or args["denoised"]), batch=2)
    scale = 5.0 if ("CFG", {"scale": "5"}) in LINES[name] else 7.0
    for (cond, direction, _, answer, parts), args in zip(views, answers, strict=True):
        assert torch.equal(answer, args["denoised"]) and torch.equal(cond, args["cond_denoised"])
        own = 0 if "Autoguidance" in LINES[name] else (scale - 1) * (cond - args["uncond_denoised"])
        assert error(cond + own + sum(parts), answer) < 1e-5
    for stream in probe.seen.record()["streams"]:
        assert np.array(list(stream["along"].values())).sum(0) == pytest.approx(np.ones(STEPS), abs=1e-5)


@pytest.mark.parametrize("name", ["a foreign function between", "which writes into the answer", "first and last"])
def test_a_part_is_the_answer_with_it_less_the_answer_without(name, views):
    line = LINES[name]
    sample(probed(wired(MODEL, *line))[0], steps=1)
    cond, direction, _, _, parts = views.pop()
    ends = []
    for count in range(len(line) + 1):
        sample(probed(wired(MODEL, *line[:count]))[0], steps=1)
        ends.append(views.pop()[3])
    added = [after - before for before, after in zip(ends, ends[1:])]
    others = [part for part, link in zip(added, line) if callable(link)]
    ours = [part for part, link in zip(added, line) if not callable(link) and link[0] != "CFG"]
    if line[0] == ("CFG", {"scale": "5"}):
        assert error(added[0], -2 * direction) < 1e-4  # which is in CFG's own
    for found, right in zip(parts, [*ours, sum(others)], strict=True):
        assert error(found, right) < 1e-4


def test_views_that_are_too_large_to_be_kept_are_reduced_at_once(views, monkeypatch):
    chain = [("CFG", {"scale": "0:1, 0.5:5"}), "PAG", darker, "APG"]  # the parts of an answer are not the same throughout
    expected, counts = recorded(wired(MODEL, *chain)), []
    reduce = bridge.Record.reduce
    monkeypatch.setattr(bridge.Record, "reduce", lambda record: counts.append(len(record.whole)) or reduce(record))
    monkeypatch.setattr(bridge, "KEPT", 0)
    found = recorded(wired(MODEL, *chain))
    assert counts == [1] * STEPS + [0]
    assert found.pop("ms") and expected.pop("ms")
    flat = lambda value: [flat(one) for one in (value.values() if isinstance(value, dict) else value)] \
        if isinstance(value, (dict, list)) else value
    for ours, right in zip(flat(found["streams"][0]), flat(expected["streams"][0]), strict=True):
        for one, other in zip(np.array(ours, float).ravel(), np.array(right, float).ravel(), strict=True):
            assert one == pytest.approx(other, rel=1e-4, abs=1e-6, nan_ok=True)


def test_the_numbers_are_what_they_are_called():
    cond, uncond, before, term = (torch.randn(3, 4, 25, 40) + 0.1 for _ in range(4))
    direction = cond - uncond
    answer = cond + 4 * direction + term
    vectors = torch.stack([cond, answer, direction, before, term])
    made = taken(torch.stack([torch.randn_like(vectors), vectors]))
    found = numbers(*(values[1].numpy() for values in made), 4000, 5.0, ["PAG"])
    norm, cosine = ops.norm, lambda a, b: ops.dot(a, b) / (ops.norm(a) * ops.norm(b))
    beyond = answer.abs().flatten(1) > cond.abs().flatten(1).sort().values[:, round(4000 * QUANTILE), None]
    right = {
        "scale": 5.0, "direction": norm(direction) / norm(cond), "cosine_to_cond": cosine(direction, cond),
        "cosine_to_last": cosine(direction, before), "parallel_share": cosine(direction, cond).abs(),
        "std_ratio": ops.std(answer) / ops.std(cond), "beyond_share": beyond.float(),
        "added": {CFG: 4 * norm(direction) / norm(answer), "PAG": norm(term) / norm(answer)},
        "along": {"cond": ops.share(cond, answer), CFG: 4 * ops.share(direction, answer), "PAG": ops.share(term, answer)},
    }
    mean = lambda value: {key: mean(one) for key, one in value.items()} if isinstance(value, dict) else float(torch.as_tensor(value).mean())
    for name in ("added", "along"):
        assert found.pop(name) == pytest.approx(mean(right.pop(name)), rel=1e-4)
    assert found == pytest.approx(mean(right), rel=1e-4)


# ------------------------------------------------------------------------------------------------ it changes nothing


@pytest.mark.parametrize("id", [cls.node_id for cls in STRATEGIES])
def test_pictures_are_bit_for_bit_the_same_and_rows_and_calls_are_those_counted(id):
    model = home(id, MODEL)
    right, rows, calls = counted(made(id, model))
    before, first = probed(model)
    guided, last = probed(made(id, before))
    answer, *cost = counted(guided)
    assert torch.equal(answer, right) and cost == [rows, calls]
    for probe in (first, last):
        record = probe.seen.record()
        assert (sum(record["rows"]), sum(record["calls"]), len(record["step"])) == (rows, calls, STEPS)
        json.dumps(record, allow_nan=False)


def test_the_plain_model_too():
    assert torch.equal(sample(probed(MODEL)[0]), sample(MODEL))


def test_each_of_two_probes_shows_the_chain_up_to_there():
    guided, first = probed(wired(MODEL, "PAG"))
    guided, second = probed(wired(guided, darker, "APG", "PAG"))
    sample(guided)
    early, late = (probe.seen.record()["streams"][0] for probe in (first, second))
    assert list(early["added"]) == [CFG, "PAG"] and list(late["added"]) == [CFG, "PAG", "APG", "PAG 2", OTHERS]
    assert early["direction"] == late["direction"]
    alone = recorded(wired(MODEL, "PAG"))["streams"][0]
    assert early["added"]["PAG"][0] == alone["added"]["PAG"][0] and all(late["added"]["APG"])


class Reads(Tally):
    """How often values of tensors are asked for, by way."""

    def __init__(self, monkeypatch):
        super().__init__()
        for way in ("tolist", "item", "cpu", "numpy", "__bool__", "__float__", "__int__"):
            monkeypatch.setattr(torch.Tensor, way, self.counting(way, getattr(torch.Tensor, way)))

    def counting(self, way, original):
        def read(*args, **kwargs):
            self[way] += 1
            return original(*args, **kwargs)

        return read


def test_nothing_is_read_before_the_end_and_then_once(monkeypatch):
    plain = wired(MODEL, "PAG", "APG")
    guided = probed(probed(plain)[0])[0]
    sample(plain), sample(guided)
    reads, runs = Reads(monkeypatch), []
    for model in (plain, guided):
        reads.clear()
        sample(model)
        runs.append(Tally(reads))
    assert runs[1] - runs[0] == {"tolist": 1} and not runs[0] - runs[1]


def test_nothing_outlives_the_run_but_numbers(monkeypatch):
    runs, begin = [], Run.__init__
    monkeypatch.setattr(Run, "__init__", lambda self, *args: (runs.append(weakref.ref(self)), begin(self, *args))[1])
    guided, probe = probed(wired(MODEL, "APG"))
    sample(guided)
    first = probe.seen.record()
    sample(guided, cfg=3.0)
    gc.collect()
    assert len(runs) == 2 and not any(run() for run in runs)
    assert first["streams"][0]["scale"] == [7.0] * STEPS and probe.seen.record()["streams"][0]["scale"] == [3.0] * STEPS


# ------------------------------------------------------------------------------------------------ what is not there

UNKNOWN = ("direction", "cosine_to_cond", "cosine_to_last", "parallel_share")


@pytest.mark.parametrize("how", [
    {"cfg": 1.0}, {"run": lambda model: guided_by(basic_guider(model), steps=STEPS)}, {"line": ["Autoguidance"]},
    {"sampler": "euler_cfg_pp", "line": [("CFG", {"start": 0.9, "end": 0.9})]},
], ids=["cfg 1", "no negative", "a weak model instead", "left out of a sampler that reads it"])
def test_where_uncond_was_not_computed_nothing_is_said_of_it(how):
    record = recorded(wired(MODEL, *how.pop("line", [])), **how)
    stream = record["streams"][0]
    assert all(stream[name] == [None] * STEPS for name in UNKNOWN)
    assert stream["added"][CFG] == [0] * STEPS


def test_a_negative_that_is_out_of_its_range_is_not_there():
    record = recorded(MODEL, negative=ranged(NEGATIVE, 0.5, 1.0), steps=8)
    stream, late = record["streams"][0], [percent >= 0.5 for percent in record["percent"]]
    assert [value is not None for value in stream["direction"]] == late and any(late) and not all(late)
    assert stream["cosine_to_last"][late.index(True)] is None and stream["cosine_to_last"][late.index(True) + 1] is not None


@pytest.mark.parametrize("how", [{"cfg": 0.0}, {"line": [lambda args: args["denoised"] * float("nan")]},
                                 {"line": [lambda args: torch.zeros_like(args["denoised"])]}], ids=["cfg 0", "NaN", "zero"])
def test_what_is_no_number_is_null(how):
    guided, probe = probed(wired(MODEL, "APG", *how.pop("line", [])))
    out = {"samples": sample(guided, **how)}
    images, text = ProbePlot.execute(probe, out).result
    record = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in the JSON"))
    assert len(record["ms"]) == STEPS and images.shape[0] == 1 and images.isfinite().all()
    assert record["streams"][0]["beyond_share"].count(None) == (STEPS if out["samples"].isnan().any() else 0)


def test_each_stream_of_a_packed_latent_is_recorded_at_its_scale(views):
    guided, probe = probed(wired(STREAMS, ("StreamCFG", {"video": "3", "audio": "7"}), "Rescale", darker, "APG"))
    small(cfg_guider(guided), 4, noise=PACK)
    streams = probe.seen.record()["streams"]
    assert [stream["scale"][0] for stream in streams] == [3.0, 7.0]
    for i, (cond, direction, _, answer, parts) in enumerate(views):
        assert error(cond + (2, 6)[2 * i // len(views)] * direction + sum(parts), answer) < 1e-5
    assert ProbePlot.execute(probe, {}).result[0].shape[0] == 2


# ------------------------------------------------------------------------------------------------ the page, the plot


@pytest.fixture
def page(monkeypatch):
    told = []
    server = SimpleNamespace(client_id="page", send_sync=lambda event, data, client: told.append((event, data)))
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=server)))
    monkeypatch.setattr(ProbeNode, "hidden", SimpleNamespace(unique_id="9"))
    return SimpleNamespace(server=server, told=lambda: [data for event, data in told if event == "guidance.probe"])


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_a_page_hears_each_evaluation_once_in_one_message_a_step(sampler, page):
    plain = wired(MODEL, "PAG")
    right = sample(plain, sampler=sampler)
    guided, probe = probed(plain)
    assert torch.equal(sample(guided, sampler=sampler), right)
    told = page.told()
    json.dumps(told, allow_nan=False)
    rows = [row for message in told for row in message["nodes"]["9"]["rows"]]
    assert len(told) == STEPS and all(message["steps"] == STEPS for message in told)
    assert [message["nodes"]["9"]["first"] for message in told] == list(np.cumsum([0] + [len(message["nodes"]["9"]["rows"]) for message in told])[:-1])
    stream = probe.seen.record()["streams"][0]
    assert [row["direction"] for row in rows] == stream["direction"]
    assert [row["added"]["PAG"] for row in rows] == stream["added"]["PAG"]


def test_a_page_that_is_gone_ends_no_run(page):
    def gone(*args):
        raise RuntimeError("the socket is closed")

    page.server.send_sync = gone
    guided, probe = probed(MODEL)
    assert torch.equal(sample(guided), sample(MODEL))
    assert len(probe.seen.record()["step"]) == STEPS


def test_without_a_page_nothing_is_told(page):
    page.server.client_id = None
    recorded(MODEL)
    assert page.told() == []


def test_the_plot_and_the_history_have_it_all():
    guided, probe = probed(wired(MODEL, "PAG", "Rescale"))
    out = {"samples": sample(guided, steps=50)}
    made = ProbePlot.execute(probe, out)
    assert made.ui["text"] == [made.result[1]] and len(made.ui["images"]) == 1
    assert json.loads(made.result[1]) == probe.seen.record()
    assert made.result[0].shape[1] > 960 == made.result[0].shape[2] and made.result[0].min() < 0.3 < 0.9 < made.result[0].mean()


def test_a_probe_that_saw_nothing_is_told_in_one_sentence():
    for probe in (probed(MODEL)[1], "a text", None):
        with pytest.raises(ValueError, match=r"^probe has recorded nothing, .+[^.]\.$"):
            ProbePlot.execute(probe, {"samples": None})


def test_a_probe_is_not_called_idle_nor_taken_for_something_that_acts(caplog):
    caplog.set_level(logging.INFO, "comfyui-guidance")
    counter = Counter(wired(probed(MODEL)[0], "Rescale", "APG"))
    sample(counter.model, cfg=1.0)
    before = next(record.message for record in caplog.records if "planned" in record.message)
    assert "Idle at cfg 1: CFG rescale, APG;" in before and counter.rows == STEPS
