"""What table.json calls by name: values of other packs' inputs as our inputs take them."""

import re
from math import cos, pi

POINTS = 20  # straight pieces of a curve: within 0.1 % of a cosine
OPEN = 1000.0  # the highest sigma of our windows
SDXL = {"d": [4, 5, 7, 8], "m": [0], "u": [0, 1, 2, 3, 4, 5]}  # its blocks with attention, as they are counted there
PARTS = {"d": "input", "m": "middle", "u": "output"}


class Stays(Exception):
    """Why a node is left as it is: the rest of a sentence that begins with it."""


# ------------------------------------------------------------------------------------------------ layers

def blocks(double, single=""):
    """The transformer blocks of these numbers, as far as a model has them: it was no mistake to name others."""
    named = [f"{kind}.{int(number)}?" for kind, text in (("double", double), ("single", single))
             for number in re.findall(r"\d{1,6}", text)]
    if not named:
        raise Stays("it names no layer, so it does nothing")
    return ", ".join(dict.fromkeys(named))


def unet_layers(block, number, listed):
    """One block of a UNet, or those of a list such as d2.2-9,m0, which counts the blocks that have attention."""
    if not listed.strip():
        return "middle" if block == "middle" else f"{block}.{number}"
    return ", ".join(name for entry in listed.split(",") for name in entry_layers(entry.strip()))


def entry_layers(entry):
    match = re.fullmatch(r"([dmu])(\d+)(?:-(\d+))?(?:\.(\d+)(?:-(\d+))?)?", entry)
    if not match:
        raise Stays(f"its list of blocks has {entry[:40]!r}, which is no block")
    part, first, last, inner, inner_last = match.groups()
    for i in range(int(first), min(int(last or first), 99) + 1):
        if i >= len(SDXL[part]):
            raise Stays(f"its list of blocks has {entry[:40]!r}, which SDXL does not have")
        name = f"{PARTS[part]}.{SDXL[part][i]}"
        if inner is None:
            yield name
        for transformer in range(int(inner or 0), min(int(inner_last or inner or -1), 99) + 1):
            yield f"{name}.{transformer}"


def shuffled_layers(listed):
    return {"d2.2-9,d3": "auto", "": "all"}.get(listed.replace(" ", "")) or unet_layers("", 0, listed)


# ------------------------------------------------------------------------------------------------ sigmas

def is_always(start, end):
    return start < 0 and end <= 0


def sigma_start(start, end):
    if start >= 0 and start <= end:
        raise Stays("its window is empty, so it does nothing")
    return 0.0 if is_always(start, end) else OPEN if start < 0 else min(start, OPEN)


def sigma_end(start, end):
    return 1.0 if is_always(start, end) else max(end, 0.0)


def sigma_unit(start, end):
    return "percent" if is_always(start, end) else "sigma"


def blur(sigma):
    return OPEN if sigma < 0 else min(sigma, OPEN)


# ------------------------------------------------------------------------------------------------ scales over the run

def points(*pairs, how=""):
    return f"{', '.join(f'{number(at)}:{number(value)}' for at, value in pairs)}{how}"


def number(value):
    return format(value, ".6f").rstrip("0").rstrip(".")


def fading(scale, adaptive):
    """scale less a share of adaptive^4 for each of the 1000 time steps that have passed; straight in ComfyUI's percent."""
    lost = adaptive**4
    if lost == 0 or scale == 0:
        return scale
    at_start, at_end = (max(scale * (1 - lost * gone), 0.0) for gone in (1, 1000))
    if at_end > 0:
        return points((0, at_start), (1, at_end))
    ends = (1 / lost - 1) / 999
    if ends <= 0:
        raise Stays("its adaptive_scale takes all of its scale, so it does nothing")
    return points((0, at_start), (min(ends, 1), 0.0))


def over_the_run(scale, mode, least, power=1.0):
    """A mode of dynamic thresholding, from its time (999 steps) to ComfyUI's percent."""
    shares = {
        "linear down": lambda t: 1 - t, "linear up": lambda t: t,
        "cosine down": lambda t: cos(t * pi / 2), "cosine up": lambda t: 1 - cos(t * pi / 2),
        "half cosine down": cos, "half cosine up": lambda t: 1 - cos(t),
        "power up": lambda t: t**power, "power down": lambda t: 1 - t**power,
    }
    if mode.lower() == "constant":
        return scale
    if mode.lower() not in shares:
        raise Stays(f"it repeats ({mode}), which a schedule would need hundreds of points for")
    share = shares[mode.lower()]
    count = 1 if mode.lower().startswith("linear") else POINTS
    return points(*((i / count, least + (scale - least) * share(i / count)) for i in range(count + 1)))


def overridden(cfg, start, end, sampler):
    """The sampler's cfg, and another one from start to end."""
    if start >= end:
        raise Stays("its window is empty, so it does nothing")
    before = [(0, sampler)] if start > 0 else []
    after = [(end, sampler)] if end < 1 else []
    return points(*before, (start, cfg), *after, how=" step" if before or after else "")


def share_of(high, cfg):
    """Of guidance at the sampler's cfg, what makes it as strong as at `high`."""
    if cfg == 1:
        raise Stays("its sampler's cfg is 1, of which nothing is a share")
    return (high - 1) / (cfg - 1)


def one_more(cfg):
    if cfg == 1:
        raise Stays("its sampler's cfg is 1, where it doubles the picture instead of guiding")
    return cfg + 1


def zeroed(used, steps):
    return steps + 1 if used else 0


def share_of_64(count):
    """Of the 64 frequencies along a side of 1024 pixels."""
    return min(count / 64, 1.0)
