"""Rows that see the picture in another way than the host's own: at another time, or through windows."""

from itertools import product
from uuid import uuid5

import comfy.conds
import comfy.samplers
import torch

from .guider import without
from .joined import class_path

APART = "guidance_apart"  # in an entry's model_conds: the host only puts those into one forward in which it is the same
LATEST_COUNTS = {"lightricks.av_model.LTXAVModel"}
CROPPED = "guidance_cropped"  # in an entry of a conditioning: the Cropped branch through whose windows it sees


def retold(executor, run, told):
    """A forward of the network in which entries are told the noise levels of these branches, where there are any.

    What goes in and comes out is scaled, so that all else is as at the noise level that they have.
    """
    if not told:
        return executor

    def forward(x, t, *args, **kwargs):
        size, given, t = len(x) // len(told), x.clone(), t.clone()
        parts = [(branch, slice(i * size, (i + 1) * size)) for i, branch in enumerate(told) if branch is not None]
        for branch, part in parts:
            given[part] *= run.retold(branch.sigma, branch.told)[0]
            t[part] = branch.told
        out = executor(given, t, *args, **kwargs).clone()
        for branch, part in parts:
            _, b, c = run.retold(branch.sigma, branch.told)
            out[part] = b * x[part] + c * out[part]
        return out

    return forward


def apart(entry, branch, network):
    """An entry that is told another time; in a forward of its own where the network takes the latest time of all rows."""
    if class_path(network) not in LATEST_COUNTS:
        return entry
    return {**entry, "model_conds": {**entry["model_conds"], APART: comfy.conds.CONDConstant(branch.told)}}


# ---------------------------------------------------------------------------------------------------- windows

def sees_all(branch, shapes):
    """Whether a window is as large as the picture. Raises ValueError where there is no picture."""
    if len(shapes) > 1 or len(shapes[0]) < 4:
        raise ValueError("Sliding window guidance needs a latent with height and width; this one is of sound, or of several "
                         "streams in one.")
    return all(branch.windows(side)[0] == (0, side) for side in shapes[0][-2:])


def cropping(executor):
    """A batch whose entries see through their windows. Of what is given to it: of a context window, where there are."""

    def inside(model, conds, x, timestep, model_options):
        conds = [cond and [part for entry in cond for part in (crops(entry, x) if CROPPED in entry else [entry])]
                 for cond in conds]
        return executor(model, conds, x, timestep, model_options)

    return inside


def crops(entry, x):
    """An entry as one for each window, which the host cuts out and adds up as it does with areas."""
    whole, dims = without(entry, CROPPED), x.ndim - 2
    if "default" in entry:  # for what the others leave, which the host finds by itself
        return [whole]
    # Without a mask the host would fade the borders of each window; one for all frames has one of them.
    whole["mask"] = entry["mask"].expand(-1, *x.shape[2:]) if "mask" in entry else faded(entry, x)
    area = comfy.samplers.add_area_dims(list(entry.get("area", ())), dims)
    sizes, starts = area[:dims], area[dims:]
    parts = []
    for window in product(*map(entry[CROPPED].windows, x.shape[-2:])):
        both = [overlap(own, seen) for own, seen in zip(zip(starts[-2:], sizes[-2:]), window)]
        if all(size > 0 for _, size in both):
            (y, height), (z, width) = both
            area = [*sizes[:-2], height, width, *starts[:-2], y, z]
            parts.append({**whole, "area": area, "uuid": uuid5(entry["uuid"], str(window))})
    return parts


def faded(entry, x):
    """How much an entry without a mask counts at each place: the host fades the borders of an area."""
    mask, dims = torch.zeros_like(x[:1, 0]), x.ndim - 2
    bare = {name: entry[name] for name in ("area", "uuid") if name in entry}
    part, view = comfy.samplers.get_area_and_mult({**bare, "model_conds": {}}, x, None), mask
    for dim in range(dims if part.area is not None else 0):
        view = view.narrow(dim + 1, part.area[dims + dim], part.area[dim])
    view.copy_(part.mult[:1, 0])
    return mask


def overlap(one, other):
    """(start, size) of what two stretches of a side have in common; the size is 0 or less where they have nothing."""
    start = max(one[0], other[0])
    return start, min(sum(one), sum(other)) - start
