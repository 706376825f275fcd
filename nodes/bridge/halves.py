"""Networks that make two predictions in each row, with the prompt and without it: twice the channels of their latent.

The host is handed the first half. In the place of its negative, its batch has a copy of the prompt, which is left out of the
forward and gets the other half of the row that it copies: so areas, masks and windows are as with any prediction.
"""

from contextlib import contextmanager

import torch
from comfy.patcher_extension import WrappersMP

from .rows import JOINED, ROWS, TOLD, narrowed
from .weakened import fewer

INSTALLED = "guidance_halves"  # in the model's transformer_options
HALVES = "guidance_second_halves"  # in one forward's: its Halves


class Halves:
    """The second halves of one forward. They come in parts where another pack has taken the forward apart."""

    def __init__(self):
        self.parts = []

    def of(self, count):
        """The predictions of this many rows."""
        if sum(map(len, self.parts)) != count:
            raise RuntimeError("The network's second prediction is missing: another pack has replaced the model's forward.")
        return torch.cat(self.parts)


def refusal(model):
    """Why a model cannot be split, as far as it can be told before it runs; else None."""
    network, channels = model.get_model_object("diffusion_model"), model.get_model_object("latent_format").latent_channels
    found = getattr(network, "out_channels", None)
    return wrong(found, channels) if found == channels else None


def wrong(found, channels):
    return (f"this model predicts {found} channels for latents of {channels}; it has to predict {2 * channels}, half of them "
            "with the prompt and half without it.")


def install(model):
    """Make a model clone hand out the first half of what its network predicts. Twice is as good as once."""
    options = model.model_options["transformer_options"]
    if not options.get(INSTALLED):
        options[INSTALLED] = True
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, INSTALLED, apply_model)


def apply_model(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options={}, **conds):
    """APPLY_MODEL wrapper, where the host makes x0 of what the network predicts: of the second half too."""
    model = executor.class_obj
    seconds: list[torch.Tensor] = []
    with halved(model.diffusion_model, x.shape[1], seconds):
        first = executor(x, t, c_concat, c_crossattn, control, transformer_options, **conds)
    holder = transformer_options.get(HALVES)
    if holder is not None:
        holder.parts += [model.model_sampling.calculate_denoised(t, second.float(), x) for second in seconds]
    return first


@contextmanager
def halved(network, channels, seconds):
    """Within, the network's forward gives the first half of its channels; the second is appended to a list."""
    forward, before = network.forward, network.__dict__.get("forward")

    def first(*args, **kwargs):
        out = forward(*args, **kwargs)
        if not torch.is_tensor(out):
            raise ValueError("Single-pass guidance needs a model of one picture or film; this one is of several streams.")
        if out.shape[1] != 2 * channels:
            raise ValueError(f"Single-pass guidance: {wrong(out.shape[1], channels)}")
        seconds.append(out[:, channels:])
        return out[:, :channels]

    network.__dict__["forward"] = first
    try:
        yield
    finally:
        if before is None:
            del network.__dict__["forward"]
        else:
            network.__dict__["forward"] = before


def along(forward, options):
    """A forward of the model without the rows that only want the other half of another row, where there are any."""
    rows = options.get(ROWS)
    if rows is None or not any(rows.unprompted):
        return forward
    count = len(rows.unprompted)
    # What is weakened is no copy any more.
    kept = [i for i in range(count) if not rows.unprompted[i] or rows.twins[i] is None or rows.weakened[i] is not None]

    def fewer_rows(x, t, c_concat, c_crossattn, control, options, **conds):
        halves, joined = Halves(), conds.pop(JOINED, None)
        given = [fewer(value, kept, count, len(x)) for value in (x, t, c_concat, c_crossattn, control)]
        conds = {name: fewer(value, kept, count, len(x)) for name, value in conds.items()}
        if joined is not None:
            conds[JOINED] = [joined[i] for i in kept]
        told = options.get(TOLD)
        options = {**narrowed(options, kept), TOLD: told and [told[i] for i in kept], HALVES: halves}
        first = forward(*given, options, **conds)
        return arranged(rows, kept, first, halves.of(len(first)))

    return fewer_rows


def arranged(rows, kept, first, second):
    """The predictions of all entries, from both halves of those that were kept."""
    first, second = first.chunk(len(kept)), second.chunk(len(kept))
    return torch.cat([
        second[kept.index(i if i in kept else rows.twins[i])] if unprompted else first[kept.index(i)]
        for i, unprompted in enumerate(rows.unprompted)])
