"""The workflow of a job, in API format: a strategy on the MODEL wire of a template, and a sampler for each prompt."""
import copy
from functools import lru_cache

from ..demo import classes, defaults

SAMPLER, PICTURES = "KSampler", ("SaveImage", "PreviewImage")


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
            model = add(workflow, "GuidanceDemoModel", dict(source["inputs"]))
        shrunk = {**defaults(information("PatchModelAddDownscale")), "downscale_method": "bicubic",
                  "upscale_method": "bicubic", "model": model}
        return {"weak_model": add(workflow, "PatchModelAddDownscale", shrunk)}
    return {}


def add(workflow, kind, inputs):
    """The link of a new node's first output."""
    number = f"added-{len(workflow)}"
    workflow[number] = {"class_type": kind, "inputs": inputs}
    return [number, 0]


@lru_cache(1)
def known():
    from comfy_extras.nodes_model_downscale import PatchModelAddDownscale
    return {**classes(), "PatchModelAddDownscale": PatchModelAddDownscale}


@lru_cache
def information(node):
    kind = known()[node]
    return kind.GET_NODE_INFO_V1()
