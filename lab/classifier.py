"""`python dev.py lab classifier`: guidance by a classifier of noisy pictures, as before CFG, against CFG on the same model.

The model samples without a prompt, and the gradient of log p(y | x) is all that tells it what to show; or with the prompt, as
in the paper's best results. It is measured by the judge, which has other weights and has only seen clean pictures.
"""
import time

import comfy.utils
import torch

from ..nodes.demo import judge
from ..nodes.demo.classifier import load_judge, load_noisy_judge
from ..nodes.demo.model import load
from ..nodes.other_models import Classifier
from . import data, metrics
from .sweep import CHUNK, sample

SETTINGS = [
    *(("CFG", scale) for scale in (1, 2, 3, 6)), *(("classifier of x", scale) for scale in (1.0, 3.0, 10.0, 30.0)),
    ("the judge at x0", 10.0), *(("classifier of x, and the prompt at cfg 1", scale) for scale in (1.0, 3.0, 10.0)),
]


def likelihood(scenes, noisy):
    """log p of everything that each sample should show, as Classifier guidance takes it."""
    def of(latents, sigma):
        if noisy:
            rows = load_noisy_judge()(latents, latents.new_full((len(latents),), sigma))
        else:
            rows, _ = load_judge()((latents + 1) / 2)
        return sum(row.log_softmax(1).gather(1, truth.view(-1, 1)).squeeze(1) for row, truth in zip(rows, scenes))

    return of


def images_of(loaded, scenes, how, scale, seed):
    """Images of scenes, a chunk at a time."""
    model, clip, vae = loaded
    made = []
    for i in range(0, len(scenes.size), CHUNK):
        part = judge.Scenes(*(index[i:i + CHUNK] for index in scenes))
        prompts = [data.caption(part, j) for j in range(len(part.size))]
        if how == "CFG":
            made.append(sample(model, clip, vae, prompts, scale, seed + i))
            continue
        noisy = how.startswith("classifier of x")
        guided, = Classifier.execute(
            model, classifier=likelihood(part, noisy), scale=scale, where="x" if noisy else "x0").result
        made.append(sample(guided, clip, vae, prompts if "prompt" in how else [""] * len(prompts), 1, seed + i))
    return torch.cat(made)


def report(n=128, seed=5):
    """Print a Markdown table, a row as soon as it is known."""
    comfy.utils.set_progress_bar_enabled(False)
    loaded, jury = load("v"), judge.load()
    reference, scenes = metrics.reference(jury), metrics.real(n, seed)[1]
    print("| | scale | core3 | joint4 | Frechet | CPU ms per image |\n" + "|---" * 6 + "|")
    for how, scale in SETTINGS:
        start = time.process_time()
        images = images_of(loaded, scenes, how, scale, seed)
        taken = 1000 * (time.process_time() - start) / n
        scores = metrics.score(images, scenes, jury, reference)
        print(f"| {how} | {scale:g} | {scores['core3']:.3f} | {scores['joint4']:.3f} | {scores['frechet']:.2f} | {taken:.0f} |",
              flush=True)
