"""Schedules: their text, the same in Python and JavaScript; their values over a run; presets and arithmetic."""

import json
import os
import random
import re
import shutil
import subprocess
from math import cos, exp, inf, nan, pi, sin
from pathlib import Path
from time import perf_counter

import pytest
from pack.guidance.beta import beta_cfg
from pack.guidance.core import Timeline
from pack.guidance.presets import PRESETS, SHAPES, preset
from pack.guidance.schedule import (
    AXES,
    INTERPOLATIONS,
    MOST_POINTS,
    PerStep,
    Schedule,
    ScheduleError,
    at,
    parse,
    per_step,
)
from pack.guidance.schedule_math import combine, concatenate, reverse, shift

HERE = Path(__file__).parent
VECTORS = json.loads((HERE / "schedules.json").read_text())
SIGMAS = (14.6, 8.0, 5.42, 3.0, 1.0, 0.28, 0.1, 0.0)
RUN = Timeline(SIGMAS, percent=lambda sigma: 1 - sigma / 14.6)


def mean(schedule, n=4000):
    return sum(schedule.value((i + 0.5) / n) for i in range(n)) / n


@pytest.mark.parametrize("vector", VECTORS["valid"], ids=lambda v: v["text"])
def test_a_text_means_what_the_shared_vectors_say(vector):
    schedule = parse(vector["text"])
    assert str(schedule) == vector["canonical"]
    for x, y in vector["values"]:
        assert schedule.value(x) == pytest.approx(y, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("vector", VECTORS["invalid"], ids=lambda v: v["text"])
def test_a_text_that_means_nothing_is_refused_in_one_sentence(vector):
    with pytest.raises(ScheduleError) as error:
        parse(vector["text"])
    message = str(error.value)
    assert repr(vector["text"]) in message and "\n" not in message and message.endswith(".")
    told = re.search(r" (ends) where | as character (\d+), where ", message)
    assert (told and ("end" if told[1] else int(told[2]))) == vector["character"]


def test_a_mistake_is_told_in_the_words_of_who_wrote_it():
    def told(text):
        with pytest.raises(ScheduleError) as error:
            parse(text)
        return str(error.value)

    assert told("0:7.5, 0.5;6 smooth") == (
        "The schedule '0:7.5, 0.5;6 smooth' has ';' as character 11, where a colon and a value, as in 0.5:6, belongs; "
        "examples are 0:7.5, 0.5:6, 1:1 smooth and the list 8, 7, 6.")
    assert "'1e3' as character 8, where a number with up to 6 digits and 9 decimals belongs" in told("0:1, 1:1e3")
    assert "'cubic' as character 10, where a comma, linear, smooth, step, percent" in told("0:1, 1:2 cubic")
    assert "'step' as character 17, where percent, sigma, steps or the end belongs" in told("0:1, 1:2 smooth step")
    assert "a point at 20; positions in percent are from 0 to 1; where steps" in told("0:1, 20:5")


HOSTILE = {
    "blanks": " ", "digits": "1", "commas": ",", "points": "0:1,", "letters": "a", "brackets": "(", "NUL": "\0",
    "lone surrogates": "\ud800", "combining marks": "\u0301", "emoji": "\U0001f600", "line breaks": "\n", "list": "1,",
    "words": "smooth ", "late": "0:1" + 100 * " ", "signs": "-",
}


def hostile(kind, length):
    return (HOSTILE[kind] * length)[:length] + "x"


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_text_is_refused_at_once_and_not_echoed(kind):
    for text in [prefix + hostile(kind, length) for length in (10_000, 1_000_000) for prefix in ("", "0:1,", "7")]:
        start = perf_counter()
        with pytest.raises(ScheduleError) as error:
            parse(text)
        assert perf_counter() - start < 1  # 0.1 s at most where it was measured
        assert len(str(error.value)) < 700 and str(error.value).encode()


@pytest.mark.parametrize("text", ["0:1,", "1\n"])
def test_a_text_of_too_many_points_is_read_no_further(text):
    with pytest.raises(ScheduleError, match="more than 1000 points") as error:
        parse(text * 250_000 + "what comes after is not looked at")
    assert len(str(error.value)) < 200
    assert len(parse("1\n" * MOST_POINTS).points) == MOST_POINTS


def random_schedule(rng):
    if rng.random() < 0.2:
        return per_step([rng.uniform(-1, 1) * 10 ** rng.randrange(6) for _ in range(rng.randrange(1, 12))], rng.choice(INTERPOLATIONS))
    axis = rng.choice(AXES)
    high = 1 if axis == "percent" else 1000
    points = {round(rng.uniform(0, high), rng.randrange(10)): rng.uniform(-1, 1) * 10 ** rng.randrange(6)
              for _ in range(rng.randrange(1, 12))}
    return Schedule(tuple(points.items()), rng.choice(INTERPOLATIONS), axis)


def random_text(rng):
    """A schedule's text, often with a few characters changed, added or lost."""
    text = str(random_schedule(rng))
    if rng.random() < 0.3:
        text = re.sub("[:,]", lambda m: m[0] + rng.choice(["", " ", "\t", "\n "]), text)
    if rng.random() < 0.3:
        text = re.sub(", ?", lambda m: rng.choice([",", ";", "\n", "\r\n", " ,\n", "\n;"]), text)
    if rng.random() < 0.2:
        text = re.sub(":(\\S+?)(?=[,;\\s]|$)", r":(\1)", text)
    if rng.random() < 0.2:
        text = rng.choice([str.upper, str.title, lambda t: t + ",", lambda t: t + "; "])(text)
    for _ in range(rng.choice([0, 0, 1, 2, 5])):
        i = rng.randrange(len(text) + 1)
        character = rng.choice("0123456789.:,;()+-  \nsSeinf_é😀")
        text = text[:i] + rng.choice(["", character]) + text[i + rng.randrange(2):]
    return text


def canonical(text):
    try:
        return str(parse(text))
    except ScheduleError:
        return None


def test_random_schedules_survive_their_own_text_exactly():
    rng = random.Random(1)
    for _ in range(5000):
        schedule = random_schedule(rng)
        assert parse(str(schedule)) == schedule


def test_random_texts_are_read_or_refused_and_nothing_else():
    rng = random.Random(2)
    verdicts = [canonical(random_text(rng)) for _ in range(5000)]
    assert 500 < verdicts.count(None) < 4500
    assert all(canonical(text) == text for text in verdicts if text is not None)


def javascript(cases, seconds):
    """What web/js/curve.js makes of (text, positions): its canonical text, the values there, and what it says is wrong."""
    if not shutil.which("node"):
        assert "CI" not in os.environ, "Node.js is not installed"
        pytest.skip("Node.js is not installed")
    done = subprocess.run(["node", HERE / "js" / "read.mjs"], input="\n".join(map(json.dumps, cases)),
                          capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(cases)
    return answers


def character(message):
    told = re.search(r"character (\d+),", message or "")
    return told and int(told[1])


def test_python_and_javascript_read_random_texts_alike():
    rng = random.Random(3)
    cases = [(random_text(rng), [rng.uniform(-1, 2) * rng.choice([1, 100, 1000]) for _ in range(8)]) for _ in range(8000)]
    for (text, positions), (verdict, values, wrong) in zip(cases, javascript(cases, 120)):
        try:
            schedule = parse(text)
        except ScheduleError as error:
            assert verdict is None and character(wrong) == character(str(error)), text
            continue
        assert verdict == str(schedule), text
        for x, y in zip(positions, values):
            assert schedule.value(x) == pytest.approx(y, rel=1e-12, abs=1e-12), (text, x)


def test_the_page_refuses_hostile_texts_at_once_too():
    cases = [(hostile(kind, 1_000_000), []) for kind in HOSTILE]
    for kind, (verdict, _, wrong) in zip(HOSTILE, javascript(cases, 30)):
        assert verdict is None and len(wrong) < 300, kind


@pytest.mark.parametrize("points, words", [
    ([], {}), ([(0, float("nan"))], {}), ([(0, float("inf"))], {}), ([(0, 1e6)], {}), ([(0, 999999.9999999999)], {}),
    ([(i / 2000, 0) for i in range(1001)], {}), ([(0.1, 1), (0.1 + 1e-11, 2)], {}), ([(0, 1), (1.1, 1)], {}),
    ([(-1, 1), (1, 1)], {"axis": "steps"}),
])
def test_points_that_have_no_text_are_refused(points, words):
    with pytest.raises(ScheduleError):
        Schedule(tuple(points), **words)


@pytest.mark.parametrize("text, expected", [
    ("0:8, 6:2 steps", [8, 7, 6, 5, 4, 3, 2]),
    ("14.6:14.6, 0:0 sigma", SIGMAS[:-1]),
    ("0:0, 1:1", [1 - sigma / 14.6 for sigma in SIGMAS[:-1]]),
    ("2:1, 3:7, 5:1 step steps", [1, 1, 1, 7, 7, 1, 1]),
    # In the run's order: a value holds from its sigma on, so the interval is (low, high].
    ("20:1, 5.42:7, 0.28:1 step sigma", [1, 1, 7, 7, 7, 1, 1]),
    ("7.5", [7.5] * 7),
])
def test_values_over_a_run(text, expected):
    schedule = parse(text)
    assert [at(schedule, moment) for moment in RUN.moments(1.0)] == pytest.approx(expected)
    assert at(7.5, RUN.moments(1.0)[0]) == 7.5


def test_float_noise_does_not_push_a_moment_off_a_point():
    schedule = parse("20:1, 5.42:7, 0.28:1 step sigma")
    for noise in (1 - 1e-6, 1 + 1e-6):
        assert schedule(RUN.moment(5.42 * noise, 1.0)) == 7
        assert schedule(RUN.moment(0.28 * noise, 1.0)) == 1


def test_a_value_for_each_step_is_stretched_over_another_number_of_steps():
    assert [per_step(range(7))(moment) for moment in RUN.moments(1.0)] == [0, 1, 2, 3, 4, 5, 6]
    assert [per_step([0, 3, 6])(moment) for moment in RUN.moments(1.0)] == pytest.approx([0, 1, 2, 3, 4, 5, 6])
    assert [per_step([4])(moment) for moment in RUN.moments(1.0)] == [4] * 7
    assert [parse("0, 3, 6")(moment) for moment in RUN.moments(1.0)] == pytest.approx([0, 1, 2, 3, 4, 5, 6])
    assert [parse("0, 3, 6 step")(moment) for moment in RUN.moments(1.0)] == [0, 0, 0, 3, 3, 3, 6]


def test_a_list_is_text_and_its_text_is_the_list():
    assert parse("12, 12; 10\n8,") == per_step([12, 12, 10, 8]) != parse("0:12, 1:12, 2:10, 3:8 steps")
    assert parse(str(per_step([12, 12, 10, 8], "smooth"))) == per_step([12, 12, 10, 8], "smooth")
    assert parse("4,") == per_step([4]) == parse("4")


@pytest.mark.parametrize("sigma", [nan, inf, -inf])
@pytest.mark.parametrize("text", ["0:1, 1:2", "0:1, 0.5:5, 1:2 smooth", "9:1, 3:4, 0:2 step sigma", "0:1, 5:2 steps", "3, 2, 1", "7"])
def test_a_noise_level_that_is_no_number_has_a_value_all_the_same(sigma, text):
    values = [y for _, y in parse(text).points]
    for run in (RUN, Timeline((0.0, 0.5, 1.0))):  # the second one adds noise, and its step is then not a number either
        assert min(values) <= parse(text)(run.moment(sigma, 1.0)) <= max(values)


def test_who_made_a_schedule_is_not_part_of_what_it_means():
    assert Schedule(((0, 1), (1, 2)), source="7") == parse("0:1, 1:2")


# ---- presets

@pytest.mark.parametrize("name", ["constant", "linear up", "linear down", "cosine up", "cosine down", "low-high-low", "beta"])
@pytest.mark.parametrize("scale, off", [(7.5, 1.0), (3.0, 0.0)])
def test_equal_area(name, scale, off):
    assert mean(preset(name, scale, off)) == pytest.approx(scale, rel=5e-4)


@pytest.mark.parametrize("name, early, late", [
    ("linear up", 1, 14), ("linear down", 14, 1), ("cosine up", 1, 14), ("cosine down", 14, 1), ("powered cosine", 1, 7.5),
    ("exponential", 7.5, 1 + 6.5 * exp(0.693)), ("clamp-linear", 3, 14), ("low-high-low", 1, 1), ("beta", 1, 1),
])
def test_direction_from_the_most_noise_to_none(name, early, late):
    schedule = preset(name, 7.5)
    assert (schedule.value(0.0), schedule.value(1.0)) == pytest.approx((early, late))
    values = [schedule.value(i / 100) for i in range(101)]
    if early != late:
        assert values == sorted(values, reverse=early > late)


@pytest.mark.parametrize("name, formula", [
    # Wang et al.'s weights over t/T with mean 6.5, which ComfyUI's cfg counts from 1.
    ("linear up", lambda t: 2 * (1 - t) * 6.5),
    ("cosine up", lambda t: (1 + cos(pi * t)) * 6.5),
    ("linear down", lambda t: 2 * t * 6.5),
    ("powered cosine", lambda t: 6.5 * (1 - cos(pi * (1 - t) ** 4)) / 2),
    ("clamp-linear", lambda t: max(2, 2 * (1 - t) * 6.5)),
    ("exponential", lambda t: 6.5 * exp(0.693 * (1 - t))),
    ("beta", lambda t: 6.5 * 12 * (1 - t) * t**2),  # of the run from its start, which is 1 - t/T: most of it early
])
def test_formulas(name, formula):
    schedule = preset(name, 7.5)
    for i in range(101):
        assert schedule.value(i / 100) == pytest.approx(1 + formula(1 - i / 100), abs=0.02)


@pytest.mark.parametrize("a, b", [(2.0, 3.0), (3.5, 1.5), (1.0, 2.0), (5.0, 5.0)])
def test_the_beta_preset_is_the_curve_of_beta_cfg(a, b):
    run = Timeline(tuple(1 - i / 200 for i in range(201)) + (0.0,))  # percent is the part of the run that is over
    ready = preset("beta", 7.5, 0.0, a=a, b=b)
    plan = beta_cfg(a, b).plan
    for moment in run.moments(7.5):
        assert ready(moment) == pytest.approx(plan(moment).scale, abs=0.02)


def test_powered_cosine_has_the_mean_that_its_power_gives():
    assert mean(preset("powered cosine", 1.0, 0.0, power=1.0)) == pytest.approx(0.5, abs=1e-3)
    assert mean(preset("powered cosine", 1.0, 0.0, power=4.0)) == pytest.approx(0.178, abs=1e-3)


def test_a_floor_above_the_end_makes_a_constant():
    assert preset("clamp-linear", 7.5, floor=20.0) == parse("20")
    assert preset("clamp-linear", 7.5, floor=1.0) == preset("linear up", 7.5)


def test_the_interval_has_its_upper_end_and_not_its_lower():
    schedule = preset("interval", 7.5)
    assert [schedule.value(sigma) for sigma in (100, 5.43, 5.42, 1, 0.2801, 0.28, 0)] == [1, 1, 7.5, 7.5, 7.5, 1, 1]


@pytest.mark.parametrize("name", PRESETS)
def test_where_guidance_may_not_go_a_preset_stays(name):
    assert set(dict(preset(name, 1.0, 1.0, floor=1.0).points).values()) == {1.0}
    assert parse(str(preset(name, 7.5))) == preset(name, 7.5)


@pytest.mark.parametrize("knobs", [{"name": "interval", "sigma_low": 6.0}, {"name": "beta", "a": 0.5}])
def test_presets_without_a_shape_are_refused(knobs):
    with pytest.raises(ScheduleError):
        preset(scale=7.5, **knobs)


def test_the_shared_vectors_have_every_shape():
    assert [vector["name"] for vector in VECTORS["shapes"]] == list(SHAPES)


# ---- arithmetic

A = parse("0:1, 1:3")
SMOOTH = parse("0:2, 0.5:6, 1:1 smooth")
STEPS = parse("0:1, 0.3:5, 0.8:2 step")
CONSTANT = parse("2")
POSITIONS = [(i + 0.37) / 200 for i in range(200)]  # never on a jump
OPERATIONS = {"multiply": lambda a, b: a * b, "add": lambda a, b: a + b, "min": min, "max": max}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("a, b", [(A, SMOOTH), (SMOOTH, STEPS), (STEPS, A), (STEPS, CONSTANT), (CONSTANT, A), (STEPS, reverse(STEPS))])
def test_arithmetic_is_that_of_the_values(operation, a, b):
    result = combine(operation, a, b)
    height = max(abs(y) for _, y in result.points)
    for x in POSITIONS:
        assert result.value(x) == pytest.approx(OPERATIONS[operation](a.value(x), b.value(x)), abs=2e-4 * height)
    assert combine(operation, b, a) == result


def test_arithmetic_keeps_what_it_can():
    assert combine("multiply", SMOOTH, CONSTANT) == parse("0:4, 0.5:12, 1:2 smooth")
    assert combine("add", parse("10:1, 3:2 step sigma"), CONSTANT) == parse("10:3, 3:4 step sigma")
    assert combine("add", A, parse("0:3, 1:1")) == parse("0:4, 1:4")
    assert combine("max", STEPS, CONSTANT).interpolation == "step"
    assert combine("min", A, parse("0:3, 1:1")) == parse("0:1, 0.5:2, 1:1")
    assert combine("add", parse("1"), parse("2")) == parse("3")


def test_different_axes_do_not_mix():
    with pytest.raises(ScheduleError, match="percent and sigma"):
        combine("add", A, parse("10:1, 0:2 sigma"))


@pytest.mark.parametrize("a", [A, SMOOTH, STEPS])
@pytest.mark.parametrize("later", [0.25, -0.25, 0.0, 1.5])
def test_shifted(a, later):
    result = shift(a, later)
    for x in POSITIONS:
        assert result.value(x) == pytest.approx(a.value(x - later), abs=1e-3)


def test_later_is_less_sigma():
    assert shift(parse("10:1, 5:2 step sigma"), 2.0) == parse("8:1, 3:2 step sigma")
    assert shift(CONSTANT, 0.5) == CONSTANT


@pytest.mark.parametrize("a", [A, SMOOTH, STEPS, CONSTANT])
def test_reversed(a):
    result = reverse(a)
    for x in POSITIONS:
        assert result.value(x) == pytest.approx(a.value(1 - x))
    assert a is STEPS or reverse(result) == a


@pytest.mark.parametrize("a, b", [(A, SMOOTH), (A, STEPS), (STEPS, STEPS), (CONSTANT, A)])
def test_concatenated(a, b):
    result = concatenate(a, b, 0.25)
    for x in POSITIONS:
        assert result.value(x) == pytest.approx(a.value(x / 0.25) if x < 0.25 else b.value((x - 0.25) / 0.75), abs=1e-3)


ZIGZAG = [Schedule(tuple(((i + offset) / 1001, i % 2 * 5) for i in range(1000)), kind)
          for offset, kind in [(0, "linear"), (0.5, "smooth"), (0.3, "step")]]
NASTY = [parse(text) for text in [
    "0:0, 1:1", "0:1, 1:0.000000001", "0:3, 0.4:3, 1:3 smooth", "0:999, 0.5:-999, 1:999 smooth", "0",
    "0.000000001:1, 0.000000002:2, 0.000000003:-2 step", "0.000000001:1, 0.000000002:2, 1:4 smooth",
]] + ZIGZAG + [Schedule(tuple((i / 999, sin(i / 50)) for i in range(1000)), "smooth")]


class Counted(Schedule):
    """A schedule that counts how often it is asked."""

    asked = 0

    def value(self, x):
        Counted.asked += 1
        assert Counted.asked < 200_000, "more work than 1000 points can need"
        return super().value(x)


@pytest.mark.parametrize("operation", [*OPERATIONS, "concatenate", "shift"])
def test_no_pair_of_schedules_makes_endless_work(operation):
    for i, a in enumerate(NASTY):
        for b in NASTY[:i + 1] if operation != "shift" else [parse("0.3"), parse("-0.000000001")]:
            a, b = (Counted(s.points, s.interpolation, s.axis) for s in (a, b))
            Counted.asked = 0
            try:
                if operation == "shift":
                    result = shift(a, b.points[0][1])
                elif operation == "concatenate":
                    result = concatenate(a, b, 0.3)
                else:
                    result = combine(operation, a, b)
            except ScheduleError as error:
                assert re.search("1000 is the most|numbers are between", str(error)), error
                continue
            assert len(result.points) <= MOST_POINTS


def test_a_product_that_is_0_at_its_ends_has_its_middle():
    Counted.asked = 0
    result = combine("multiply", Counted(((0, 0), (1, 1))), Counted(((0, 1), (1, 0))))
    assert all(result.value(x) == pytest.approx(x * (1 - x), abs=2e-4 * 0.25) for x in POSITIONS)
    assert len(result.points) < 200


def test_more_bends_than_points_are_thinned_where_straight_lines_allow_it():
    a, b = (Schedule(tuple(((i + offset) / 1000, sin(i / 100)) for i in range(1000)), "linear") for offset in (0, 0.5))
    result = combine("add", a, b)
    for x in POSITIONS:
        assert result.value(x) == pytest.approx(a.value(x) + b.value(x), abs=2e-4 * 4)


def test_a_moment_on_a_step_of_a_product_is_after_it():
    product = combine("multiply", STEPS, A)  # which has points close together on both sides of a step
    run = Timeline((1.0, 0.7, 0.2, 0.0))
    assert [product(moment) for moment in run.moments(1.0)] == pytest.approx([1.0, 5 * 1.6, 2 * 2.6])


def test_every_step_stays_where_rounding_could_lose_it():
    rng = random.Random(4)
    for _ in range(100):
        steps = Schedule(tuple((x, i) for i, x in enumerate(sorted({round(rng.random(), 2) for _ in range(5)}))), "step")
        where = round(rng.uniform(0.1, 0.9), 2)
        joined, moved = concatenate(steps, steps, where), shift(steps, where - 0.5)
        for x in POSITIONS:
            assert joined.value(x) == steps.value(x / where if x < where else (x - where) / (1 - where)), (str(steps), where, x)
            assert moved.value(x) == steps.value(x - (where - 0.5)), (str(steps), where, x)


def test_lists_stay_lists():
    assert combine("multiply", parse("1, 2, 3"), CONSTANT) == parse("2, 4, 6")
    assert combine("max", CONSTANT, parse("1, 2, 3 step")) == parse("2, 2, 3 step")
    assert combine("add", parse("1, 2, 3"), parse("10, 20")) == parse("11, 17, 23")
    assert reverse(parse("1, 2, 3 smooth")) == parse("3, 2, 1 smooth")
    assert not isinstance(combine("add", parse("1, 2, 3"), parse("0:1, 9:2 steps")), PerStep)


@pytest.mark.parametrize("call", [
    lambda: reverse(parse("10:1, 0:2 sigma")), lambda: concatenate(A, parse("0:1, 9:2 steps"), 0.5),
    lambda: concatenate(A, A, 0.0), lambda: combine("multiply", parse("0:1000, 1:2000"), parse("0:1000, 1:1")),
    lambda: combine("add", *ZIGZAG[:2]),
])
def test_what_has_no_answer_is_refused(call):
    with pytest.raises(ScheduleError):
        call()
