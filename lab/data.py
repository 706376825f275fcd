"""Procedural coloured shapes with captions: the whole training set of the demo model, one image at a time.

`a <small|big> <color> <shape> on <background>`, 32x32 pixels. Colours vary a lot in hue, saturation and
brightness but hardly ever clip, so that over-saturation of a guided sample is both visible and measurable.
Training captions are wrong on purpose now and then (`noisy_tokens`): a model that fits them at scale 1 is unsure
about every word, which is what makes guidance matter.
"""
import torch

from ..nodes.demo.judge import CHOICES, PIXELS, Scenes
from ..nodes.demo.text import BOS, COLORS, LENGTH, PAD, WORDS

# Middle hue and its jitter in degrees; white and black have none, see `_paint`.
HUES = {
    "red": (357, 8), "orange": (27, 6), "yellow": (54, 6), "green": (125, 18), "blue": (218, 14), "purple": (280, 12),
}


def draw_scenes(n: int, rng: torch.Generator) -> Scenes:
    """n independent uniform scenes; the background never has the colour of the shape."""
    size, color, shape = (torch.randint(len(words), (n,), generator=rng) for words in CHOICES[:3])
    step = torch.randint(1, len(COLORS), (n,), generator=rng)
    return Scenes(size, color, shape, (color + step) % len(COLORS))


def caption(scenes: Scenes, i: int) -> str:
    """The true caption of scene i."""
    size, color, shape, background = (words[int(index[i])] for words, index in zip(CHOICES, scenes))
    return f"a {size} {color} {shape} on {background}"


def noisy_tokens(scenes: Scenes, rng: torch.Generator, wrong=0.15, missing=0.1) -> torch.Tensor:
    """Training captions as tokens (n, LENGTH): each attribute is wrong or missing independently of the others."""
    n = len(scenes.size)
    chance = lambda p: torch.rand(n, generator=rng) < p
    words, keep = [], []
    for choices, truth in zip(CHOICES, scenes):
        other = (truth + torch.randint(1, len(choices), (n,), generator=rng)) % len(choices)
        ids = torch.tensor([WORDS.index(word) for word in choices])
        words.append(ids[torch.where(chance(wrong), other, truth)])
        keep.append(~chance(missing))
    said = lambda word: torch.full((n,), WORDS.index(word))
    # "on" goes with the background; a missing "a" teaches that the article means nothing.
    words = torch.stack([said("a"), words[0], words[1], words[2], said("on"), words[3]], 1)
    keep = torch.stack([~chance(missing), keep[0], keep[1], keep[2], keep[3], keep[3]], 1)
    order = torch.sort((~keep).int(), dim=1, stable=True).indices
    words = words.masked_fill(~keep, PAD).gather(1, order)
    tokens = torch.full((n, LENGTH), PAD)
    tokens[:, 0] = BOS
    tokens[:, 1:1 + words.shape[1]] = words
    return tokens


def render(scenes: Scenes, rng: torch.Generator) -> torch.Tensor:
    """Images of the scenes, (n, 3, PIXELS, PIXELS) in 0..1. Position, angle, colours, light and grain are random."""
    n = len(scenes.size)
    uniform = lambda low, high: low + (high - low) * torch.rand(n, 1, 1, generator=rng)
    radius = torch.where(scenes.size.view(n, 1, 1) == 0, uniform(.15, .2), uniform(.27, .35))
    margin = radius + .03
    grid = (torch.arange(PIXELS) + .5) / PIXELS
    x = grid.view(1, 1, -1) - (margin + (1 - 2 * margin) * uniform(0, 1))
    y = grid.view(1, -1, 1) - (margin + (1 - 2 * margin) * uniform(0, 1))
    angle = uniform(-.2, .2)
    x, y = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    distance = _distances(x / radius, y / radius)[scenes.shape, torch.arange(n)] * radius
    inside = (.5 - distance * PIXELS).clamp(0, 1).unsqueeze(1)  # one pixel wide edge

    def lit(color, strength):
        direction = uniform(0, 2 * torch.pi)
        ramp = (grid.view(1, 1, -1) - .5) * direction.cos() + (grid.view(1, -1, 1) - .5) * direction.sin()
        return _paint(color, rng).view(n, 3, 1, 1) * (1 + uniform(0, strength) * ramp).unsqueeze(1)

    image = torch.lerp(lit(scenes.background, .25), lit(scenes.color, .4), inside)
    grain = torch.randn(image.shape, generator=rng) * uniform(0, .02).unsqueeze(1)
    return (image + grain).clamp(0, 1)


def _distances(x, y):
    """Signed distances (6, n, H, W), negative inside, of the SHAPES in order, all of radius about 1."""
    r = (x * x + y * y).sqrt()
    ax, ay = x.abs(), y.abs()
    circle = r - .95
    square = torch.maximum(ax, ay) - .82
    triangle = torch.maximum(.866 * ax - .5 * y, y) - .55  # top at y = -1.1: image rows grow downwards
    cross = torch.minimum(torch.maximum(ax - .95, ay - .3), torch.maximum(ay - .95, ax - .3))
    ring = (r - .7).abs() - .25
    # Star: fold the plane onto half a spike, whose edge is the line from the tip (1.1, 0) to the notch.
    fold = 2 * torch.pi / 5
    turn = torch.atan2(x, -y)
    turn = (turn - fold * (turn / fold).round()).abs()
    tip, notch = 1.1, torch.tensor(torch.pi / 5)
    edge = .46 * torch.stack([notch.cos(), notch.sin()]) - torch.tensor([tip, 0.])
    star = ((r * turn.cos() - tip) * -edge[1] + r * turn.sin() * edge[0]) / -edge.norm()
    return torch.stack([circle, square, triangle, cross, ring, star])


def _paint(color, rng):
    """One RGB (n, 3) per colour index, varied the way paint varies."""
    n = len(color)
    uniform = lambda low, high: low + (high - low) * torch.rand(n, generator=rng)
    hue, jitter = (torch.tensor([float(HUES.get(name, (0, 180))[i]) for name in COLORS])[color] for i in (0, 1))
    hue = (hue + jitter * uniform(-1, 1)) % 360 / 60
    white, black = color == COLORS.index("white"), color == COLORS.index("black")
    saturation = uniform(.5, .88)
    saturation = torch.where(white, uniform(0, .08), torch.where(black, uniform(0, .3), saturation))
    value = uniform(.5, .88)
    value = torch.where(white, uniform(.76, .88), torch.where(black, uniform(.05, .18), value))
    k = (torch.tensor([5., 3., 1.]) + hue.unsqueeze(1)) % 6  # HSV to RGB, one channel per k
    return value.unsqueeze(1) * (1 - saturation.unsqueeze(1) * torch.minimum(k, 4 - k).clamp(0, 1))
