"""The one attention override, and the forward around it: rows that read several prompts, rows that are weakened.

Both decide for each row inside the host's own forward. What decides is hidden from torch.compile: the host compiles as if
options never changed, so a decision seen once would stay.
"""

from contextlib import contextmanager
from functools import partial

import torch
from comfy.patcher_extension import WrappersMP

from . import joined, weakened
from .calls import Call
from .halves import HALVES
from .rows import JOINED, LABELS, ROWS, TOLD, WEAKENED

INSTALLED = "guidance_attention"  # in the model's transformer_options
# In the options of every forward: compiled code reads by name all that were there when it was compiled.
NAMES = (LABELS, ROWS, TOLD, JOINED, WEAKENED, HALVES, joined.PLACE, weakened.HERE)


def install(model):
    """Make a model clone able to read several prompts in a row, and to be weakened. Twice is as good as once."""
    options = model.model_options["transformer_options"]
    if not options.get(INSTALLED):
        options[INSTALLED] = True
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, INSTALLED, apply_model)
        options["optimized_attention_override"] = partial(override, options.get("optimized_attention_override"))


def apply_model(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options={}, **conds):
    """APPLY_MODEL wrapper: the network is told what the rows of this forward are."""
    streams, options = conds.pop(JOINED, None), {**dict.fromkeys(NAMES), **transformer_options}
    network = executor.class_obj.diffusion_model
    network = getattr(network, "_orig_mod", network)  # compiled
    shapes = conds.get("latent_shapes") or [x.shape]
    with (compiled_apart(),
          joined.reading(network, x, streams, options) as options,
          weakened.weakening(network, options[ROWS], shapes, options, alone(transformer_options)) as options):
        return executor(x, t, c_concat, c_crossattn, control, options, **conds)


@contextmanager
def compiled_apart():
    """What torch.compile makes of this forward stays out of those of models without our override, and theirs out of this:
    the host has it take any options for the same. Of all that it then still compares, this means nothing by itself."""
    before = torch.is_deterministic_algorithms_warn_only_enabled()
    if torch.are_deterministic_algorithms_enabled() or before:
        yield
        return
    torch._C._set_deterministic_algorithms(False, warn_only=True)
    try:
        yield
    finally:
        torch._C._set_deterministic_algorithms(False, warn_only=before)


def alone(options):
    """Whether no other pack has a part in what the network does with these options."""
    attention = options.get("optimized_attention_override")
    ours = getattr(attention, "func", None) is override and attention.args[0] is None
    return ours and not options.get("patches") and not options.get("patches_replace")


@torch.compiler.disable
def override(previous, attend, q, k, v, *args, **kwargs):
    """previous: the override that was installed before ours, or None. attend: the host's attention function."""
    attend = attend if previous is None else partial(previous, attend)
    options = kwargs.get("transformer_options") or {}
    if options.get(JOINED) is None and options.get(weakened.HERE) is None:
        return attend(q, k, v, *args, **kwargs)
    if options.get(weakened.HERE) is not None:  # innermost: each part of a row with several prompts is weakened for itself
        attend = partial(weakened.attention, attend)
    return joined.attention(Call(attend, q, k, v, args, kwargs), options)
