"""The picture: where each strategy's samples lie, on the whole mixture and the part of it that the prompt asks for."""

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ...guidance.space import EPS
from . import measure
from .model import patterns, pictures
from .runs import prompts

FINE = 3  # pixels drawn for each one kept
SIDE, GAP, TOP, COLUMNS = 150, 10, 44, 6
HALF = 5.6  # of the plane that is shown, around the middle
MARGIN, HEAD, FOOT = 14, 62, 26
INK, FAINT, PAPER = "#1c1c1c", "#666", "#ffffff"
MIXTURE, TRUTH, LINE, SAMPLE = (np.array(color) for color in ((196, 205, 216), (255, 222, 158), (190, 120, 0), (33, 74, 170)))
SHOWN = 1500  # samples in each panel


def density(prompt):
    """p(place | prompt) of the pixels of a panel, and the density around which 95 % lie inside."""
    mixture, rng = pictures(), torch.Generator().manual_seed(0)
    axis = torch.linspace(-HALF, HALF, SIDE * FINE)
    plane = torch.cartesian_prod(-axis, axis).flip(1)  # the second pattern upwards
    places = torch.cat([plane, torch.zeros(len(plane), patterns().shape[0] - 2)], 1)
    true = mixture.draw(20000, rng, prompt)
    true[:, 2:] = 0
    of = lambda x: mixture.log_density(x, measure.CLEAN, EPS, prompt)
    return of(places).view(SIDE * FINE, -1).numpy(), float(of(true).quantile(0.05))


def background():
    """A panel without samples, (pixels, pixels, 3)."""
    wanted, empty, _ = prompts()
    panel = np.full((SIDE * FINE, SIDE * FINE, 3), 255.0)
    for prompt, color in ((empty, MIXTURE), (wanted, TRUTH)):
        logs, edge = density(prompt)
        panel[logs > edge] = color
    inside = logs > edge
    near = sum(np.roll(inside, (i, j), (0, 1)).astype(int) for i in (-2, 0, 2) for j in (-2, 0, 2))
    panel[(near > 0) & (near < 9)] = LINE
    return panel


def panel(samples, empty):
    """The background with samples (n, 2 or more) on it."""
    places = ((samples[:SHOWN, :2].numpy() * [1, -1] / HALF + 1) / 2 * SIDE * FINE).round().astype(int)
    strength = np.zeros(empty.shape[:2])
    for x, y in places[((places > 1) & (places < SIDE * FINE - 2)).all(1)]:
        strength[y - 1:y + 2, x - 1:x + 2] += 0.42
    strength = strength.clip(0, 0.95)[..., None]
    drawn = empty * (1 - strength) + SAMPLE * strength
    return Image.fromarray(drawn.astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def draw(samples, notes, title, legend):
    """samples, notes: by the panel's title, in order. Returns the picture."""
    rows = -(-len(samples) // COLUMNS)
    width, height = 2 * MARGIN + COLUMNS * (SIDE + GAP) - GAP, HEAD + rows * (SIDE + TOP) + FOOT
    image = Image.new("RGB", (width, height), PAPER)
    pen, big, small = ImageDraw.Draw(image), ImageFont.load_default(15), ImageFont.load_default(11)
    pen.text((MARGIN, 10), title, INK, ImageFont.load_default(18))
    empty = background()
    for i, (name, points) in enumerate(samples.items()):
        x, y = MARGIN + i % COLUMNS * (SIDE + GAP), HEAD + i // COLUMNS * (SIDE + TOP)
        pen.text((x, y - 20), name, INK, big)
        image.paste(panel(points, empty), (x, y))
        pen.rectangle((x, y, x + SIDE - 1, y + SIDE - 1), outline="#bbb")
        pen.text((x, y + SIDE + 3), notes[name], FAINT, small)
    y, x = height - 24, MARGIN
    for color, text in zip((MIXTURE, TRUTH, SAMPLE), legend):
        pen.rectangle((x, y, x + 12, y + 12), fill=tuple(color))
        pen.text((x + 18, y), text, INK, small)
        x += 34 + pen.textlength(text, small)
    return image
