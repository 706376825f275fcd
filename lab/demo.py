"""What each strategy does to the bundled model, through a running ComfyUI: `python dev.py demo`.

The same workflow is posted for every strategy and prompt, with the same seeds; only what lies on the MODEL
wire, and the sampler's cfg, differ. SaveImage writes the images: each opens in ComfyUI as its own workflow.
"""
import asyncio
import copy
import json
import runpy
import sys
import time
import uuid
from pathlib import Path
from typing import NamedTuple

import aiohttp
import numpy as np
from PIL import Image

WORKFLOW = Path(__file__).parent.parent / "example_workflows" / "api" / "demo.json"
MODEL, PROMPT, LATENT, SAMPLER, SAVE = "1", "2", "4", "5", "7"  # its nodes
STRATEGY, NEGATIVE = "10", "11"  # and those that are added to it

PROMPTS = [
    "a big red circle on blue", "a small yellow star on purple", "a big green triangle on white",
    "a small white ring on red", "a big purple cross on yellow", "a small orange square on black",
    "a big blue star on orange", "a small black circle on green",
]
OPEN = "a big circle on white"  # its colour is left to the model, so that a negative has something to decide
SHOWN = [*PROMPTS, OPEN]


class Column(NamedTuple):
    """A strategy: its node on the MODEL wire, inputs that are not at their defaults, the sampler's cfg. negative: whether
    there is one, for the node if it takes one, else for the sampler."""
    title: str
    cfg: float
    node: str = ""
    inputs: dict = {}
    negative: bool = False

    @property
    def settings(self):
        inputs = [f"{name} {value}" for name, value in self.inputs.items()]
        return ", ".join([f"cfg {self.cfg:g}", *filter(None, [self.node]), *inputs])


COLUMNS = [
    Column("off", 1),
    Column("CFG 3", 3),
    Column("CFG 8", 8),
    Column("CFG++", 8, "GuidanceCFGPlusPlus", {"strength": 0.6}),
    Column("Perp-CFG", 8, "GuidancePerpCFG"),
    Column("threshold", 8, "GuidanceDynamicThreshold", {"percentile": 0.95}),
    Column("PAG", 1, "GuidancePAG", {"scale": 1.0, "layers": "middle, output"}),
    Column("interval", 8, "GuidanceCFG", {"start": 0.1, "end": 0.7}),
    Column("curve", 8, "GuidanceCFG", {"scale": "0:2, 0.5:8, 1:1"}),
    Column("negative", 3, "GuidanceNegative", {"mode": "perp-neg", "weight": 1.0}, True),
    Column("neg., cfg 1", 1, negative=True),
    Column("NAG, cfg 1", 1, "GuidanceNAG", {"alpha": 0.5}, True),
]


def unwanted(prompt):
    """A negative prompt: what the model makes of the open one, or the shape that one gone wrong looks most like."""
    if prompt == OPEN:
        return "a green circle"
    return "a square" if "circle" in prompt else "a circle"


def defaults(info):
    """{input: default} of a node, from what /object_info says of it."""
    inputs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
    return {name: more[0]["default"] for name, (_, *more) in inputs.items() if more and "default" in more[0]}


def build(column, prompt, seed, info):
    """The API-format workflow of one cell. info: what the host says of its nodes at /object_info."""
    workflow = json.loads(WORKFLOW.read_text())
    workflow[PROMPT]["inputs"]["text"] = prompt
    workflow[SAMPLER]["inputs"].update(cfg=column.cfg, seed=seed)
    if column.node:
        inputs = {**defaults(info[column.node]), "model": [MODEL, 0], **column.inputs}
        workflow[STRATEGY] = {"class_type": column.node, "inputs": inputs, "_meta": {"title": column.title}}
        workflow[SAMPLER]["inputs"]["model"] = [STRATEGY, 0]
    if column.negative:
        workflow[NEGATIVE] = copy.deepcopy(workflow[PROMPT])
        workflow[NEGATIVE].update(_meta={"title": "Unwanted"})
        workflow[NEGATIVE]["inputs"]["text"] = unwanted(prompt)
        workflow[STRATEGY if column.node else SAMPLER]["inputs"]["negative"] = [NEGATIVE, 0]
    return workflow


# ---------------------------------------------------------------------------------------------- the server

class Client:
    """One HTTP session and one WebSocket on a ComfyUI server."""

    def __init__(self, session, socket, number):
        self.session, self.socket, self.number = session, socket, number

    async def object_info(self):
        async with self.session.get("/object_info") as answer:
            return await answer.json()

    async def run(self, workflow, on_step):
        """Queue a workflow and follow it; returns the files that SaveImage wrote, as bytes by name."""
        body = {"prompt": workflow, "client_id": self.number}
        async with self.session.post("/prompt", json=body) as answer:
            reply = await answer.json()
            if answer.status != 200:
                sys.exit(f"ComfyUI refused the workflow: {json.dumps(reply)}")
        saved = []
        async for message in self.socket:
            if message.type != aiohttp.WSMsgType.TEXT:
                continue  # previews
            event = json.loads(message.data)
            data = event.get("data") or {}
            if data.get("prompt_id") != reply["prompt_id"]:
                continue
            if event["type"] == "progress":
                on_step(data["value"] / data["max"])
            elif event["type"] == "executed" and data["node"] == SAVE:
                saved = data["output"]["images"]
            elif event["type"] == "execution_error":
                sys.exit(f"the workflow failed in {data['node_type']}: {data['exception_message'].strip()}")
            elif event["type"] == "execution_success":
                return {image["filename"]: await self.view(image) for image in saved}
        sys.exit("ComfyUI closed the connection")

    async def view(self, image):
        async with self.session.get("/view", params=image) as answer:
            return await answer.read()


class Progress:
    """A bar on a terminal; elsewhere one line for each column."""

    def __init__(self, total):
        self.total, self.done, self.label, self.live = total, 0, "loading the model", sys.stdout.isatty()

    def show(self, share):
        full = int(30 * (self.done + share) / self.total)
        if self.live:
            print(f"\r[{'#' * full}{'.' * (30 - full)}] {self.label:<50.50}", end="", flush=True)

    def line(self, text):
        print(f"\r{text:<84}" if self.live else text, flush=True)


async def draw(address, folder):
    """Make all images; returns {(column, prompt): [files]} and the seconds per image of each column."""
    number = uuid.uuid4().hex
    files, seconds, bar = {}, {}, Progress(len(COLUMNS) * len(SHOWN))
    events = f"/ws?clientId={number}"
    async with aiohttp.ClientSession(address) as session, session.ws_connect(events) as socket:
        client = Client(session, socket, number)
        info = await client.object_info()
        bar.show(0)  # the first run loads the model, which no strategy should be charged for
        await client.run(build(COLUMNS[0], PROMPTS[0], len(PROMPTS), info), lambda share: None)
        for column in COLUMNS:
            start = time.perf_counter()
            for seed, prompt in enumerate(SHOWN):
                bar.label = f"{column.title}: {prompt}"
                images = await client.run(build(column, prompt, seed, info), bar.show)
                bar.done += 1
                files[column.title, prompt] = save(images, folder / column.title, prompt)
            n = sum(len(files[column.title, prompt]) for prompt in SHOWN)
            seconds[column.title] = (time.perf_counter() - start) / n
            bar.line(f"{column.title:<10} {seconds[column.title]:.2f} s per image")
    return files, seconds, info


def save(images, folder, prompt):
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, data in enumerate(images.values()):
        paths.append(folder / f"{prompt.replace(' ', '-')}-{i + 1}.png")
        paths[-1].write_bytes(data)
    return paths


# ---------------------------------------------------------------------------------------------- measuring

def classes():
    """All nodes by id: the host's own, and this pack's."""
    import nodes
    from pack.nodes import Guidance
    own = asyncio.run(Guidance().get_node_list())
    return {**nodes.NODE_CLASS_MAPPINGS, **{node.GET_SCHEMA().node_id: node for node in own}}


def evaluate(workflow, number, known, results):
    """The outputs of one node of a workflow, run in this process after the nodes that it depends on."""
    if number not in results:
        node = workflow[number]
        kind = known[node["class_type"]]
        inputs = {
            name: evaluate(workflow, value[0], known, results)[value[1]] if isinstance(value, list) else value
            for name, value in node["inputs"].items()
        }
        # The host has two ways to write a node.
        results[number] = kind.execute(**inputs).result if hasattr(kind, "execute") \
            else getattr(kind(), kind.FUNCTION)(**inputs)
    return results[number]


def count(workflow, known):
    """(rows, calls) per step, counted on the way into the host's model while the workflow's sampler runs."""
    import comfy.utils
    from comfy.patcher_extension import WrappersMP
    comfy.utils.PROGRESS_BAR_ENABLED = False
    rows, results = [], {}

    def counter(executor, x, *args, **kwargs):
        rows.append(x.shape[0])
        return executor(x, *args, **kwargs)

    number, slot = workflow[SAMPLER]["inputs"]["model"]
    outputs = list(evaluate(workflow, number, known, results))
    outputs[slot] = outputs[slot].clone()
    outputs[slot].add_wrapper_with_key(WrappersMP.APPLY_MODEL, "demo", counter)
    results[number] = outputs
    evaluate(workflow, SAMPLER, known, results)
    steps = workflow[SAMPLER]["inputs"]["steps"]
    return sum(rows) / workflow[LATENT]["inputs"]["batch_size"] / steps, len(rows) / steps


def measure(files):
    """(share of images that show what was asked, share of burnt pixels) of each column."""
    import torch
    from pack.nodes.demo import judge
    jury, result = judge.load(), {}
    for column in COLUMNS:
        right, burnt = [], []
        for prompt in PROMPTS:
            pictures = [np.array(Image.open(path).convert("RGB")) for path in files[column.title, prompt]]
            images = torch.from_numpy(np.stack(pictures))
            seen = jury.read(images.movedim(-1, 1) / 255)
            _, _, color, shape, _, background = prompt.split()
            hits = (seen.color == judge.CHOICES.color.index(color)) & (seen.shape == judge.CHOICES.shape.index(shape)) \
                & (seen.background == judge.CHOICES.background.index(background))
            right.append(hits.float().mean().item())
            burnt.append(((images == 0) | (images == 255)).float().mean().item())
        result[column.title] = np.mean(right), np.mean(burnt)
    return result


# ---------------------------------------------------------------------------------------------- what is shown

def contact_sheet(files, notes):
    """A row for each prompt, a column for each strategy, the first seed of each."""
    from pack.nodes.sheet import Shown, sheet
    cells = [[Shown(Image.open(files[column.title, prompt][0]).convert("RGB")) for column in COLUMNS] for prompt in SHOWN]
    titles = [column.title.replace("cfg ", "cfg\N{NO-BREAK SPACE}") for column in COLUMNS]
    return sheet(cells, titles, SHOWN, [notes[column.title] for column in COLUMNS])


def table(costs, seconds, scores):
    lines = [["strategy", "settings", "rows per step", "calls per step", "seconds per image", "as asked",
              "burnt pixels"], ["---", "---", *["---:"] * 5]]
    for column in COLUMNS:
        (rows, calls), (right, burnt) = costs[column.title], scores[column.title]
        lines.append([column.title, column.settings, f"{rows:.2f}", f"{calls:.2f}",
                      f"{seconds[column.title]:.3f}", f"{right:.0%}", f"{burnt:.1%}"])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main(address, folder):
    folder = Path(folder)
    files, seconds, info = asyncio.run(draw(address, folder))
    tools = runpy.run_path(str(Path(__file__).with_name("__main__.py")))  # its way to host and pack
    tools["load_host"]()
    tools["load_pack"]()
    known = classes()
    print("Counting rows and calls on the host")
    costs = {column.title: count(build(column, PROMPTS[0], 0, info), known) for column in COLUMNS}
    scores = measure(files)
    notes = {column.title: f"cfg {column.cfg:g}\nrows: {costs[column.title][0]:.3g}\n{scores[column.title][0]:.0%} right"
             for column in COLUMNS}
    contact_sheet(files, notes).save(folder / "sheet.png")
    text = table(costs, seconds, scores)
    (folder / "table.md").write_text(text + "\n")
    print(f"\n{text}\n\nContact sheet: {folder / 'sheet.png'}\nTable: {folder / 'table.md'}\n"
          f"Images, each with its workflow inside: {folder}")


if __name__ == "__main__":
    main(*sys.argv[1:])
