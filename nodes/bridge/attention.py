"""Weaken self-attention in chosen layers and rows of a UNet, inside the host's own forward.

One attention override is installed once, at patch time, and decides for each row: it leaves the host's rows
alone, bit for bit. Two patches tell it which attention of a transformer block is calling.
"""

from functools import partial
from itertools import groupby

import torch

from ...guidance.core import Perturbed
from .joined import JOINED
from .rows import ROWS

INSTALLED = "guidance_attention"  # in the model's transformer_options


def identity(q, k, v, layer):
    """Attention in which each token looks only at itself (PAG)."""
    if q.shape != v.shape:
        raise ValueError(f"Perturbed attention (PAG) cannot act in layer {layer}, where another node merges tokens ({q.shape[1]} "
                         f"look and {v.shape[1]} are looked at): choose other layers, or leave that node out.")
    return v


KINDS = {"identity": identity}  # what a Perturbed branch does in its layers


def install(model):
    """Make a model clone able to weaken its attention. Twice is as good as once."""
    options = model.model_options["transformer_options"]
    if options.get(INSTALLED):
        return
    options[INSTALLED] = True
    options["optimized_attention_override"] = partial(override, options.get("optimized_attention_override"))
    model.set_model_attn1_patch(partial(enter, True))
    model.set_model_attn2_patch(partial(enter, False))


@torch.compiler.disable  # the host compiles as if options never changed, so a decision seen once would stay
def enter(self_attention, x, context, value, extra_options):
    rows = extra_options.get(ROWS)
    if rows is not None:
        rows.in_self_attention = self_attention
    return x, context, value


@torch.compiler.disable
def override(previous, attend, q, k, v, *args, **kwargs):
    """Attention in which the rows of Perturbed branches have their own way in their layers.

    previous: the override that was installed before ours, or None. attend: the host's attention function.
    """
    attend = attend if previous is None else partial(previous, attend)
    options = kwargs.get("transformer_options") or {}
    rows = options.get(ROWS)
    if rows is None or not rows.in_self_attention:
        return attend(q, k, v, *args, **kwargs)
    layer = layer_name(options)
    branches = [perturbs(label.branch, layer) for label in rows.labels]
    if not any(branches):
        return attend(q, k, v, *args, **kwargs)
    size = q.shape[0] // len(branches)
    out = []
    for branch, group in groupby(range(len(branches)), key=branches.__getitem__):
        group = list(group)
        part = slice(group[0] * size, (group[-1] + 1) * size)
        if branch is not None:
            rows.perturbed.add(branch)
            out.append(KINDS[branch.kind](q[part], k[part], v[part], layer))
        else:
            # Another pack's override must see options that fit the rows it is given.
            kwargs["transformer_options"] = narrowed(options, group)
            out.append(attend(q[part], k[part], v[part], *args, **kwargs))
    return torch.cat(out)


def perturbs(branch, layer):
    """The branch, if it perturbs this layer, or None."""
    return branch if isinstance(branch, Perturbed) and layer in branch.layers else None


def narrowed(options, group):
    fewer = {"cond_or_uncond": [options["cond_or_uncond"][i] for i in group], ROWS: None}
    if options.get(JOINED) is not None:
        fewer[JOINED] = options[JOINED].only(group)
    return {**options, **fewer}


def layer_name(options):
    name, number = options["block"]
    return f"{name}.{number}.{options.get('block_index', 0)}"


def self_attention_layers(model):
    """Names of a UNet's transformer blocks, such as input.4.0 (block, its number, the transformer in it), in the
    order of the forward. Empty for other architectures."""
    network = model.model.diffusion_model
    blocks = [("input", i, block) for i, block in enumerate(getattr(network, "input_blocks", []))]
    blocks += [("middle", 0, getattr(network, "middle_block", None) or [])]
    blocks += [("output", i, block) for i, block in enumerate(getattr(network, "output_blocks", []))]
    return [
        f"{name}.{number}.{i}"
        for name, number, block in blocks
        for module in block
        for i in range(len(getattr(module, "transformer_blocks", [])))
    ]


def choose_layers(model, text, strategy):
    """The layers that a text such as `middle, input.4` names. A name stands for all layers that begin with it."""
    existing = self_attention_layers(model)
    if not existing:
        kind = type(model.model.diffusion_model).__name__
        raise ValueError(f"{strategy} needs a UNet with self-attention (SD1.5, SDXL ...); this model is a {kind}.")
    chosen = []
    for name in filter(None, (part.strip() for part in text.split(","))):
        layers = [layer for layer in existing if f"{layer}.".startswith(f"{name}.")]
        if not layers:
            raise ValueError(f"{strategy}: this model has no self-attention layer {name!r}; it has {', '.join(existing)}.")
        chosen += layers
    if not chosen:
        raise ValueError(f"{strategy}: name at least one layer; this model has {', '.join(existing)}.")
    return chosen
