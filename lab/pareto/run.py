"""`python lab pareto`: every strategy over its strength, measured on the bundled model or on one's own, and compared with
plain CFG at equal alignment.

Run again, it goes on where it was: what was computed lies in the output folder, by a name that holds all that it depends
on. --minutes 0 computes nothing and shows what is there.
"""
import json
import sys
import time
from pathlib import Path

import comfy.utils
from tqdm import tqdm

from .. import data
from ..demo import WORKFLOW
from . import grid, places, show
from .jobs import Setup, Store, jobs_of, version
from .measures import NEAREST, draws, measure
from .real import drawn_scenes, real_images
from .scorers import named
from .servers import Lost, Server


def report(args):
    comfy.utils.set_progress_bar_enabled(False)
    store = Store(args.out / "jobs")
    try:
        setup = setup_of(args)
        points = chosen(grid.points(args.prediction), args.strategies)
        refused = follow(args, store, [job for point in grid.broad(points) for job in jobs_of(setup, point)])
        jobs = [jobs_of(setup, point) for point in points]
        done = [(point, part) for point, part in zip(points, jobs) if all(job.name in store for job in part)]
        plain = sum(point.strategy == grid.PLAIN for point, _ in done)
        if plain < 2:
            raise ValueError(f"{plain} points of plain CFG are complete; it takes 2 to compare anything with.")
        real, beside = real_images(args, setup, store)
    except (Lost, ValueError, OSError) as error:
        sys.exit(f"lab pareto: {error}")
    times = draws(len(setup.prompts))
    measured = []
    for point, part in tqdm(done, "measuring", unit="point", leave=False):
        result = store.load(part)
        measured.append((point, measure(result, real, times), {name: result[name] for name in ("rows", "seconds")}))
    row = None if beside is None else measure(beside, real, times)
    show.write(args.out, measured, row, len(setup.prompts) * setup.each, args.prediction,
               len(points) - len(done) - len(refused), refused)


def setup_of(args):
    """What all points share, from the command line."""
    prompts = prompts_of(args)
    for name, value, least in (("prompts", len(prompts), 2), ("each", args.each, 1), ("steps", args.steps, 1),
                               ("prompts times each", len(prompts) * args.each, NEAREST + 1)):
        if value < least:
            raise ValueError(f"{name} is {value}; it has to be at least {least}.")
    template = json.loads(Path(args.workflow or WORKFLOW).read_text(encoding="utf-8"))
    for node in template.values():
        if node["class_type"] == "GuidanceDemoModel":
            node["inputs"]["prediction"] = args.prediction
    versions = {Server(address).versions() for address in args.server}
    if len(versions) > 1:
        raise ValueError(f"the servers run different versions, {versions}; what they make cannot be compared.")
    return Setup(template, prompts, args.each, args.steps, args.seed, named(args.scorer),
                 version(*versions.pop()) if versions else version())


def prompts_of(args):
    if args.prompts.isdigit():
        scenes = drawn_scenes(int(args.prompts))
        return [data.caption(scenes, i) for i in range(len(scenes.size))]
    lines = Path(args.prompts).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip()]


def chosen(points, names):
    """The points of strategies with such words in their titles, and plain CFG's; all, without names."""
    kept = [point for point in points if not names or point.strategy == grid.PLAIN
            or any(name.lower() in point.strategy.lower() for name in names)]
    for name in names:
        if not any(name.lower() in point.strategy.lower() for point in kept):
            raise ValueError(f"there is no strategy {name!r}; they are {', '.join(dict.fromkeys(p.strategy for p in points))}.")
    return kept


def follow(args, store, jobs):
    """Run the jobs whose results are not there, in order, until there are none or the minutes are over. Returns the points
    whose nodes refuse the model, with what they say: {(strategy, at): sentence}."""
    missing, refused = [job for job in jobs if job.name not in store], {}
    wanted = (job for job in missing if job.point[:2] not in refused)
    bar = tqdm(total=len(jobs), initial=len(jobs) - len(missing), unit="job", smoothing=0.02)
    with bar:
        for job, result in run(args, until(time.monotonic() + 60 * args.minutes, wanted)):
            if not isinstance(result, ValueError):
                store.save(job.name, result)
            elif job.point.strategy == grid.PLAIN:
                raise result
            else:
                refused[job.point[:2]] = str(result)
            bar.set_postfix_str(f"{job.point.strategy}, {job.point.at}", refresh=False)
            bar.update()
    return refused


def until(deadline, jobs):
    for job in jobs:
        if time.monotonic() >= deadline:
            return
        yield job


def run(args, jobs):
    if args.server:
        return places.on_servers(jobs, args.server)
    if args.workers or args.scheduler:
        return places.on_dask(jobs, args.workers, args.scheduler)
    return places.here(jobs)
