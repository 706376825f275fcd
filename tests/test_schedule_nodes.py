"""The schedule nodes on real ComfyUI: what they accept, what a run makes of it, and what the page is told."""

import logging
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from comfy_api.latest import io
from pack.guidance.presets import PRESETS
from pack.guidance.schedule import Schedule, ScheduleError, parse
from pack.nodes.inputs import as_schedule, check, number
from pack.nodes.perturbed import PAG
from pack.nodes.prompts import Negative
from pack.nodes.scale import CFG
from pack.nodes.schedules import SCHEDULES, Drawn, Math, Preset, Preview, between, caption, timeline_of
from pack.tests.host import Counter, node, prompt, sample, tiny_model

KNOB = number("strength", 1.0, -10.0, 10.0, "")


@pytest.fixture(scope="module")
def model():
    return tiny_model("eps")


def made(cls, **knobs):
    """The schedule that a node makes, absent knobs having their defaults."""
    for given in cls.inputs:
        widget = getattr(given, "input_override", None) or given
        knobs.setdefault(given.id, widget.default if widget.default is not None else widget.options[0])
    schedule, text = cls.execute(**knobs).result
    assert parse(text) == Schedule(schedule.points, schedule.interpolation, schedule.axis)
    return schedule


# ---- a knob takes a number, a schedule, or what stands for one

@pytest.mark.parametrize("cls, name, value", [(CFG, "scale", 7.5), (PAG, "scale", 2.0), (Negative, "weight", 0.7)])
def test_a_constant_schedule_is_the_plain_number_bit_for_bit(model, cls, name, value):
    more = {"negative": prompt(7), "mode": "weighted"} if cls is Negative else {}
    flat = Schedule(((0.0, value), (0.4, value), (1.0, value)), "smooth")
    plain = sample(node(cls, model, **{name: value}, **more))
    assert torch.equal(sample(node(cls, model, **{name: parse(str(value))}, **more)), plain)
    assert torch.equal(sample(node(cls, model, **{name: flat}, **more)), plain)
    assert not torch.equal(sample(model), plain)


@pytest.mark.parametrize("text, steps, guided", [
    ("0:1, 10:7.5 step steps", 20, 10), ("0:7.5, 10:1 step steps", 20, 10), ("0:7.5, 0.5:1 step", 20, 10), ("1", 20, 0), ("7.5", 20, 20),
])
def test_uncond_is_computed_only_where_the_scale_is_not_1(model, text, steps, guided):
    counter = Counter(node(CFG, model, scale=parse(text)))
    sample(counter.model, steps=steps)
    assert (counter.rows, counter.calls) == (steps + guided, steps)


def test_a_scale_of_0_costs_an_added_term_nothing(model):
    counter = Counter(node(PAG, model, scale=parse("0:0, 3:2 step steps")))
    sample(counter.model, cfg=1.0, steps=6)
    assert (counter.rows, counter.calls) == (6 + 3, 6)


def test_a_list_has_a_value_for_each_step(model, caplog):
    values = [7.0, 1.0, 5.0, 4.0, 1.0, 3.0]
    text = ", ".join(f"{i}:{y}" for i, y in enumerate(values)) + " steps"
    expected = sample(node(CFG, model, scale=parse(text)), steps=6)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(sample(node(CFG, model, scale=values), steps=6), expected)
        assert not said(caplog)
        sample(node(CFG, model, scale=[7.0, 1.0, 3.0]), steps=6)
    assert said(caplog) == ["A list has 3 values and the run 6 steps, so it is stretched."]


def said(caplog):
    """What the pack logged; the host may have remarks of its own."""
    return [record.message for record in caplog.records if record.name == "comfyui-guidance"]


def test_core_curves_stand_for_schedules():
    curves = pytest.importorskip("comfy_api.latest._input.curve_types", reason="this host has no curves")
    points = [(0.0, 0.1), (0.3, 0.9), (0.5, 0.8), (1.0, 0.0)]
    for interpolation in ("linear", "monotone_cubic"):
        raw = {"points": points, "interpolation": interpolation}
        curve = curves.CurveInput.from_raw(raw)
        schedule = as_schedule(curve)
        assert as_schedule(raw) == schedule == check(KNOB, curve)
        for i in range(101):
            assert schedule.value(i / 100) == pytest.approx(curve.interp(i / 100), abs=1e-9)


def test_a_curve_that_jumps_keeps_one_value_there():
    assert as_schedule({"points": [[0, 0], [0.5, 0], [0.5, 1], [1, 1]], "interpolation": "linear"}) == parse("0:0, 0.5:1, 1:1")


@pytest.mark.parametrize("value", [float("nan"), 11, "0:1, 1:11", parse("-10.5"), [1.0, 12.0], "soon", [], [float("inf")]])
def test_what_a_knob_does_not_allow_is_refused_in_one_sentence(value):
    with pytest.raises(ValueError) as error:
        check(KNOB, value)
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


# ---- the nodes

def test_the_ids_are_forever():
    ids = [cls.define_schema().node_id for cls in SCHEDULES]
    assert ids == ["GuidanceSchedule", "GuidanceSchedulePreset", "GuidanceScheduleMath", "GuidanceSchedulePreview"]


def test_the_editor_says_what_is_wrong_before_anything_runs():
    assert Drawn.validate_inputs("0:7.5, 1:1") is True
    assert Drawn.validate_inputs(None) is True  # linked: nothing to see yet
    assert "character 7" in Drawn.validate_inputs("0:7.5 1:1")
    assert made(Drawn, schedule=" 1:1, 0:7.50") == parse("0:7.5, 1:1")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_on_the_menu(name):
    assert made(Preset, preset=name).points


def test_arithmetic_on_the_menu():
    a, b = parse("0:1, 1:3"), parse("0:2, 1:0")
    assert made(Math, operation="multiply", a=a, b=2.0) == parse("0:2, 1:6")
    assert made(Math, operation="add", a=a, b=b) == parse("0:3, 1:3")
    assert made(Math, operation="reverse", a=a) == parse("0:3, 1:1")
    assert made(Math, operation="shift", a=parse("0:1, 0.5:3 step"), amount=0.25) == parse("0.25:1, 0.75:3 step")
    assert made(Math, operation="concatenate", a=7.5, b=1.0, amount=0.5) == parse("0:7.5, 0.5:1 step")
    assert made(Math, operation="multiply", a={"points": [[0, 1], [1, 0]], "interpolation": "linear"}, b=8.0) == parse("0:8, 1:0")
    with pytest.raises(ScheduleError, match="axes"):
        made(Math, operation="min", a=a, b=parse("3:1, 0:2 sigma"))


@pytest.mark.parametrize("scheduler, steps, denoise", [("normal", 20, 1.0), ("karras", 7, 0.5), ("simple", 1, 1.0)])
def test_the_preview_is_of_the_run_that_a_sampler_makes(model, scheduler, steps, denoise):
    seen = []
    patched = node(CFG, model, scale=parse("0:9, 1:2"))
    patched.add_wrapper_with_key("predict_noise", "see", lambda executor, x, t, *args: seen.append(float(t[0])) or executor(x, t, *args))
    sample(patched, steps=steps, scheduler=scheduler, denoise=denoise)
    assert list(timeline_of(model, scheduler, steps, denoise).sigmas[:-1]) == pytest.approx(seen, rel=1e-6)


def test_the_preview_counts_the_rows_that_a_run_takes(model):
    schedule = parse("0:7.5, 0.3:1, 0.6:1, 0.7:5")
    timeline = timeline_of(model, "normal", 20, 1.0)
    counter = Counter(node(CFG, model, scale=schedule))
    sample(counter.model, steps=20)
    values = [schedule(moment) for moment in timeline.moments(1.0)]
    assert f": {counter.rows} rows" in caption(values, 1.0) and 20 < counter.rows < 40
    line = dict(between(schedule, timeline, 1.0))
    assert all(line[i] == pytest.approx(value) for i, value in enumerate(values))


def test_what_the_help_page_says_an_interval_saves(model):
    schedule = made(Preset, preset="interval")
    assert "23 of 32 steps: 55 rows" in caption([schedule(moment) for moment in timeline_of(model, "normal", 32, 1.0).moments(1.0)], 1.0)


@pytest.mark.parametrize("schedule", [parse("0:7.5, 0.5:6, 1:1"), 3.0, parse("14:-5, 1:2 step sigma"), [1.0, 2.0, 3.0]])
def test_the_preview_draws_any_schedule(model, schedule):
    image = Preview.execute(schedule=schedule, model=model, scheduler="normal", steps=5, denoise=1.0, off=1.0).result[0]
    assert image.shape == (1, 720, 960, 3) and 0 <= float(image.min()) and float(image.max()) <= 1
    assert len(np.unique(image[0].numpy().reshape(-1, 3), axis=0)) > 20


# ---- what the page is told

@pytest.fixture
def page(monkeypatch):
    """What a page hears that has queued the run."""
    heard = []
    server = SimpleNamespace(client_id="page", send_sync=lambda event, data, sid: heard.append((event, data, sid)))
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=server)))
    return heard


def from_node(text, source="12"):
    return Schedule(parse(text).points, parse(text).interpolation, parse(text).axis, source)


def test_the_page_hears_the_values_that_were_applied(model, page):
    patched = node(CFG, model, scale=from_node("0:7.5, 3:1 step steps"), start=0.0, end=0.9)
    sample(patched, steps=6)
    *markers, (event, applied, sid) = page
    assert event == "guidance.applied" and sid == "page" and len(markers) == 6
    assert [data["nodes"]["12"] for _, data, _ in markers] == [7.5, 7.5, 7.5, 1, 1, 1]
    assert [name for name, _, _ in markers] == ["guidance.marker"] * 6
    rows = applied["nodes"]["12"]
    assert [(row["step"], row["value"]) for row in rows] == [(0, 7.5), (1, 7.5), (2, 7.5), (3, 1), (4, 1), (5, 1)]
    assert len(applied["timeline"]) == 7 and applied["timeline"][-1] == {"sigma": 0.0, "percent": 1.0}
    assert [{"sigma": row["sigma"], "percent": row["percent"]} for row in rows] == applied["timeline"][:-1]


def test_the_scale_that_is_shown_is_the_one_in_force(model, page):
    sample(node(CFG, model, scale=from_node("7"), start=0.0, end=0.5), steps=6)
    values = [row["value"] for row in page[-1][1]["nodes"]["12"]]
    assert values[0] == 7 and values[-1] == 1


def test_outside_its_window_a_strategy_shows_nothing(model, page):
    sample(node(Negative, model, negative=prompt(7), mode="weighted", weight=from_node("0:1, 1:2"), start=0.5, end=1.0), steps=6)
    assert 0 < len(page[-1][1]["nodes"]["12"]) < 6


def test_a_run_that_fails_tells_what_it_did(model, page):
    patched = node(CFG, model, scale=from_node("0:7, 1:2"))

    def fail_late(executor, *args):
        if len(page) == 3:
            raise RuntimeError("out of memory")
        return executor(*args)

    patched.add_wrapper_with_key("predict_noise", "fail", fail_late)
    with pytest.raises(RuntimeError):
        sample(patched, steps=6)
    assert page[-1][0] == "guidance.applied" and len(page[-1][1]["nodes"]["12"]) == 3


def test_nobody_is_told_where_nobody_listens_or_nothing_changes(model, page, monkeypatch):
    sample(node(CFG, model, scale=parse("0:7, 1:2")))  # text, made by no node
    sample(node(CFG, model, scale=7.0))
    assert page == []
    sys.modules["server"].PromptServer.instance.client_id = None
    sample(node(CFG, model, scale=from_node("0:7, 1:2")))
    assert page == []


def test_a_watched_run_is_the_same_run(model, page):
    watched = sample(node(CFG, model, scale=from_node("0:7, 1:2")))
    assert page and torch.equal(watched, sample(node(CFG, model, scale=parse("0:7, 1:2"))))


def test_inputs_that_take_schedules_are_a_widget_that_also_takes_links():
    for given in (KNOB, CFG.inputs[0], Math.inputs[1]):
        types = given.get_io_type().split(",")
        assert {"GUIDANCE_SCHEDULE", "CURVE", "FLOAT"} <= set(types)
        assert types[0] in ("FLOAT", "STRING") and isinstance(given.input_override, (io.Float.Input, io.String.Input))
