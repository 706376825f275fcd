"""Scorers: functions from pictures (n, 3, h, w) in 0..1 and their n prompts to (scores (n,), features (n, d)).

A score says how well a picture shows its prompt, features say what it looks like. "demo" is the bundled model's judge; any
other name is a Python file with a function `score`.
"""
import hashlib
import runpy
from functools import lru_cache
from pathlib import Path

import torch

from ...nodes.demo import judge
from ...nodes.demo.judge import CHOICES, Scenes

DEMO = "demo"


@lru_cache(1)
def scorer(name):
    """The function of that name; `file.py#hash`, as `named` writes it, is the file's."""
    if name == DEMO:
        return Demo()
    path = name.partition("#")[0]
    found = runpy.run_path(path).get("score")
    if not callable(found):
        raise ValueError(f"{path} has no function score(pictures, prompts).")
    return found


def named(name):
    """The name with what tells the file's versions apart, since results depend on them."""
    if name == DEMO:
        return name
    path = Path(name).resolve()
    if not path.is_file():
        raise ValueError(f"scorer is {name!r}; it has to be demo or a Python file.")
    return f"{path}#{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"


class Demo:
    """1 for a picture that shows all four things that its prompt asks for (size, colour, shape, background), else 0."""

    def __init__(self):
        self.judge = judge.load()

    @torch.no_grad()
    def __call__(self, pictures, prompts):
        seen, asked = self.judge.read(pictures), asked_for(prompts)
        right = torch.stack([one == other for one, other in zip(seen, asked)]).all(0)
        return right.float(), self.judge.features(pictures)


def asked_for(prompts):
    """The scenes that captions of the demo model's grammar describe."""
    words = [prompt.split() for prompt in prompts]
    return Scenes(*(torch.tensor([choices.index(word[place]) for word in words])
                    for choices, place in zip(CHOICES, (1, 2, 3, 5))))
