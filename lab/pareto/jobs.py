"""A job: a few prompts' pictures at one point, as a workflow that any ComfyUI runs, and what was measured on them.

A job's name is a hash of all that its result depends on, so a result that is there need not be computed again.
"""
import hashlib
import json
import os
import time
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import comfyui_version
import numpy as np
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from ..demo import evaluate
from .grid import Point
from .scorers import scorer
from .workflow import build, known

PACK = Path(__file__).parent.parent.parent
PER_JOB = 16  # prompts


class Setup(NamedTuple):
    """What all points share. template: an API workflow with one KSampler; each: pictures of each prompt; version: of
    ComfyUI and torch."""
    template: dict
    prompts: list
    each: int
    steps: int
    seed: int
    scorer: str
    version: str


class Job(NamedTuple):
    """first: the number of its first prompt among all."""
    setup: Setup  # with the prompts of this job alone
    point: Point
    first: int

    @property
    def name(self):
        files = pack("guidance", "nodes") if self.point.node else pack("nodes/demo")
        told = json.dumps([self.setup, self.point[2:], self.first, files], sort_keys=True)  # titles do not matter
        return hashlib.sha256(told.encode()).hexdigest()[:32]


def jobs_of(setup, point):
    return [Job(setup._replace(prompts=setup.prompts[i:i + PER_JOB]), point, i)
            for i in range(0, len(setup.prompts), PER_JOB)]


def version(host=comfyui_version.__version__, library=torch.__version__):
    return f"ComfyUI {host}, torch {library}"


@lru_cache
def pack(*folders):
    """A hash of the pack's own files."""
    digest = hashlib.sha256()
    paths = [path for folder in folders for path in PACK.joinpath(folder).rglob("*")]
    for path in sorted(path for path in paths if path.suffix in (".py", ".safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


# ---------------------------------------------------------------------------------------------- in this process

ROWS: list[int] = []  # of each call of a model by the job under way

@lru_cache(8)
def loaded(number, node):
    """The outputs of a node without links, such as a model's: they are the same for every job."""
    return [counted(output) for output in evaluate({number: json.loads(node)}, number, known(), {})]


def draw(job):
    """(pictures (n, 3, h, w) as bytes, {what each cost}) of a job, in this process."""
    workflow, pictures = build(job)
    torch.set_num_threads(1)  # the sum of many numbers depends on how it is shared out
    # What a strategy brings, such as a weak model, is not kept: the host warns of models that outlive their patches.
    results = {number: (loaded if number in job.setup.template else loaded.__wrapped__)(number, json.dumps(node))
               for number, node in workflow.items()
               if not any(isinstance(value, list) for value in node["inputs"].values())}
    ROWS.clear()
    start = time.process_time()  # unlike the wall, it does not count what else the machine was doing
    images = torch.cat([evaluate(workflow, source, known(), results)[slot]
                        for source, slot in (workflow[number]["inputs"]["images"] for number in pictures)])
    return as_bytes(images), {"seconds": (time.process_time() - start) / len(images), "rows": sum(ROWS) / len(images)}


def counted(output):
    """A model that notes the rows of each of its calls; anything else as it is."""
    if not isinstance(output, ModelPatcher):
        return output

    def note(executor, x, *args, **kwargs):
        ROWS.append(len(x))
        return executor(x, *args, **kwargs)

    model = output.clone()
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "pareto", note)
    return model


def as_bytes(images):
    """IMAGE (n, h, w, 3) in 0..1 as (n, 3, h, w) in 0..255, rounded as SaveImage does."""
    return (255.0 * images.cpu()).clamp(0, 255).to(torch.uint8).movedim(-1, 1)


def judged(job, pictures, costs={}):
    """What is kept of a job's pictures: score, features and share of clipped values of each, and what each cost if known."""
    prompts = [prompt for prompt in job.setup.prompts for _ in range(job.setup.each)]
    pictures = pictures.contiguous()  # the last digits of a convolution depend on the order in memory
    scores, features = scorer(job.setup.scorer)(pictures.float() / 255, prompts)
    clipped = ((pictures == 0) | (pictures == 255)).flatten(1).float().mean(1)
    result = {"score": scores, "features": features, "clipped": clipped, "seconds": np.nan, "rows": np.nan, **costs}
    return {name: np.asarray(value, np.float32) for name, value in result.items()}


def compute(job):
    return judged(job, *draw(job))


# ---------------------------------------------------------------------------------------------- what is kept

class Store:
    """Results by name, as a file each, which is there whole or not at all."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, name):
        return self.folder / f"{name}.npz"

    def __contains__(self, name):
        return self.path(name).is_file()

    def save(self, name, values):
        part = self.folder / f"{name}.{os.getpid()}.part"
        with open(part, "wb") as file:
            np.savez(file, **values)
        part.replace(self.path(name))

    def load(self, jobs):
        """One dict for all the jobs, in their order; of costs the mean."""
        results = [dict(np.load(self.path(job.name))) for job in jobs]
        joined = {name: np.concatenate([result[name] for result in results]) for name in ("score", "features", "clipped")}
        return {**joined, **{name: float(np.mean([result[name] for result in results])) for name in ("seconds", "rows")}}
