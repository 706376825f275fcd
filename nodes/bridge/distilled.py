"""The scale that some models take as an input (Flux, HunyuanVideo): which do, and how it is given to them."""

import comfy.conds
import torch

INPUT = "guidance"  # in an entry's model_conds


def takes_scale(network):
    """Whether a network reads the input; None for an architecture that has none."""
    reads = getattr(getattr(network, "params", None), "guidance_embed", None)
    if reads is None and hasattr(network, "distilled_guidance_layer"):  # Chroma
        return True
    if reads is None and hasattr(network, "guidance_in"):  # Hunyuan3D
        return network.guidance_in is not None
    return reads


def told(cond, scale):
    """A processed conditioning with this scale for the model. The entries stay what they are to step caches."""
    given = comfy.conds.CONDRegular(torch.FloatTensor([scale]))
    return [{**entry, "model_conds": {**entry["model_conds"], INPUT: given}} for entry in cond]
