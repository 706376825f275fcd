"""The registry's icon and banner: noise on its way to pictures, without the prompt (grey) and guided (gold), exactly."""

from pathlib import Path

import torch
from PIL import Image, ImageChops, ImageDraw

from ..guidance.space import FLOW
from ..nodes.letters import letters
from .mixture.exact import Mixture

FOLDER = Path(__file__).parent / "pictures"
FINE = 4  # pixels drawn for each one kept
PAPER, GREY, GOLD, SILVER, WHITE = "#12151d", "#5d6b85", "#ffb938", "#a9b4c6", "#f4f6fa"
CFG, STEPS = 2.0, 160
TALL = 2.2  # how far the picture reaches to both sides of the middle

# Where pictures lie on the line, and the class of each. The prompt asks for class 0.
MODES = Mixture(means=torch.tensor([[1.2], [0.0], [-1.2]]), weights=torch.full((3,), 1 / 3), classes=torch.tensor([0, 1, 1]),
                variance=torch.tensor([0.16**2]))


def paths(noise, scale):
    """From each noise (n,) to a picture, (STEPS + 1, n)."""
    x, seen, sigmas = noise[:, None], [noise], torch.linspace(1, 0, STEPS + 1)
    for sigma, after in zip(sigmas, sigmas[1:]):
        cond, uncond = (MODES.denoised(x, sigma, FLOW, prompt) for prompt in (MODES.only(0), None))
        x = x + (after - sigma) * (x - (uncond + scale * (cond - uncond))) / sigma
        seen.append(x[:, 0])
    return torch.stack(seen)


def drawn(size, lines, width, left, right):
    """The paths of so many noises on a picture of that size, from left to right (shares of its width), fading in."""
    across, tall = (FINE * side for side in size)
    image = Image.new("RGB", (across, tall), PAPER)
    noise = torch.distributions.Normal(0, 1).icdf((torch.arange(lines) + 0.5) / lines)
    at = torch.linspace(left, right, STEPS + 1) * across
    fade = Image.linear_gradient("L").rotate(90).point(lambda level: 50 + level * 205 // 255).resize((across, tall))
    for scale, color in ((0, GREY), (CFG, GOLD)):
        for path in paths(noise, scale).T:
            mask = Image.new("L", (across, tall))
            pen, points = ImageDraw.Draw(mask), [(float(x), float((1 - y / TALL) / 2 * tall)) for x, y in zip(at, path)]
            pen.line(points, fill=255, width=width * FINE)
            for point in points:  # which rounds the corners and the ends
                pen.circle(point, width * FINE / 2 - 0.5, fill=255)
            image.paste(color, mask=ImageChops.multiply(mask, fade))
    return image.resize(size, Image.Resampling.LANCZOS)


def icon():
    return drawn((400, 400), 5, 11, 0.12, 0.88)


def banner():
    image = drawn((1260, 540), 26, 2, 0.42, 0.97)
    pen = ImageDraw.Draw(image)
    pen.text((70, 180), "Guidance", WHITE, letters(92))
    pen.text((74, 300), "Strategies that chain\non the MODEL wire", SILVER, letters(30), spacing=10)
    return image


def write():
    FOLDER.mkdir(exist_ok=True)
    for name, picture in (("icon", icon()), ("banner", banner())):
        picture.quantize(256, dither=Image.Dither.NONE).save(FOLDER / f"{name}.png", optimize=True)
