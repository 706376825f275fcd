"""Weaken attention, or whole blocks, in chosen layers for some rows of a forward.

The other rows stay what they are, bit for bit. A row that copies another one is not computed before it is weakened for the
first time: until then it has the other's answers. Blocks are met where they are called, attention in the one override.
"""

from contextlib import contextmanager
from copy import copy
from dataclasses import fields, is_dataclass, replace
from functools import lru_cache, partial
from itertools import groupby
from math import ceil, prod
from typing import NamedTuple

import torch

from .blocks import anatomy_of
from .calls import Call, pick
from .hooked import hooked
from .joined import PLACE, TEXT
from .rows import WEAKENED, narrowed

HERE = "guidance_here"  # in transformer_options: the layer in which attention is called


class Here(NamedTuple):
    """Attention in one layer. picture: how many of its tokens, the last ones, are of the picture; None if all are. grid: of
    the picture, its frames, rows and columns of tokens."""

    layer: str
    picture: int | None
    grid: tuple


# ---------------------------------------------------------------------------------------------------- what is done

def identity(call, here, _):
    """Each token of the picture sees only itself (PAG), and the text where that is in the same attention."""
    if here.picture is None and call.queries != call.keys:
        raise ValueError(f"Attention cannot be weakened in layer {here.layer}, where another node merges tokens or weights "
                         f"guide frames ({call.queries} look and {call.keys} are looked at): choose other layers, or leave "
                         "that node out.")
    picture = call.queries if here.picture is None else here.picture
    words, own = call.keys - picture, call.queries - picture
    if words == 0:
        return call.laid_out(call.by_head()[2])
    text = [call.part([(0, own)], [(0, call.keys)])()] if own else []
    mask = call.part([(own, call.queries)], [(0, words)]).mask_by_head()
    q, k, v = call.by_head()
    q, width = q[:, :, own:], q.shape[-1]
    alone = torch.sum(q * k[:, :, words:], -1, keepdim=True).float()
    pieces, start = [], 0
    for piece in q.split(max(2 ** 26 // (q.shape[0] * q.shape[1] * (words + 1)), 1), dim=2):  # what fits into memory
        stop = start + piece.shape[2]
        seen = torch.cat([alone[:, :, start:stop], torch.matmul(piece, k[:, :, :words].mT).float()], -1) * width ** -0.5
        if mask is not None:
            seen[..., 1:] += mask if mask.shape[-2] == 1 else mask[..., start:stop, :]
        share = torch.softmax(seen, -1).to(v.dtype)
        pieces.append(share[..., :1] * v[:, :, words + start:words + stop] + torch.matmul(share[..., 1:], v[:, :, :words]))
        start = stop
    return torch.cat([*text, call.laid_out(torch.cat(pieces, 2))], call.out_axis)


def blurred(call, here, sigma):
    """Neighbours in the picture look for the same (SEG): queries blurred over rows and columns, by `sigma` tokens."""
    picture, size = call.queries if here.picture is None else here.picture, prod(here.grid)
    if size > picture:
        raise ValueError(f"Queries cannot be blurred in layer {here.layer}: which of its {picture} tokens are neighbours is "
                         "not known.")
    start, (_, rows, columns) = call.queries - picture, here.grid
    q = call.by_head()[0]
    down, across = (blur_matrix(side, sigma, q.device, q.dtype) for side in (rows, columns))
    blur = torch.einsum("bhfrcw,sr,tc->bhfstw", q[:, :, start:start + size].unflatten(2, here.grid), down, across)
    return call.with_queries(torch.cat([q[:, :, :start], blur.flatten(2, 4), q[:, :, start + size:]], 2))()


def tempered(call, here, tau):
    """The picture looks at more places alike, or at fewer (ERG): what it looks for times `tau`."""
    own = 0 if here.picture is None else call.queries - here.picture
    q = call.by_head()[0]
    return call.with_queries(torch.cat([q[:, :, :own], tau * q[:, :, own:]], 2))()


@lru_cache(64)
def blur_matrix(side, sigma, device, dtype):
    """A Gaussian blur of a line of `side` tokens as a matrix; the line goes on as its mirror image."""
    if sigma >= INFINITE:
        return torch.full((side, side), 1 / side, device=device, dtype=dtype)
    reach = ceil(6 * sigma) // 2
    offsets = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (offsets / max(sigma, 1e-6)) ** 2)
    period = max(2 * side - 2, 1)
    places = (torch.arange(side)[:, None] + offsets) % period
    mirrored = torch.minimum(places, period - places) % side
    matrix = torch.zeros(side, side).scatter_add_(1, mirrored, (weights / weights.sum()).expand(side, -1))
    return matrix.to(device, dtype)


INFINITE = 1000  # tokens: from here on a blur is the mean of each frame
# By Perturbed.kind; the others, "skip" and "shuffle", are of blocks.
IN_ATTENTION = {"identity": identity, "blur": blurred, "temperature": tempered}


@torch.compiler.disable
def attention(attend, q, k, v, *args, **kwargs):
    """Attention in which some rows have their own way in this layer. attend: the host's function, or another pack's."""
    options = kwargs["transformer_options"]
    here, rows = options[HERE], options[WEAKENED]
    acts = [act if act is not None and act.kind in IN_ATTENTION else None for act in rows.acts((here.layer,))]
    call, size, out = Call(attend, q, k, v, args, kwargs), q.shape[0] // len(acts), []
    # A row with several prompts asks for its text apart: it is what looks, and the picture only looked at.
    if not any(acts) or call.keys < (here.picture or 0) or options.get(PLACE) == TEXT:
        return call()
    for act, group in groupby(range(len(acts)), key=acts.__getitem__):
        group = list(group)
        part = call.rows(group[0] * size, (group[-1] + 1) * size, group)
        if act is not None:
            rows.done.add(act)
        out.append(part() if act is None else IN_ATTENTION[act.kind](part, here, act.amount))
    return torch.cat(out)


# ---------------------------------------------------------------------------------------------------- one forward

class Weakened:
    """The entries of one forward, and how far each still is the one that it copies.

    shapes: of the latent's streams. shares: whether entries may have the answers of those that they copy.
    """

    def __init__(self, rows, anatomy, shapes, shares):
        self.weakened, self.twins, self.done = rows.weakened, rows.twins, rows.done
        self.entries, self.apart = list(range(len(self.weakened))), set()
        self.anatomy, self.shares, self.words = anatomy, shares, None
        self.grids = [anatomy.grid(shape, stream) for stream, shape in enumerate(shapes)]

    def only(self, places):
        """Some of the entries."""
        part = copy(self)
        for name in ("weakened", "twins", "entries"):
            setattr(part, name, [getattr(self, name)[place] for place in places])
        return part

    def acts(self, layers):
        """What weakens each entry in one of these layers, or None."""
        return [act if act is not None and any(layer in act.layers for layer in layers) else None for act in self.weakened]

    def sources(self, inside, acts):
        """Of each entry, where the one stands whose answer of a block it has: itself, or what it copies. None: it has no
        answer, and stays what it is. inside, acts: what weakens each in the block, and as this block."""
        self.apart.update(entry for entry, act in zip(self.entries, inside) if act is not None)
        shared = [self.shares and twin in self.entries and entry not in self.apart
                  for entry, twin in zip(self.entries, self.twins)]
        sources = [self.entries.index(twin) if share else place for place, (twin, share) in enumerate(zip(self.twins, shared))]
        return [None if act is not None and act.kind == "skip" else source for act, source in zip(acts, sources)]


@contextmanager
def weakening(network, rows, shapes, options, alone):
    """Around a forward, whose options these are then. rows: rows.Rows, or None. shapes: of the latent's streams. alone: whether
    no other pack has a part in it, which might do different things to rows that are alike."""
    if rows is None or not any(rows.weakened):
        yield options
        return
    weakened = Weakened(rows, anatomy_of(network), shapes, alone)
    with hooked(network, "weakened", changes, weakened):
        yield {**options, WEAKENED: weakened}


def changes(network):
    found = []
    for number, block in enumerate(anatomy_of(network).blocks):
        if block.takes:
            # Without the module, so that nothing here keeps it.
            found.append((block.module, "forward", partial(in_block, block._replace(module=None), number)))
        found += [(block.module.get_submodule(name), "forward", partial(in_attention, block.layers[0], stream))
                  for stream, name in enumerate(block.attention)]
    return found


@torch.compiler.disable(recursive=False)
def in_attention(layer, stream, hook, *args, **kwargs):
    """A module in which the picture, or another stream of the latent, looks at itself."""
    options = kwargs["transformer_options"]
    shape = options.get("activations_shape")  # of UNets
    grid = (1, *shape[-2:]) if shape else options[WEAKENED].grids[stream]
    return hook.original(*args, **{**kwargs, "transformer_options": {**options, HERE: Here(layer, None, grid)}})


@torch.compiler.disable(recursive=False)
def in_block(block, number, hook, *args, **kwargs):
    """A block, from which some entries have what another one has, or nothing, or in which they see other tokens."""
    options = next((value for value in (*args, *kwargs.values()) if isinstance(value, dict)), {})
    rows = options.get(WEAKENED) or hook.rows
    inside = rows.acts(block.layers)
    acts = inside if block.name else [None] * len(inside)  # where layers only lie in it, nothing happens to it itself
    sources = rows.sources(inside, acts)
    streams = [kwargs[name] if name in kwargs else args[place] for name, place in block.takes]
    pair = isinstance(streams[0], tuple)  # of video and audio
    streams = list(streams[0]) if pair else streams
    picture, count = None, len(sources)
    if rows.anatomy.joint:
        picture = picture_of(block, rows, streams, options, hook.network)
        kwargs["transformer_options"] = {**options, HERE: Here(block.name, picture, rows.grids[0])}
    moved = [(place, act) for place, act in enumerate(acts) if act is not None and act.kind == "shuffle"]
    computed = [place for place, source in enumerate(sources) if source == place]
    rows.done.update(act for act in acts if act is not None and act.kind not in IN_ATTENTION)
    if not moved and len(computed) == count:
        return hook.original(*args, **kwargs)
    for place, act in moved:
        streams = shuffled(streams, block, picture, (place, count), act, number)
    args, kwargs = with_streams(block, args, kwargs, [tuple(streams)] if pair else streams)
    if len(computed) < count:
        args, kwargs = fewer((args, kwargs), computed, count, streams[0].shape[0])
    answers = hook.original(*args, **kwargs) if computed else tuple(streams)
    several = isinstance(answers, tuple) and len(streams) > 1
    answers = list(answers) if isinstance(answers, tuple) else [answers]
    if len(computed) < count:
        answers = [spread(answer, stream, sources, computed) for answer, stream in zip(answers, streams)]
    if rows.anatomy.restores:
        for place, act in moved:
            answers = shuffled(answers, block, picture, (place, count), act, number, back=True)
    return tuple(answers) if several else answers[0]


def picture_of(block, rows, streams, options, network):
    """How many tokens the picture has in a block where it stands behind the text."""
    if block.text is not None:
        rows.words = streams[block.text].shape[1]
        return streams[1 - block.text].shape[1]
    if rows.words is not None:
        return streams[0].shape[1] - rows.words
    if "img_slice" in options:
        return streams[0].shape[1] - options["img_slice"][0]
    size = prod(rows.grids[0])
    return size + -size % (getattr(network, "pad_tokens_multiple", None) or 1)


def with_streams(block, args, kwargs, streams):
    """The arguments of a block with these streams."""
    args = list(args)
    for (name, place), stream in zip(block.takes, streams):
        if name in kwargs:
            kwargs[name] = stream
        else:
            args[place] = stream
    return tuple(args), kwargs


POSITIONS = ("rope_emb_L_1_1_D",)  # what has tokens where others have rows


def fewer(value, places, count, rows):
    """What a block is given, for some of its `count` entries. rows: of all of them together."""
    if torch.is_tensor(value):
        twice = value.ndim > 0 and value.shape[0] == 2 * rows  # for reference pictures, again at time step 0
        if twice:
            return torch.cat([chosen(half, places, count) for half in value.split(rows)])
        return chosen(value, places, count) if value.ndim > 0 and value.shape[0] == rows else value
    if isinstance(value, dict):
        if WEAKENED in value:
            return narrowed(value, places)
        return {name: part if name in POSITIONS else fewer(part, places, count, rows) for name, part in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(fewer(part, places, count, rows) for part in value)
    if is_dataclass(value):
        parts = {field.name: fewer(getattr(value, field.name), places, count, rows) for field in fields(value)}
        return replace(value, **parts)  # type: ignore[type-var]  # an instance, not a class
    if hasattr(value, "batch_size") and hasattr(value, "data"):  # LTX-2 keeps its time steps in an object
        value = copy(value)
        value.data, value.batch_size = fewer(value.data, places, count, rows), value.batch_size // count * len(places)
    return value


def chosen(tensor, places, count):
    """The rows of some of `count` entries."""
    size = tensor.shape[0] // count
    return pick(tensor, [(place * size, (place + 1) * size) for place in places], 0) if places != [*range(len(places))] \
        else tensor[:size * len(places)]


def spread(answer, stream, sources, computed):
    """The answers of the computed entries, for all: each has that of its source, or what came in."""
    if answer is None:
        return None
    size = stream.shape[0] // len(sources)
    given = {place: answer[i * size:(i + 1) * size] for i, place in enumerate(computed)}
    return torch.cat([stream[i * size:(i + 1) * size] if source is None else given[source] for i, source in enumerate(sources)])


@torch.compiler.disable  # the orders are drawn anew at each step
def shuffled(streams, block, picture, where, act, number, back=False):
    """The streams, with the picture's tokens of one entry in another order, or back in theirs. where: (place, of how many)"""
    place, count = where
    made = list(streams)
    for i, stream in enumerate(streams):
        if stream is None or i == block.text:
            continue
        size = stream.shape[0] // count
        tokens = stream[place * size:(place + 1) * size].flatten(1, -2)
        first = tokens.shape[1] - (picture or tokens.shape[1])
        order = another_order(tokens.shape[1] - first, act.amount, act.seed + number).to(stream.device)
        order = torch.argsort(order) if back else order
        tokens = torch.cat([tokens[:, :first], tokens[:, first:][:, order]], 1).view_as(stream[:size])
        made[i] = torch.cat([stream[:place * size], tokens, stream[(place + 1) * size:]])
    return made


@lru_cache(4)
def another_order(count, share, seed):
    """An order of `count` tokens in which that share of them has been shuffled, by a generator of its own."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randperm(count, generator=generator)[:round(share * count)]
    order = torch.arange(count)
    order[places.sort().values] = places
    return order
