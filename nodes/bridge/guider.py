"""Reading a guider: its scales, which of its conditionings is which, and what of them is active at a noise level."""

import struct
from numbers import Real

import comfy.samplers
import torch

SCALES = ("cfg", "cfg1", "cfg2", "video_cfg", "audio_cfg")

# Where an inactive conditioning would leave zeros, the first of these that is active stands in for it.
STAND_INS = {
    "negative": ("middle", "empty_negative_prompt", "positive"),
    "empty_negative_prompt": ("negative", "positive"),
    "middle": ("positive",),
}


# ---------------------------------------------------------------------------------------------------- scales

def has_scale_pair(guider):
    """Whether it guides video and audio at a scale each (LTXVDualCFGGuider)."""
    return hasattr(guider, "video_cfg") and hasattr(guider, "audio_cfg")


def has_hosts_scale(guider):
    """Whether it guides as one of the host's does, so at the scale that its attributes say."""
    return type(guider).predict_noise.__module__.startswith("comfy")


def read_scales(guider, streams, step, say_once):
    """The scale of each stream of the latent. Of DualCFGGuider's two, that of the pair which the host's hooks see."""
    if has_scale_pair(guider):
        values = [guider.video_cfg, guider.audio_cfg]
    elif hasattr(guider, "cfg2"):
        values = [guider.cfg1 if guider.nested else guider.cfg2]
    else:
        values = [guider.cfg]
    numbers = [number(value, step) for value in values]
    if None in numbers:
        say_once(f"{type(guider).__name__} keeps its scale in a form that the chain cannot read ({type(values[0]).__name__}), "
                 "so strategies that save rows or set the scale may not act.")
        numbers = [1.0 if value is None else value for value in numbers]
    return (numbers + numbers[-1:] * streams)[:streams]


def number(value, step):
    if isinstance(value, (list, tuple)) and value:  # one for each step
        value = value[min(step, len(value) - 1)]
    one = value.numel() == 1 if isinstance(value, torch.Tensor) else isinstance(value, Real)
    return float(value) if one else None


def shares_of(scales):
    """How much of the guidance that a strategy sets for the first stream each of them gets."""
    return [1.0 if scales[0] == 1 else (scale - 1) / (scales[0] - 1) for scale in scales]


def planned_values(guider, moments, negative):
    """The guider's attributes as the plan wants them for one call: its scales, whatever it calls them, and a negative
    where it has none."""
    values = {}
    if any(moment.rescaled or moment.skips for moment in moments):
        values = {name: moments[-1 if name == "audio_cfg" else 0].combined for name in SCALES if hasattr(guider, name)}
        for name in values:
            if isinstance(getattr(guider, name), list):
                values[name] = [values[name]] * len(getattr(guider, name))
    if negative is not None and negative_of(guider) is None:
        values["conds"] = {**guider.conds, "negative": negative}
    return values


def bypasses_planning(guider):
    """Whether a call of the guider may go past the hook PREDICT_NOISE."""
    kind, host = type(guider), comfy.samplers.CFGGuider
    return kind.__call__ is not host.__call__ or kind.outer_predict_noise is not host.outer_predict_noise


# ---------------------------------------------------------------------------------------------------- conditionings

def is_negative(name):
    return "negative" in name


def pair_name(guider):
    """The conditioning that the host's cfg function takes as cond, from which perturbed branches start."""
    return "middle" if "middle" in guider.conds and not getattr(guider, "nested", False) else "positive"


def is_prompt(guider, cond):
    """Whether a conditioning is one of the guider's prompts, and not what it guides away from."""
    name = name_of(guider, cond)
    return name is not None and not is_negative(name)


def prompts_of(guider):
    """The guider's conditionings that are prompts, by name, the most important one first."""
    names = sorted((name for name in guider.conds if not is_negative(name)), key=lambda name: name != pair_name(guider))
    return {name: guider.conds[name] for name in names}


def negative_of(guider):
    """The conditioning that the guider guides away from, or None."""
    conds = guider.conds
    return conds["negative"] if "negative" in conds else next((conds[name] for name in conds if is_negative(name)), None)


def name_of(guider, cond):
    """Under which name the guider has this very conditioning, or None."""
    return next((name for name, other in guider.conds.items() if other is cond), None)


def layout(guider, conds):
    """(which entry of a batch is cond, which is uncond, which may have to be stood in for by which); None for one that
    is not there. The last: {entry: (its name, the entries that may stand in, the best first)}"""
    names = [None if cond is None else name_of(guider, cond) for cond in conds]
    prompt, against = places(guider, conds, names)
    return prompt, against, stand_ins(guider, conds, names, prompt, against)


def places(guider, conds, names):
    pair = pair_name(guider)
    prompt = names.index(pair) if pair in names else None
    if prompt is None:
        prompt = next((i for i, name in enumerate(names) if conds[i] is not None and not (name and is_negative(name))), None)
    against = names.index("negative") if "negative" in names else None
    if against is None:
        against = next((i for i, name in enumerate(names) if name and is_negative(name)), None)
    return prompt, against


def stand_ins(guider, conds, names, prompt, against):
    found = {
        i: (name, [names.index(other) for other in STAND_INS[name] if other in names])
        for i, name in enumerate(names) if name in STAND_INS
    }
    if prompt is not None and against is not None:
        found.setdefault(against, (names[against], [prompt]))
    if len(conds) == 2 and conds[1] is None and negative_of(guider) is None:  # a guider that has no negative at all
        found[1] = (None, [0])
    return found


def active(cond, sigma):
    """Whether any entry of a processed conditioning is used at this sigma, as the host itself decides it."""
    return any(in_range(entry, sigma) for entry in cond)


def in_range(entry, sigma):
    if "default" in entry or not ("timestep_start" in entry or "timestep_end" in entry):
        return True
    return (
        sigma <= _float32(entry.get("timestep_start", float("inf")))
        and sigma >= _float32(entry.get("timestep_end", float("-inf")))
    )


def _float32(value):
    return struct.unpack("f", struct.pack("f", float(value)))[0]  # the host compares in float32


def reaches_all(cond):
    """Whether a conditioning is for the whole picture: some entry of it has neither an area nor a mask."""
    return any("default" in entry or not ({"area", "mask"} & entry.keys()) for entry in cond)


def is_everywhere(cond):
    """Whether a conditioning is for the whole picture at every noise level."""
    return bool(cond) and any(not {"area", "mask", "timestep_start", "timestep_end"} & entry.keys() for entry in cond)


def coverage(cond, x, timestep):
    """Where the entries of a conditioning reach, of bool and shaped like x."""
    reached = torch.zeros_like(x, dtype=torch.bool)
    for entry in cond:
        bare = {**without(entry, "gligen", "control"), "model_conds": {}}
        part = comfy.samplers.get_area_and_mult(bare, x, timestep)
        if part is not None:
            view, dims = reached, x.ndim - 2
            for dim in range(dims if part.area is not None else 0):
                view = view.narrow(dim + 2, part.area[dims + dim], part.area[dim])
            view |= part.mult != 0
    return reached


def embedded(cond, embed, batch):
    """A processed conditioning with its token embeddings (batch, tokens, width) passed through `embed`; None where the
    model does not read them as such."""
    edited = [dict(entry) for entry in cond]
    for entry in edited:
        tokens = entry["model_conds"].get("c_crossattn")
        if tokens is None:
            return None
        y = tokens.cond.expand(batch, -1, -1) if len(tokens.cond) == 1 else tokens.cond
        entry["model_conds"] = {**entry["model_conds"], "c_crossattn": type(tokens)(embed(y.float()).to(y.dtype))}
    return edited


def without(entry, *names):
    return {name: value for name, value in entry.items() if name not in names}
