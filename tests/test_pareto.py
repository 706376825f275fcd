"""lab pareto: measures against known answers, jobs that are run once, and places that lose none."""

import json
import socket
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("comfy")

from pack.lab.demo import WORKFLOW  # noqa: E402
from pack.lab.pareto import grid, jobs, measures, overview, pages, places, real, run, scorers, servers, show, workflow  # noqa: E402
from pack.nodes import STRATEGIES  # noqa: E402

PROMPTS = ["a big red circle on blue", "a small white ring on red", "a big blue star on black"]


def setup(prompts=PROMPTS, prediction="v"):
    template = json.loads(WORKFLOW.read_text())
    template["1"]["inputs"]["prediction"] = prediction
    return jobs.Setup(template, prompts, 2, 2, 0, scorers.DEMO, jobs.version())


def gaussian(prompts, each, width=3, shift=0.0, scale=1.0, seed=0):
    return shift + scale * torch.randn(prompts * each, width, generator=torch.Generator().manual_seed(seed)).double()


def like(features):
    return measures.Real(features.mean(0), features.T.cov(), features)


def found(features, times, score=0.5):
    """As `jobs.Store.load` gives it."""
    return {"features": features.numpy(), "score": np.full(len(features), score), "clipped": np.zeros(len(features))}


# ------------------------------------------------------------------------------------------------ measures

def test_frechet_of_equal_sets_is_0_and_of_a_shifted_one_the_squares_of_the_shift():
    features, once = gaussian(50, 4), measures.draws(50, 0)
    assert measures.frechet(features, like(features), once).item() == pytest.approx(0, abs=1e-9)
    assert measures.frechet(features + 2, like(features), once).item() == pytest.approx(3 * 4)
    assert measures.frechet(2 * (features - features.mean(0)), like(features - features.mean(0)), once).item() == pytest.approx(
        features.T.cov().trace().item())


def test_a_draw_is_the_frechet_distance_of_the_drawn_prompts():
    features, times = gaussian(20, 3), measures.draws(20, 3)
    real, drawn = like(gaussian(40, 3, seed=1)), measures.frechet(features, like(gaussian(40, 3, seed=1)), times)
    for count, value in zip(times, drawn):
        again = features.view(20, 3, 3).repeat_interleave(count.long(), 0).flatten(0, 1)
        assert measures.frechet(again, real, measures.draws(20, 0)).item() == pytest.approx(value.item())


def test_precision_and_recall_of_the_same_set_are_1_and_of_sets_apart_0():
    features = gaussian(30, 4)
    for other, share in ((features, 1), (features + 100, 0)):
        assert [among.double().mean() for among in measures.manifolds(features, other)] == [share, share]


def test_precision_falls_with_what_is_not_real_and_recall_with_what_is_missing():
    real = gaussian(50, 4)
    wide, narrow = (measures.manifolds(gaussian(50, 4, scale=scale, seed=1), real) for scale in (4.0, 0.2))
    assert wide[0].double().mean() < 0.5 < wide[1].double().mean()
    assert narrow[1].double().mean() < 0.5 < narrow[0].double().mean()


def test_diversity_is_the_mean_distance_of_pictures_of_one_prompt():
    features = torch.tensor([[[0.0, 0.0], [3.0, 4.0]], [[7.0, 7.0], [7.0, 7.0]]]).double()
    assert measures.distances_within(features).tolist() == [5, 0]


def test_intervals_hold_the_true_value_as_often_as_they_say():
    """Pictures of one prompt are alike, which an interval over single pictures would take for certainty."""
    times, held = measures.draws(60, 200), 0
    for seed in range(200):
        rng = torch.Generator().manual_seed(seed)
        of_prompt = torch.rand(60, 1, generator=rng)
        score = (torch.rand(60, 8, generator=rng) < of_prompt).double()
        low, high = measures.interval(times @ score.mean(1) / 60)
        held += low <= 0.5 <= high
    assert 180 <= held <= 199


def test_intervals_of_frechet_hold_its_mean():
    times, real = measures.draws(64, 100), like(gaussian(5000, 1, seed=999))
    values = [measures.frechet(gaussian(64, 2, shift=0.3, seed=seed), real, times) for seed in range(60)]
    mean = np.mean([value[0].item() for value in values])
    held = sum(low <= mean <= high for low, high in map(measures.interval, values))
    assert held >= 50


# ------------------------------------------------------------------------------------------------ equal alignment

def at(alignment, frechet, noise=0.0):
    rng = torch.Generator().manual_seed(int(1000 * alignment))
    spread = lambda value: value + noise * torch.cat([torch.zeros(1), torch.randn(200, generator=rng)]).double()
    return {"alignment": spread(alignment), "frechet": spread(frechet)}


PLAIN = [at(0.3, 4.0), at(0.6, 1.0), at(0.9, 4.0)]


@pytest.mark.parametrize("alignment, expected", [(0.3, 4), (0.45, 2.5), (0.6, 1), (0.8, 3), (0.2, None), (0.95, None)])
def test_the_line_through_plain_cfg_is_read_at_an_alignment(alignment, expected):
    alignments, frechets = (torch.stack([one[name][:1] for one in PLAIN]) for name in ("alignment", "frechet"))
    value = measures.lowest_at(torch.tensor([alignment]).double(), alignments, frechets).item()
    assert value != value if expected is None else value == pytest.approx(expected)


def test_where_the_line_turns_back_its_lowest_counts():
    back = [*PLAIN, at(0.7, 9.0)]
    alignments, frechets = (torch.stack([one[name][:1] for one in back]) for name in ("alignment", "frechet"))
    assert measures.lowest_at(torch.tensor([0.8]).double(), alignments, frechets).item() == pytest.approx(3)


@pytest.mark.parametrize("alignment, frechet, noise, word", [
    (0.75, 2.0, 0.01, "better"), (0.75, 3.0, 0.01, "worse"), (0.75, 2.5, 0.05, "not told apart"),
    (0.99, 5.0, 0.0, "more than CFG reaches"), (0.1, 2.0, 0.0, "less than CFG has")])
def test_a_strategy_is_judged_at_its_own_alignment(alignment, frechet, noise, word):
    verdict = measures.compare(at(alignment, frechet, noise), PLAIN)
    assert verdict.word == word
    if verdict.low == verdict.low:
        assert verdict.difference == pytest.approx(frechet - 2.5) and verdict.low <= verdict.difference <= verdict.high


def test_more_than_cfg_reaches_is_better_where_it_is_also_nearer_to_real_images():
    verdict = measures.compare(at(0.99, 3.0, 0.01), PLAIN)
    assert verdict.word == "better" and verdict.difference == pytest.approx(3 - 4)


def test_as_much_as_cfg_reaches_is_compared_with_what_reaches_it():
    verdict = measures.compare(at(0.9, 4.5, 0.01), PLAIN)
    assert verdict.word == "worse" and verdict.difference == pytest.approx(0.5)


def test_how_rough_the_line_is_shows_in_a_point_left_out():
    assert measures.roughness(PLAIN) == pytest.approx(3)
    assert measures.roughness([at(0.3, 1), at(0.5, 2), at(0.7, 3)]) == pytest.approx(0)
    # Where the line turns back it is never read, so it may be as rough as it likes.
    assert measures.roughness([at(0.3, 1), at(0.5, 2), at(0.7, 3), at(0.6, 9), at(0.5, 10)]) == pytest.approx(0)


# ------------------------------------------------------------------------------------------------ grid and jobs

@pytest.mark.parametrize("prediction", ["eps", "flow"])
def test_every_strategy_of_the_menu_is_measured_or_its_absence_explained(prediction):
    nodes = {point.node for point in grid.points(prediction)} - {""}
    absent = {cls.node_id for cls in STRATEGIES} - nodes
    assert absent == {*grid.LEFT_OUT, *(() if prediction == "flow" else grid.FLOW_ONLY)}


def test_a_run_that_is_cut_short_has_compared_as_many_strategies_as_it_can():
    points = grid.points("flow")
    order = grid.broad(points)
    assert sorted(map(str, order)) == sorted(map(str, points))
    plain, names = len(grid.SCALES), list(dict.fromkeys(point.strategy for point in points))
    assert {point.strategy for point in order[:plain]} == {grid.PLAIN}
    assert [point.strategy for point in order[plain:plain + len(names) - 1]] == names[1:]
    assert {point.cfg for point in order[plain:plain + len(names) - 1] if point.node not in grid.KNOBS} == {grid.FEWER[1]}


def test_every_point_has_knobs_that_its_node_takes():
    nodes = {cls.node_id: cls for cls in STRATEGIES}
    for point in grid.points("flow"):
        for name, value in point.inputs.items():
            assert name in {given.id for given in nodes[point.node].inputs}
            nodes[point.node].check({name: value})


def point(id="", **inputs):
    return grid.Point("any", "any", 3.0, id, inputs)


def test_a_job_asks_for_its_own_prompts_with_seeds_of_their_own():
    job = jobs.jobs_of(setup(), point("GuidancePAG", scale=0.5))[0]
    flow, pictures = workflow.build(job._replace(first=40))
    for i, number in enumerate(pictures):
        decoded = flow[flow[number]["inputs"]["images"][0]]
        sampler = flow[decoded["inputs"]["samples"][0]]["inputs"]
        assert flow[sampler["positive"][0]]["inputs"]["text"] == PROMPTS[i]
        assert (sampler["seed"], sampler["cfg"], sampler["steps"]) == (40 + i, 3.0, 2)
        assert flow[sampler["model"][0]]["inputs"]["scale"] == 0.5
    assert flow["3"]["inputs"]["text"] == ""


def test_jobs_share_the_prompts_without_losing_any():
    many = [f"a big red circle on {i}" for i in range(2 * jobs.PER_JOB + 3)]
    parts = jobs.jobs_of(setup(many), point())
    assert [prompt for part in parts for prompt in part.setup.prompts] == many
    assert len({part.name for part in parts}) == 3


def test_a_name_holds_what_a_result_depends_on():
    base = jobs.Job(setup(), point(), 0)
    same = base._replace(point=base.point._replace(strategy="another title", at="in other words"))
    others = [base._replace(first=1), base._replace(point=point("GuidancePAG")), base._replace(setup=setup(PROMPTS[:2])),
              base._replace(setup=base.setup._replace(version="another"))]
    assert same.name == base.name and len({base.name, *(other.name for other in others)}) == 5


@pytest.mark.parametrize("change, says", [
    (lambda flow: flow.pop("5"), "0 nodes KSampler"), (lambda flow: flow.update(other=flow["7"]), "2 nodes SaveImage"),
    (lambda flow: flow["2"]["inputs"].update(text=["9", 0]), "a node with a text")])
def test_a_workflow_that_does_not_fit_is_refused_in_one_sentence(change, says):
    base = setup()
    change(base.template)
    with pytest.raises(ValueError, match=says):
        workflow.build(jobs.Job(base, point(), 0))


def test_rows_are_counted_and_a_result_is_the_same_again():
    for given, rows in ((point(), 4), (point("GuidancePAG", scale=1.0), 6), (point("GuidanceAutoguidance"), 4)):
        first, second = (jobs.compute(jobs.Job(setup(PROMPTS[:1]), given, 0)) for _ in range(2))
        assert first["rows"] == rows
        assert all(np.array_equal(first[name], second[name]) for name in ("score", "features", "clipped"))


# ------------------------------------------------------------------------------------------------ the command

def settings(folder, **more):
    given = dict(prediction="eps", strategies=["rescale"], prompts="3", each=2, steps=2, seed=0, minutes=9.0, workers=0,
                 scheduler=None, server=[], workflow=None, scorer=scorers.DEMO, real=None, out=folder)
    return SimpleNamespace(**{**given, **more})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two points of plain CFG and one other, of a few pictures."""
    folder = tmp_path_factory.mktemp("pareto")
    with pytest.MonkeyPatch.context() as patch:
        small(patch)
        run.report(settings(folder))
    return folder


def small(patch, pictures=False):
    patch.setattr(grid, "SCALES", (1.0, 4.0))
    patch.setattr(grid, "FEWER", (6.0,))
    patch.setattr(run, "draws", lambda prompts: measures.draws(prompts, 20))
    patch.setattr(real, "MANY", 100)
    if not pictures:  # which take a package that only this command needs
        patch.setattr(show, "pictures", lambda *args: None)


def test_a_run_leaves_all_numbers_and_a_table(finished):
    rows = [row.split(",") for row in (finished / "points.csv").read_text().splitlines()]
    assert [row[:2] for row in rows[1:]] == [["Real images", ""], ["Plain CFG", "cfg 1"], ["Plain CFG", "cfg 4"],
                                             ["CFG rescale", "cfg 6"]]
    table = (finished / "table.md").read_text()
    assert "CFG rescale" in table and "6 images a point, 3 points, 60 rows and" in table  # 2 + 4 + 4, of each image
    costs = (finished / "costs.csv").read_text().splitlines()
    assert [row.split(",")[2] for row in costs[1:]] == ["2", "4", "4"]  # two steps


def test_an_overview_orders_the_strategies_of_runs_by_their_middle_strength(finished):
    told = overview.by_strategy(overview.read(finished / "points.csv"))
    assert list(told) == ["CFG rescale"] and [row["at"] for row in told["CFG rescale"]] == ["cfg 6"]

    def points(*differences):
        return [{overview.DIFFERENCE: "" if value is None else str(value)} for value in differences]

    eps = {"no verdict": points(None, None), "good at its ends": points(-9, 2, -9), "middling": points(1), "two": points(5, 0)}
    flow = {"middling": points(2, 2.5, 9), "only there": points(-1)}
    assert overview.ordered({"eps": eps, "flow": flow}) == ["only there", "two", "middling", "good at its ends", "no verdict"]


def test_help_pages_have_what_the_kept_runs_have_found():
    found = pages.kept()
    assert {*found["GuidanceAPG"]} >= {"eps"}
    for node, runs in found.items():
        for path, language in pages.pages(node):
            assert pages.table(runs, language) in path.read_text(encoding="utf-8"), path


def test_a_help_page_gets_a_new_table_in_place_of_the_old_one():
    def run(at, **found):
        return {"at": at, "cfg": "2", "inputs": json.dumps({"scale": 1.0, "size": 3.0}), "verdict": "worse", "from": "-0.001",
                "to": "0.5", overview.DIFFERENCE: "0.25", **found}

    rows = [run("scale 1"), run("scale 10", verdict="less than CFG has", **{overview.DIFFERENCE: "nan"})]
    first = pages.table({"eps": rows[:1]}, "en")
    table = pages.table({"eps": rows[:1], "flow": rows[1:]}, "en")
    assert table.splitlines()[-4:] == [
        "|  | scale 1, cfg 2 | scale 10, cfg 2 |", "| --- | --- | --- |", "| eps | **0.25** (0.00 to 0.50) |  |",
        "| flow |  | follows the prompt less than no guidance |"]
    assert "with `size` 3 " in table
    page = "# Title\n\nText.\n\n**Cost.** Much.\n"
    with_first = pages.with_table(page, first, "en")
    assert with_first == f"# Title\n\nText.\n\n{first}\n**Cost.** Much.\n"
    assert pages.with_table(with_first, table, "en") == pages.with_table(page, table, "en")


def test_run_again_it_computes_nothing(finished, monkeypatch):
    small(monkeypatch)
    before = (finished / "points.csv").read_bytes()
    monkeypatch.setattr(jobs, "draw", None)
    run.report(settings(finished))
    assert (finished / "points.csv").read_bytes() == before


def test_what_is_missing_alone_is_computed(finished, monkeypatch):
    small(monkeypatch)
    before, ran = (finished / "points.csv").read_bytes(), []
    next((finished / "jobs").glob("[!r]*.npz")).unlink()
    monkeypatch.setattr(places, "compute", lambda job: ran.append(job) or jobs.compute(job))
    run.report(settings(finished))
    assert len(ran) == 1 and (finished / "points.csv").read_bytes() == before


def test_a_strategy_that_refuses_the_model_is_left_out_and_told(finished, monkeypatch, capsys):
    small(monkeypatch)
    before = (finished / "points.csv").read_text()
    monkeypatch.setattr(places, "compute", refusing)
    run.report(settings(finished, strategies=["rescale", "cfg norm", "tcfg"]))
    told, after = capsys.readouterr().out, (finished / "points.csv").read_text()
    assert "Left out: CFG norm, cfg 6. GuidanceRenorm: not on this one." in told and "TCFG" in after
    assert after.startswith(before) and "CFG norm" not in after and "not computed yet" not in told


def test_without_plain_cfg_there_is_nothing_to_compare(tmp_path, monkeypatch):
    small(monkeypatch)
    monkeypatch.setattr(places, "compute", refusing)
    monkeypatch.setattr(grid, "PLAIN", "CFG norm")
    with pytest.raises(ValueError, match="not on this one"):
        run.follow(settings(tmp_path), jobs.Store(tmp_path), [jobs.Job(setup(), grid.Point("CFG norm", "", 1, "GuidanceRenorm"), 0)])


def refusing(job):
    if job.point.node == "GuidanceRenorm":
        raise ValueError("GuidanceRenorm: not on this one.")
    return jobs.compute(job)


@pytest.mark.parametrize("prediction", ["eps", "flow"])
def test_every_strategy_runs_on_the_bundled_model(prediction):
    middle = dict.fromkeys(point.strategy for point in grid.points(prediction))
    for point in grid.broad(grid.points(prediction))[:len(grid.SCALES) - 1 + len(middle)]:
        made = jobs.compute(jobs.Job(setup(PROMPTS[:1], prediction), point, 0))
        assert np.isfinite(made["features"]).all() and made["rows"] >= 2, point


@pytest.mark.parametrize("wrong, says", [
    ({"prompts": "1"}, "prompts is 1; it has to be at least 2"), ({"each": 0}, "each is 0"),
    ({"each": 1}, "prompts times each is 3; it has to be at least 4"), ({"scorer": "no.py"}, "no.py"),
    ({"strategies": ["cheese"]}, "no strategy 'cheese'; they are Plain CFG, "), ({"workflow": "no.json"}, "no.json"),
    ({"server": ["http://127.0.0.1:9"]}, "does not answer"), ({"minutes": 0.0}, "0 points of plain CFG are complete")])
def test_what_cannot_be_done_is_said_in_one_sentence(wrong, says, tmp_path):
    with pytest.raises(SystemExit) as ended:
        run.report(settings(tmp_path, **wrong))
    assert says in str(ended.value) and "\n" not in str(ended.value)


def test_a_scorer_of_ones_own_is_known_by_its_text(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def score(pictures, prompts):\n    return pictures.mean((1, 2, 3)), pictures.flatten(1)[:, :2]\n")
    name = scorers.named(str(file))
    scores, features = scorers.scorer(name)(torch.ones(4, 3, 8, 8), [""] * 4)
    assert scores.tolist() == [1] * 4 and features.shape == (4, 2)
    file.write_text(file.read_text() + "\n")
    assert scorers.named(str(file)) != name
    scorers.scorer.cache_clear()


def test_a_workflow_prompts_a_scorer_and_real_images_of_ones_own(tmp_path, monkeypatch):
    small(monkeypatch)
    (tmp_path / "prompts.txt").write_text("a red star\n\na blue ring\n")
    (tmp_path / "mine.py").write_text("def score(pictures, prompts):\n"
                                      "    return pictures.mean((1, 2, 3)), pictures.mean((2, 3))\n")
    for i, picture in enumerate(torch.rand(5, 4, 4, 3).mul(255).byte().numpy()):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    run.report(settings(tmp_path / "out", workflow=str(WORKFLOW), prompts=str(tmp_path / "prompts.txt"), each=2,
                        scorer=str(tmp_path / "mine.py"), real=str(tmp_path)))
    rows = [row.split(",") for row in (tmp_path / "out" / "points.csv").read_text().splitlines()]
    assert [row[:2] for row in rows[1:]] == [["Plain CFG", "cfg 1"], ["Plain CFG", "cfg 4"], ["CFG rescale", "cfg 6"]]
    scorers.scorer.cache_clear()


# ------------------------------------------------------------------------------------------------ places

class Cluster:
    """Takes the place of a Dask client, and of its futures: each is done once it is asked for."""

    def __init__(self, threads):
        self.threads, self.sent, self.most = threads, [], 0

    def nthreads(self):
        return {"a worker": self.threads}

    def submit(self, run, pack, path, plain, key, pure):
        return SimpleNamespace(key=key, result=lambda: run(plain))

    def as_completed(self):
        return self

    def add(self, future):
        self.sent.append(future)
        self.most = max(self.most, len(self.sent))

    def __iter__(self):
        while self.sent:
            yield self.sent.pop()


@pytest.mark.parametrize("threads, count", [(1, 0), (1, 1), (2, 4), (3, 20)])
def test_a_cluster_gets_every_job_once_and_few_at_a_time(threads, count):
    cluster, given = Cluster(threads), [jobs.Job(setup(PROMPTS[:1]), point(), first) for first in range(count)]
    done = list(places.followed(cluster, lambda plain: plain[-1], iter(given), cluster.as_completed))
    assert sorted(result for _, result in done) == list(range(count)) and cluster.most <= 2 * threads
    assert all(job.first == result for job, result in done)


class Flaky:
    """Takes the place of a server: works until it is lost."""

    def __init__(self, lost_at):
        self.left = lost_at

    def draw(self, job):
        if self.left == 0:
            raise servers.Lost("it is gone")
        self.left -= 1
        return torch.zeros(len(job.setup.prompts) * job.setup.each, 3, 32, 32, dtype=torch.uint8)


def test_what_a_lost_server_had_is_run_by_another(monkeypatch):
    made = {"one": Flaky(2), "two": Flaky(-1)}
    monkeypatch.setattr(places, "Server", made.get)
    given = [jobs.Job(setup(PROMPTS[:1]), point(), first) for first in range(12)]
    done = [job for job, _ in places.on_servers(given, list(made))]
    assert sorted(job.first for job in done) == list(range(12))


def test_what_a_node_refuses_is_told_and_the_next_job_is_run(monkeypatch):
    def refused_at_2(job):
        if job.first == 2:
            raise ValueError("GuidanceNAG: not on this one.")
        return torch.zeros(2, 3, 32, 32, dtype=torch.uint8)

    monkeypatch.setattr(places, "Server", lambda _: SimpleNamespace(draw=refused_at_2))
    given, cluster = [jobs.Job(setup(PROMPTS[:1]), point(), first) for first in range(5)], Cluster(1)
    on_cluster = places.followed(cluster, lambda plain: refused_at_2(jobs.Job(*plain)), iter(given), cluster.as_completed)
    for done in (places.on_servers(given, ["one"]), on_cluster):
        results = {job.first: result for job, result in done}
        assert len(results) == 5 and {first for first, result in results.items() if isinstance(result, ValueError)} == {2}


def test_with_no_server_left_the_reason_is_told(monkeypatch):
    monkeypatch.setattr(places, "Server", lambda _: Flaky(1))
    given, done = [jobs.Job(setup(PROMPTS[:1]), point(), first) for first in range(5)], []
    with pytest.raises(servers.Lost, match="it is gone"):
        done.extend(job for job, _ in places.on_servers(given, ["one", "two"]))


def test_a_server_that_hangs_up_is_lost():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=lambda: listener.accept()[0].close(), daemon=True).start()
        with pytest.raises(servers.Lost, match="does not answer"):
            servers.Server(f"http://127.0.0.1:{listener.getsockname()[1]}").versions()
