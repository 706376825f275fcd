"""Real images: what the pictures of a point are compared with."""
import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from .. import data
from .jobs import as_bytes
from .measures import Real
from .scorers import DEMO, scorer

SEEDS = {"prompts": 5, "real": 77, "beside": 78}
MANY = 5000  # real images, for their mean and covariance


def drawn_scenes(count):
    """Scenes of the demo model's prompts."""
    return data.draw_scenes(count, torch.Generator().manual_seed(SEEDS["prompts"]))


def real_images(args, setup, store):
    """(Real, or None where there are no real images; what is measured on other real images, for the floor)"""
    if args.real is not None:
        return from_folder(args.real, setup), None
    if args.scorer != DEMO or args.workflow:
        return None, None
    settings = [setup.prompts, setup.each, setup.scorer, setup.version, SEEDS, MANY]
    name = f"real-{hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:32]}"
    if name not in store:
        store.save(name, drawn_images(setup))
    kept = np.load(store.path(name))
    features = {name: torch.from_numpy(kept[name]) for name in ("many", "among")}
    return reference(features["many"], features["among"]), {name: kept[name] for name in ("score", "features", "clipped")}


def reference(many, among):
    many = many.double()
    return Real(many.mean(0), many.T.cov(), among.double())


def drawn_images(setup):
    """Features of many real images and of as many as a point has, and what is measured on as many others."""
    score = scorer(setup.scorer)
    scenes = drawn_scenes(len(setup.prompts))
    repeated = type(scenes)(*(index.repeat_interleave(setup.each) for index in scenes))

    def seen(scenes, rng):
        pictures = as_bytes(data.render(scenes, rng).movedim(1, -1))
        parts = [score(part.float() / 255, [data.caption(scenes, i) for i in numbers]) for part, numbers in
                 zip(pictures.split(256), torch.arange(len(pictures)).split(256))]
        return pictures, *(torch.cat(values) for values in zip(*parts))

    rng, other = (torch.Generator().manual_seed(SEEDS[name]) for name in ("real", "beside"))
    many = seen(data.draw_scenes(MANY, rng), rng)[2]
    among = seen(repeated, rng)[2]
    pictures, scores, features = seen(repeated, other)
    clipped = ((pictures == 0) | (pictures == 255)).flatten(1).float().mean(1)
    return {"many": many.numpy(), "among": among.numpy(), "score": scores.numpy(), "features": features.numpy(),
            "clipped": clipped.numpy()}


def from_folder(folder, setup):
    """Features of the images in a folder, of whatever size the scorer takes."""
    files = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"))
    prompts = len(setup.prompts)
    if len(files) < prompts:
        raise ValueError(f"{folder} has {len(files)} images; there have to be as many as prompts, {prompts}.")
    score, features = scorer(setup.scorer), []
    for path in tqdm(files, "real images", leave=False):
        picture = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).movedim(-1, 0)[None]
        features.append(torch.as_tensor(score(picture.float() / 255, [""])[1]))
    features = torch.cat(features)
    return reference(features, features[:min(len(files) // prompts, setup.each) * prompts])
