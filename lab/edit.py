"""`python dev.py lab edit`: null-text inversion. Are real pictures made again, and does a changed word change only that?

The edit is another colour of the shape. What it should look like is known exactly: the same scene drawn with that colour.
"""
import time

import comfy.samplers
import comfy.utils
import torch

from ..nodes.demo import judge
from ..nodes.demo.model import load
from ..nodes.null_text import NullText
from . import data
from .sweep import encode

SETTINGS = {  # whether the null is the empty prompt or the prompt itself, and the node's iterations and rate
    "inverted, empty null": ("empty", 0, 0.01),
    "inverted, the prompt as null": ("prompt", 0, 0.01),
    "null-text, 10 iterations": ("empty", 10, 0.01),
    "null-text, 10 iterations, rate 0.1": ("empty", 10, 0.1),
}


def drawn(n, seed):
    """n pictures as latents, the same with another colour of the shape, and the scenes of both."""
    scenes = data.draw_scenes(n, torch.Generator().manual_seed(seed))
    colors = len(judge.CHOICES.color)
    other = (scenes.color + 1) % colors
    other = torch.where(other == scenes.background, (other + 1) % colors, other)
    edited = scenes._replace(color=other)
    render = lambda scenes: data.render(scenes, torch.Generator().manual_seed(seed + 1)) * 2 - 1
    return render(scenes), render(edited), scenes, edited


def sampled(model, positive, negative, cfg, noise, latent, sigmas):
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    return guider.sample(noise, latent, comfy.samplers.sampler_object("euler"), sigmas, disable_pbar=True, seed=0)


def report(n=24, steps=16, cfg=3.0, seed=31):
    """Print a Markdown table, a row as soon as it is known; errors are mean squares, of latents in -1..1."""
    comfy.utils.set_progress_bar_enabled(False)
    (model, clip, _), jury = load("v"), judge.load()
    pictures, wanted, scenes, edited = drawn(n, seed)
    prompt, changed = (encode(clip, [data.caption(of, i) for i in range(n)]) for of in (scenes, edited))
    nulls = {"empty": encode(clip, [""] * n), "prompt": prompt}
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", steps)
    apart = lambda a, b: f"{(a - b).square().mean().item():.4f}"

    def row(name, again, edit, taken):
        seen = jury.read((edit.clamp(-1, 1) + 1) / 2)
        kept = (seen.shape == scenes.shape) & (seen.size == scenes.size) & (seen.background == scenes.background)
        shares = [f"{hits.float().mean().item():.2f}" for hits in (seen.color == edited.color, kept)]
        print(f"| {name} | {apart(again, pictures) if again is not None else ''} | {shares[0]} | {shares[1]} "
              f"| {apart(edit, wanted)} | {taken} |", flush=True)

    print("| | error of the picture | edit: new colour | edit: all else kept | error of the edit | CPU s per picture |\n"
          + "|---" * 6 + "|")
    row("the picture, unchanged", None, pictures, "")
    fresh = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(seed))
    row("new noise", None, sampled(model, changed, nulls["empty"], cfg, fresh, torch.zeros_like(fresh), sigmas), "")
    for name, (null, iterations, rate) in SETTINGS.items():
        start = time.process_time()
        noise, learnt = NullText.execute(
            model=model, latent={"samples": pictures}, positive=prompt, negative=nulls[null], sigmas=sigmas, cfg=cfg,
            iterations=iterations, rate=rate).result
        taken = f"{(time.process_time() - start) / n:.2f}"
        start_from = noise.generate_noise({"samples": pictures})
        row(name, *(sampled(model, text, learnt, cfg, start_from, pictures, sigmas) for text in (prompt, changed)), taken)
