"""`python dev.py lab null_chance`: how often captions should be dropped in training, and what becomes of guidance otherwise.

Six small models are trained alike but for the share of samples that lose their caption, and a seventh by superconditioning, on
exchanged captions instead. All are sampled at several scales, in two passes, and the seventh in its one. Run again, it goes on
where it was.
"""
import json
import time
from argparse import Namespace
from pathlib import Path
from tempfile import mkdtemp

import comfy.model_base
import comfy.utils
import torch
import torch.multiprocessing as processes

from ..nodes.bridge import halves
from ..nodes.demo import judge, model
from ..nodes.demo.network import ARCHITECTURE, DemoUNet
from ..nodes.other_models import SinglePass
from . import data, metrics
from .sweep import CHUNK, sample
from .train import train

CHANCES, BOTH = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0), "single pass"
SCALES = (1, 2, 4, 8)
SEED, STEPS = 5, 16
OUT = Path(__file__).parent.parent / "output" / "null_chance"
RESULTS = Path(__file__).with_name("null_chance")


def report(steps, n, minutes):
    comfy.utils.set_progress_bar_enabled(False)
    deadline = time.monotonic() + 60 * minutes
    OUT.mkdir(parents=True, exist_ok=True)
    rows = []
    for chance in (*CHANCES, BOTH):
        name = f"{chance} {steps}".replace(" ", "_")
        weights, found = OUT / f"{name}.safetensors", OUT / f"{name}_{n}.json"
        for path, make in ((weights, made), (found, measured)):
            if not path.exists() and time.monotonic() < deadline:
                part = path.with_suffix(".part")
                make(chance, steps, n, weights, part)
                part.replace(path)
        if found.exists():
            rows += json.loads(found.read_text())
    RESULTS.mkdir(exist_ok=True)
    table = markdown(rows, steps, n)
    (RESULTS / "table.md").write_text(table, encoding="utf-8")
    print(table)
    picture(rows, RESULTS)


def made(chance, steps, n, weights, out):
    """Train one of them."""
    both = chance == BOTH
    args = Namespace(minutes=0, steps=steps, decay=.4, batch=64, average=1 - 10 / max(steps, 20), processes=1, seed=0,
                     null=0.0 if both else chance, both=both, out=str(out), log=str(weights.with_suffix(".jsonl")),
                     meet=str(Path(mkdtemp()) / "meet"), command="python dev.py lab null_chance")
    processes.start_processes(train, (args,), 1, start_method="fork")


def measured(chance, steps, n, weights, out):
    torch.set_num_threads(1)
    jury, (_, scenes) = judge.load(), metrics.real(n, SEED)
    reference, prompts = metrics.reference(jury), [data.caption(scenes, i) for i in range(n)]
    kind, clip, vae = both_at_once(weights) if chance == BOTH else model.load(path=weights)
    rows = []
    for scale in SCALES:
        pictures = torch.cat([sample(kind, clip, vae, prompts[i:i + CHUNK], scale, SEED + i, STEPS)
                              for i in range(0, n, CHUNK)])
        rows.append({"chance": chance, "scale": scale, **metrics.score(pictures, scenes, jury, reference)})
    out.write_text(json.dumps(rows))


def both_at_once(path):
    """(model, clip, vae) of a demo model with twice the channels, guided in one pass."""
    weights = model.weights_of(path)
    config = model.DemoConfig({**ARCHITECTURE, "prediction": "v", "out_channels": 2 * ARCHITECTURE["out_channels"]})
    config.set_inference_dtype(torch.float32, None)
    made = comfy.model_base.BaseModel(config, comfy.model_base.ModelType.V_PREDICTION, torch.device("cpu"), DemoUNet)
    made.diffusion_model.load_state_dict(model.part(weights, "unet."))
    patcher = comfy.model_patcher.ModelPatcher(made, torch.device("cpu"), torch.device("cpu"))
    halves.install(patcher)
    return SinglePass.execute(patcher).result[0], model.load_clip(model.part(weights, "text.")), model.load_vae()


def colours(row):
    """The share of colours that are as asked. Shapes take longer to learn than these models have."""
    return (row["color"] + row["background"]) / 2


def markdown(rows, steps, n):
    lines = [f"{64 * steps} training images each, {n} pictures a cell. Share of right colours (mean of the shape's and the "
             "background's) / Frechet distance.", "",
             "| captions dropped | " + " | ".join(f"cfg {scale}" for scale in SCALES) + " |", "|---" * (1 + len(SCALES)) + "|"]
    for chance in dict.fromkeys(row["chance"] for row in rows):
        cells = [f"{colours(row):.3f} / {row['frechet']:.2f}" for row in rows if row["chance"] == chance]
        lines.append("| " + " | ".join([chance if chance == BOTH else f"{chance:g}", *cells]) + " |")
    return "\n".join(lines) + "\n"


def picture(rows, folder):
    import matplotlib
    matplotlib.use("agg")
    from matplotlib import pyplot
    with matplotlib.rc_context({"svg.hashsalt": "null_chance", "svg.fonttype": "none", "font.size": 9}):
        figure, axis = pyplot.subplots(figsize=(7, 4.6), layout="constrained")
        for i, chance in enumerate(dict.fromkeys(row["chance"] for row in rows)):
            own = [row for row in rows if row["chance"] == chance]
            colour = "black" if chance == BOTH else pyplot.get_cmap("viridis")(min(i / 5.5, 1))
            line, label = ("--", "exchanged, in one pass") if chance == BOTH else ("-", f"{chance:g}")
            axis.plot([colours(row) for row in own], [row["frechet"] for row in own], color=colour, marker="o", markersize=4,
                      linestyle=line, label=label)
            for row in own:
                axis.annotate(f"{row['scale']}", (colours(row), row["frechet"]), xytext=(4, 3), textcoords="offset points",
                              fontsize=7, color=colour)
        axis.set_yscale("log", subs=(1, 2, 5))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")
        axis.set_xlabel("share of colours that are as asked for")
        axis.set_ylabel("Frechet distance to real pictures")
        axis.set_title("Numbers beside points are the cfg", fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(title="captions dropped", frameon=False)
        figure.savefig(folder / "null_chance.png", dpi=130)
        figure.savefig(folder / "null_chance.svg", metadata={"Date": None})
        pyplot.close(figure)
