"""A job: a few prompts' pictures at one point, as a workflow that any ComfyUI runs, and what was measured on them.

A job's name is a hash of all that its result depends on, so a result that is there need not be computed again.
"""
import copy
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

from ..demo import classes, defaults, evaluate
from .grid import Point
from .scorers import scorer

PACK = Path(__file__).parent.parent.parent
PER_JOB = 16  # prompts
SAMPLER, PICTURES = "KSampler", ("SaveImage", "PreviewImage")


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


# ---------------------------------------------------------------------------------------------- its workflow

def build(job):
    """(API workflow, the numbers of its picture nodes in the order of the prompts)"""
    setup, point, template = job.setup, job.point, job.setup.template
    sampler = the_one(template, "KSampler", lambda node: node["class_type"] == SAMPLER)
    last = the_one(template, "SaveImage or PreviewImage", lambda node: node["class_type"] in PICTURES)
    wire = template[sampler]["inputs"]
    text = wire["positive"][0]
    if not isinstance(template[text]["inputs"].get("text"), str):
        raise ValueError(f"The prompt of the workflow's KSampler comes from {template[text]['class_type']}; it has to come "
                         "from a node with a text.")
    repeated = [text, *after(template, sampler)]  # for each prompt
    workflow = {number: copy.deepcopy(node) for number, node in template.items() if number not in repeated}
    workflow[wire["latent_image"][0]]["inputs"]["batch_size"] = setup.each
    model = wire["model"]
    if point.node:
        inputs = {**defaults(information(point.node)), **brought(workflow, point.node, wire), "model": model, **point.inputs}
        model = add(workflow, point.node, inputs)
    pictures = []
    for i, prompt in enumerate(setup.prompts, job.first):
        renamed = {number: f"{number}-{i}" for number in repeated}
        for number in repeated:
            node = workflow[renamed[number]] = copy.deepcopy(template[number])
            for name, value in node["inputs"].items():
                if isinstance(value, list) and value[0] in renamed:
                    node["inputs"][name] = [renamed[value[0]], value[1]]
        workflow[renamed[text]]["inputs"]["text"] = prompt
        workflow[renamed[sampler]]["inputs"].update(model=model, cfg=point.cfg, seed=setup.seed + i, steps=setup.steps)
        shown = workflow[renamed[last]]
        shown.update(class_type="PreviewImage", inputs={"images": shown["inputs"]["images"]})  # which leaves no file behind
        pictures.append(renamed[last])
    return workflow, pictures


def the_one(template, name, fits):
    found = [number for number, node in template.items() if fits(node)]
    if len(found) != 1:
        raise ValueError(f"The workflow has {len(found)} nodes {name}; it has to have one.")
    return found[0]


def after(template, number):
    """The node and all that follow from it."""
    found = [number]
    for source in found:
        found += [other for other, node in template.items() if other not in found and any(
            isinstance(value, list) and value[0] == source for value in node["inputs"].values())]
    return found


def brought(workflow, node, wire):
    """What a strategy takes beside the model: an empty negative, or a model made worse."""
    takes = information(node)["input"].get("required", {})
    if "negative" in takes:
        return {"negative": wire["negative"]}
    if "weak_model" in takes:
        model = wire["model"]
        source = workflow[model[0]]
        if source["class_type"] == "GuidanceDemoModel":  # which cannot be loaded from a file again
            model = add(workflow, "GuidanceDemoModel", {"prediction": "v"})
        shrunk = {**defaults(information("PatchModelAddDownscale")), "downscale_method": "bicubic",
                  "upscale_method": "bicubic", "model": model}
        return {"weak_model": add(workflow, "PatchModelAddDownscale", shrunk)}
    return {}


def add(workflow, kind, inputs):
    """The link of a new node's first output."""
    number = f"added-{len(workflow)}"
    workflow[number] = {"class_type": kind, "inputs": inputs}
    return [number, 0]


# ---------------------------------------------------------------------------------------------- in this process

@lru_cache(1)
def known():
    from comfy_extras.nodes_model_downscale import PatchModelAddDownscale
    return {**classes(), "PatchModelAddDownscale": PatchModelAddDownscale}


@lru_cache
def information(node):
    kind = known()[node]
    return kind.GET_NODE_INFO_V1()


@lru_cache(8)
def loaded(number, node):
    """The outputs of a node without links, such as a model's: they are the same for every job."""
    return evaluate({number: json.loads(node)}, number, known(), {})


def draw(job):
    """(pictures (n, 3, h, w) as bytes, {what each cost}) of a job, in this process."""
    workflow, pictures = build(job)
    torch.set_num_threads(1)  # the sum of many numbers depends on how it is shared out
    rows: list[int] = []
    results = {number: [counted(output, rows) for output in loaded(number, json.dumps(node))]
               for number, node in workflow.items()
               if not any(isinstance(value, list) for value in node["inputs"].values())}
    start = time.process_time()  # unlike the wall, it does not count what else the machine was doing
    images = torch.cat([evaluate(workflow, source, known(), results)[slot]
                        for source, slot in (workflow[number]["inputs"]["images"] for number in pictures)])
    return as_bytes(images), {"seconds": (time.process_time() - start) / len(images), "rows": sum(rows) / len(images)}


def counted(output, rows):
    """A model that notes the rows of each of its calls; anything else as it is."""
    if not isinstance(output, ModelPatcher):
        return output

    def note(executor, x, *args, **kwargs):
        rows.append(len(x))
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
    scores, features = scorer(job.setup.scorer)(pictures.float() / 255, prompts)
    clipped = ((pictures == 0) | (pictures == 255)).flatten(1).float().mean(1)
    result = {"score": scores, "features": features, "clipped": clipped, "seconds": np.nan, "rows": np.nan, **costs}
    return {name: np.asarray(value, np.float32) for name, value in result.items()}


def compute(job):
    return judged(job, *draw(job))


# ---------------------------------------------------------------------------------------------- what is kept

class Store:
    """Results of jobs, as a file each, which is there whole or not at all."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, job):
        return self.folder / f"{job.name}.npz"

    def __contains__(self, job):
        return self.path(job).is_file()

    def save(self, job, result):
        part = self.folder / f"{job.name}.{os.getpid()}.part"
        with open(part, "wb") as file:
            np.savez(file, **result)
        part.replace(self.path(job))

    def load(self, jobs):
        """One dict for all the jobs, in their order; of costs the mean."""
        results = [dict(np.load(self.path(job))) for job in jobs]
        joined = {name: np.concatenate([result[name] for result in results]) for name in ("score", "features", "clipped")}
        return {**joined, **{name: float(np.mean([result[name] for result in results])) for name in ("seconds", "rows")}}
