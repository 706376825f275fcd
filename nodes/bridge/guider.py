"""Reading a guider: which of its conditionings is which, and which are active at a noise level."""

import struct

# Where an inactive conditioning would leave zeros, the first of these that the guider has stands in for it.
STAND_INS = {
    "negative": ("middle", "empty_negative_prompt", "positive"),
    "empty_negative_prompt": ("positive",),
    "middle": ("positive",),
}


def pair_cond(guider):
    """The conditioning that the host's cfg function takes as cond, from which perturbed branches start."""
    conds = guider.conds
    dual = "middle" in conds and not getattr(guider, "nested", False)
    return conds["middle"] if dual else conds.get("positive")


def pair_scale(guider):
    """The scale between that cond and its uncond: DualCFGGuider has two, of which the host's hooks see this one."""
    if hasattr(guider, "cfg2"):
        return guider.cfg1 if guider.nested else guider.cfg2
    return guider.cfg


def active(cond, sigma):
    """Whether any entry of a processed conditioning is used at this sigma, as the host itself decides it."""
    return any(
        "default" in entry or (
            sigma <= _float32(entry.get("timestep_start", float("inf")))
            and sigma >= _float32(entry.get("timestep_end", float("-inf")))
        )
        for entry in cond
    )


def index_of(conds, cond, default=None):
    """The position of this very list in a batch of conditionings."""
    return next((i for i, other in enumerate(conds) if other is cond and cond is not None), default)


def fill_inactive(own, conds, predictions, sigma):
    """The host predicts zeros for a conditioning that is missing or out of its range, which guidance would then
    push away from. Here its stand-in's prediction takes the place.

    own: the guider's conditionings by name. conds: the batch as the guider made it, whose predictions these are.
    """
    names = [next((name for name, cond in own.items() if cond is c), None) for c in conds]
    missing = [c is not None and not active(c, sigma) for c in conds]
    if len(conds) == 2 and conds[1] is None and not own.get("negative"):  # a guider that has no negative at all
        names[1], missing[1] = "negative", True
    filled = list(predictions)
    for i, name in enumerate(names):
        present = [names.index(n) for n in STAND_INS.get(name, ()) if n in names and not missing[names.index(n)]]
        if missing[i] and present:
            filled[i] = predictions[present[0]].clone()
    return filled


def embedded(conds, embed, batch):
    """The prompts among a guider's processed conditionings, their token embeddings (batch, tokens, width) passed
    through `embed`; None where the model does not read them as such."""
    edited = {}
    for name in {"positive", "middle"} & conds.keys():
        edited[name] = [dict(entry) for entry in conds[name]]
        for entry in edited[name]:
            tokens = entry["model_conds"].get("c_crossattn")
            if tokens is None:
                return None
            y = tokens.cond.expand(batch, -1, -1) if len(tokens.cond) == 1 else tokens.cond
            entry["model_conds"] = {**entry["model_conds"], "c_crossattn": type(tokens)(embed(y.float()).to(y.dtype))}
    return edited


def _float32(value):
    return struct.unpack("f", struct.pack("f", float(value)))[0]  # the host compares in float32
