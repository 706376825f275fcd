"""`python dev.py lab dropout`: what losing captions in training does to a LoRA, trained by ComfyUI's own node.

The LoRA learns faded pictures, of half the contrast. Each setting takes as many of them in as many steps. Measured are the
error of what it predicts of pictures that it has not seen, with their captions and without, and what it samples at two scales.
"""
import inspect

import comfy.samplers
import comfy.utils
import torch
from comfy_extras.nodes_train import LoraModelLoader, TrainLoraNode

from ..nodes.demo import judge
from ..nodes.demo.model import load
from ..nodes.training import TrainingDropout
from . import data, metrics
from .sweep import CHUNK, encode, sample

SETTINGS = {  # the host's batch size, and the probability of dropout
    "no dropout, ComfyUI's own batch of 4": (4, 0.0),
    "no dropout": (1, 0.0),
    "0.1": (1, 0.1), "0.3": (1, 0.3),
}
PER_STEP = 4  # pictures; those that are no batch are accumulated
SIGMAS = (0.5, 1.0, 2.0, 5.0, 10.0)
SCALES = (3, 6)


def faded(n, seed):
    """n pictures (n, 3, 32, 32) in 0..1 of half the contrast, and their scenes."""
    pictures, scenes = metrics.real(n, seed)
    return (pictures + 0.5) / 2, scenes


def share_faded(pictures):
    """The share of pixels within what faded pictures have."""
    return (pictures.sub(0.5).abs() < 0.26).float().mean().item()


def captions(scenes):
    return [data.caption(scenes, i) for i in range(len(scenes.size))]


def train(loaded, batch, probability, steps, pictures=256, seed=0):
    """The model with a LoRA that TrainLoraNode has made in so many steps of PER_STEP pictures."""
    model, clip, _ = loaded
    shown, scenes = faded(pictures, 21)
    if probability:
        model = TrainingDropout.execute(model=model, probability=probability, seed=seed, null=encode(clip, [""])).result[0]
    settings = {
        "batch_size": batch, "grad_accumulation_steps": PER_STEP // batch, "steps": steps, "learning_rate": 1e-3, "rank": 8,
        "optimizer": "AdamW", "loss_function": "MSE", "seed": seed, "training_dtype": "fp32", "lora_dtype": "fp32",
        "quantized_backward": False, "algorithm": "LoRA", "gradient_checkpointing": False, "checkpoint_depth": 1,
        "offloading": False, "existing_lora": "[None]", "bucket_mode": False, "bypass_mode": False,
    }
    taken = inspect.signature(TrainLoraNode.execute).parameters  # older hosts take fewer
    torch.manual_seed(seed)
    lora = TrainLoraNode.execute(
        model=[model], latents=[{"samples": shown * 2 - 1}], positive=[[encode(clip, [text])[0] for text in captions(scenes)]],
        **{name: [value] for name, value in settings.items() if name in taken}).result[0]
    return LoraModelLoader.execute(loaded[0], lora, 1.0).result[0]


def error(model, clip, with_captions, n=128):
    """Mean squared error of what is predicted of unseen faded pictures, over the noise levels of SIGMAS."""
    shown, scenes = faded(n, 22)
    latents, errors = shown * 2 - 1, []
    prompt = encode(clip, captions(scenes) if with_captions else [""] * n)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(23))
    for sigma in SIGMAS:
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(prompt, prompt)  # and its scale is 1
        seen = guider.sample(noise, latents, comfy.samplers.sampler_object("euler"), torch.tensor([sigma, 0.0]),
                             disable_pbar=True)
        errors.append((seen - latents).square().mean().item())
    return sum(errors) / len(errors)


def report(steps=150, n=128, seed=5):
    """Print a Markdown table, a row as soon as it is known."""
    comfy.utils.set_progress_bar_enabled(False)
    loaded, jury = load("v"), judge.load()
    _, clip, vae = loaded
    reference = metrics.moments(torch.cat([jury.features(part) for part in faded(5000, 77)[0].split(500)]))
    shown, scenes = faded(n, seed)
    prompts, scores = captions(scenes), metrics.score(shown, scenes, jury, reference)
    print("| dropout | cfg | faded | core3 | Frechet | error with caption | error without |\n|" + "---|" * 7)
    print(f"| real pictures | | {share_faded(shown):.3f} | {scores['core3']:.3f} | {scores['frechet']:.2f} | | |", flush=True)
    for name in [None, *SETTINGS]:
        model = train(loaded, *SETTINGS[name], steps) if name else loaded[0]
        errors = " | ".join(f"{error(model, clip, captioned):.4f}" for captioned in (True, False))
        for cfg in SCALES:
            images = torch.cat([sample(model, clip, vae, prompts[i:i + CHUNK], cfg, seed + i) for i in range(0, n, CHUNK)])
            scores = metrics.score(images, scenes, jury, reference)
            print(f"| {name or 'no LoRA'} | {cfg} | {share_faded(images):.3f} | {scores['core3']:.3f} "
                  f"| {scores['frechet']:.2f} | {errors} |", flush=True)
