"""Several prompts in one row: their tokens joined, and attention split again; and what each row gets from its own text.

A row's context becomes [prompt; prompts pushed away; negative prompt]. Everything that works token by token is computed
once, and the one attention override gives each image token what it needs: the answer for the prompt, the answer for the
negative, and NAG of the two. Nothing is coupled between rows, so lengths may differ, memory may split the batch, and
each row may live on another device.

    sentence = refusal(model, [*cond, negative])                                    # before sampling
    cond = [join(entry, network, negative, nag=Nag(4.0)) for entry in cond]         # before the host's calc_cond_batch
    uncond = [beside(entry, network) for entry in uncond]                           # so that it may share the forward
    attention.install(model)                                                        # once, when the model is patched
"""

from collections.abc import Callable
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, groupby
from typing import NamedTuple

import comfy.conds
import comfy.utils
import torch

from ...guidance.core import Sparse
from ...guidance.nag import nag
from ...guidance.pladis import sparser
from .calls import Call, partial_attention, pick
from .hooked import hooked
from .rows import JOINED

ITS_OWN = "guidance_words"  # in an entry: keys of the words with a negative weight in its prompt; in theirs too
PLACE = "guidance_place"  # in transformer_options: which kind of attention is calling, where its tokens do not tell


class Nag(NamedTuple):
    """NAG's three numbers at this evaluation."""

    scale: float
    tau: float = 2.5
    alpha: float = 0.25


@dataclass(frozen=True)
class Streams:
    """What the tokens of one row's text are, in their order.

    prompt, pushed, negative: numbers of tokens. weights: how strongly each pushed token is pushed away. lead: tokens
    in front of these that are only padding. sparse: how attention to any of them is other than softmax.
    """

    prompt: int
    pushed: int = 0
    negative: int = 0
    weights: tuple = ()
    nag: Nag | None = None
    lead: int = 0
    sparse: Sparse | None = None

    @property
    def lengths(self):
        return [length for length in (self.prompt, self.pushed, self.negative) if length]


class CONDStreams(comfy.conds.CONDRegular):
    """The streams of an entry's text on its way through the host's batching; one for each entry of a forward.

    mixes: whether rows with other streams may share the forward. In cross-attention they may: a row's text is only
    read, and the host evens out lengths by repeating, which changes nothing. Where text and image attend to each
    other and have positions, all rows must be alike.
    """

    def __init__(self, cond, mixes):
        super().__init__(cond)
        self.mixes = mixes

    def _copy_with(self, cond):
        return CONDStreams(cond, self.mixes)

    def process_cond(self, **_):
        return self

    def can_concat(self, other):
        return self.mixes or self.cond == other.cond

    def concat(self, others):
        return [self.cond, *(other.cond for other in others)]

    def size(self):
        return [1]


# --- Joining, before the host batches -------------------------------------------------------------------------------


def join(entry, network, negative=None, pushed=None, weight=1.0, nag=None, uuid=None, sparse=None):
    """An entry of a processed conditioning with other prompts' tokens behind its own.

    entry, negative, pushed: processed entries (dicts with model_conds). network: the diffusion model that reads them.
    weight: how strongly the pushed tokens are pushed away: a number, or one for each token. nag: the numbers for the
    negative; without it the negative is not joined. uuid: the new entry's own. sparse: see Streams. The entry that came in
    is not changed.
    """
    negative = negative if nag is not None and nag.scale != 0 and nag.alpha != 0 else None
    parts = [part for part in (entry, pushed, negative) if part is not None]
    if len(parts) == 1:
        return beside(entry, network, sparse)
    own, away, against = (0 if part is None else _tokens(part) for part in (entry, pushed, negative))
    lead = away - pushed["cross_attn"].shape[1] if pushed is not None and form_of(network).pads_in_front else 0
    if pushed is not None and form_of(network).mixes:  # rows share a forward where one text is as long as several of the other
        more = -(own + away + against) % own
        pushed, away, lead = _padded(pushed, more), away + more, lead + more
        parts = [part for part in (entry, pushed, negative) if part is not None]
    weights = tuple(weight) if isinstance(weight, (tuple, list)) else (float(weight),) * (away - lead)
    streams = Streams(own, away, against, weights, nag if negative is not None else None, lead, sparse)
    conds = dict(entry["model_conds"])
    conds["c_crossattn"] = _cat([part["model_conds"]["c_crossattn"] for part in parts])
    masks = [part["model_conds"].get("attention_mask") for part in parts]
    if any(mask is not None for mask in masks):
        conds["attention_mask"] = _cat(_masks(masks, streams.lengths))
    if "num_tokens" in conds:
        conds["num_tokens"] = type(conds["num_tokens"])(sum(streams.lengths))
    if entry.get("control") is not None:  # ControlNets read the prompt as it was
        conds.setdefault("crossattn_controlnet", entry["model_conds"]["c_crossattn"])
    conds[JOINED] = CONDStreams(streams, form_of(network).mixes)
    joined = {**entry, "model_conds": conds}
    return joined if uuid is None else {**joined, "uuid": uuid}


def _padded(entry, more):
    """An entry with so many more tokens in front, which nothing will attend to."""
    conds = dict(entry["model_conds"])
    for name, dim in (("c_crossattn", 1), ("attention_mask", -1)):
        if name in conds:
            tensor = conds[name].cond
            shape = [more if axis == dim % tensor.ndim else size for axis, size in enumerate(tensor.shape)]
            conds[name] = conds[name]._copy_with(torch.cat([tensor.new_zeros(shape), tensor], dim))
    return {**entry, "model_conds": conds}


def together(pushed):
    """(one entry, a weight for each of its tokens) of several (entry, weight) pairs that are pushed away."""
    if len(pushed) < 2:
        return pushed[0] if pushed else (None, 1.0)
    entries, lengths = [entry for entry, _ in pushed], [entry["cross_attn"].shape[1] for entry, _ in pushed]
    tokens = [entry["model_conds"]["c_crossattn"] for entry in entries]
    unpadded = [type(cond)(cond.cond[:, -length:]) for cond, length in zip(tokens, lengths)]
    weights = tuple(float(weight) for (_, weight), length in zip(pushed, lengths) for _ in range(length))
    conds = {**entries[0]["model_conds"], "c_crossattn": _cat(unpadded)}
    masks = [entry["model_conds"].get("attention_mask") for entry in entries]
    if any(mask is not None for mask in masks):
        conds["attention_mask"] = _cat(_masks(masks, lengths))
    return {**entries[0], "model_conds": conds, "cross_attn": torch.cat([e["cross_attn"] for e in entries], 1)}, weights


def beside(entry, network, sparse=None):
    """An entry as it is, but marked, so that it may share a forward with joined ones. sparse: see Streams."""
    conds = dict(entry["model_conds"])
    if entry.get("control") is not None and "c_crossattn" in conds:
        conds.setdefault("crossattn_controlnet", conds["c_crossattn"])
    streams = None if sparse is None else Streams(_tokens(entry), sparse=sparse)
    conds[JOINED] = CONDStreams(streams, form_of(network).mixes)
    return {**entry, "model_conds": conds}


def _tokens(entry):
    return entry["model_conds"]["c_crossattn"].cond.shape[1]


def _cat(conds):
    batch = max(len(cond.cond) for cond in conds)
    first = conds[0].cond
    tokens = [comfy.utils.repeat_to_batch_size(cond.cond, batch).to(first) for cond in conds]
    return type(conds[0])(torch.cat(tokens, dim=1))


def _masks(masks, lengths):
    like = next(mask for mask in masks if mask is not None)
    return [like._copy_with(like.cond.new_ones(1, length)) if mask is None else mask
            for mask, length in zip(masks, lengths)]


# --- One forward -----------------------------------------------------------------------------------------------------


class Rows:
    """The rows of one forward: the streams of each entry in it, or None for a row with a single prompt."""

    def __init__(self, streams, form, image=None):
        self.streams, self.form, self.image = streams, form, image
        self.lengths = streams[0].lengths if streams[0] is not None else []  # as the network sees them, with padding
        self.lead = 0  # tokens that the network puts in front of each stream
        self.captioned = False  # Lumina: what gets positions from now on is the image
        self.noted = set()  # 'entered': the network ran, no cache has skipped it; 'split': attention was split

    def only(self, entries):
        """Some of the entries, for another part of the pack that answers for the other rows itself."""
        part = copy(self)
        part.streams = [self.streams[i] for i in entries]
        return part

    @property
    def any(self):
        return any(streams is not None for streams in self.streams)

    @property
    def bounds(self):
        """Where each stream begins and ends among the text tokens."""
        ends = list(accumulate(self.lengths))
        return list(zip([0, *ends], ends))


@contextmanager
def reading(network, x, streams, options):
    """Around a forward, whose options these are then: the network's attention is told what its rows read.

    x: what the host hands to the model. streams: those of each entry, from its conditioning; None where nothing is joined.
    """
    if streams is None:
        yield options
        return
    form = form_of(network)
    rows = Rows(streams, form, form.image(network, x) if form.image else None)
    options = {**options, JOINED: rows}
    replaced = options.get("patches_replace", {}).get("attn2")
    if rows.any and replaced:
        split = {block: partial(_replaced, rows, replace) for block, replace in replaced.items()}
        options["patches_replace"] = {**options["patches_replace"], "attn2": split}
    with hooked(network, "joined", form.changes, rows):
        yield options
    if rows.any and rows.noted == {"entered"}:
        joined = any(streams is not None and len(streams.lengths) > 1 for streams in rows.streams)
        raise RuntimeError("The negative prompt was joined to the prompt, but another pack has replaced the attention "
                           "that would have told them apart." if joined else
                           "Attention to the text was to be sparser, but another pack has replaced it.")


class Place(NamedTuple):
    """Which attention is calling: 'off' (no joined text in it), 'text' (text alone), 'cross' (text as keys only).

    skip: number of keys of another cross-attention in the same module, which is not of the text.
    """

    kind: str
    skip: int | None = None


OFF, TEXT, CROSS = Place("off"), Place("text"), Place("cross")


@torch.compiler.disable
def _entered(hook, *args, **kwargs):
    hook.rows.noted.add("entered")
    return hook.original(*args, **kwargs)


def _placed(place):
    """A change of a module's forward: what its attention is, which the number of tokens alone does not tell."""
    def change(hook, *args, **kwargs):
        options = kwargs.get("transformer_options", {})
        return hook.original(*args, **{**kwargs, "transformer_options": {**options, PLACE: place}})
    return change


def _wan_image(hook, x, context, context_img_len=None, **kwargs):
    """Wan's image-to-video attends to an image's tokens in front of the text's in a call of their own."""
    options = {**kwargs.get("transformer_options", {}), PLACE: Place("cross", context_img_len)}
    return hook.original(x, context, context_img_len=context_img_len, **{**kwargs, "transformer_options": options})


@torch.compiler.disable
def _text_by_stream(hook, x, *args, **kwargs):
    """A module that reads all of the text at once (its mean, its neighbours): once for each stream."""
    if not hook.rows.any:
        return hook.original(x, *args, **kwargs)
    if "transformer_options" in kwargs:
        kwargs["transformer_options"] = {**kwargs["transformer_options"], PLACE: OFF}
    total = x.shape[1]

    def part(value, start, stop):
        return value[:, start:stop] if torch.is_tensor(value) and value.ndim > 1 and value.shape[1] == total else value

    outs = []
    for bounds in hook.rows.bounds:
        given = {key: part(value, *bounds) for key, value in kwargs.items()}
        outs.append(hook.original(part(x, *bounds), *(part(value, *bounds) for value in args), **given))
    return torch.cat(outs, dim=1)


@torch.compiler.disable
def _lumina_captions(hook, cap_feats=None, offset=0, **kwargs):
    """Each caption padded for itself, and all of them ending where the prompt does."""
    if cap_feats is None or not hook.rows.any:
        return hook.original(cap_feats, offset=offset, **kwargs)
    rows = hook.rows
    captions = [cap_feats[:, start:stop] for start, stop in rows.bounds]
    multiple = hook.network.pad_tokens_multiple or 1
    rows.lengths = [length + -length % multiple for length in rows.lengths]
    offsets = [offset + rows.lengths[0] - length for length in rows.lengths]
    outs = [hook.original(caption, offset=start, **kwargs) for caption, start in zip(captions, offsets)]
    rows.captioned = True
    embeds, freqs = torch.cat([out[0][0] for out in outs], 1), torch.cat([out[1][0] for out in outs], 1)
    return (embeds,), (freqs,), sum(rows.lengths)


@torch.compiler.disable
def _lumina_positions(hook, ids):
    """The image begins where the prompt ends, not where all of the text does; its padding stays at zero.

    So the image is what it is beside the prompt alone. A padded image beside a negative of another (padded) length
    would be another image: how far its padding is from it depends on the caption.
    """
    if hook.rows.captioned:
        ids = ids.clone()
        ids[..., 0] = (ids[..., 0] - sum(hook.rows.lengths[1:])).clamp_min(0)
    return hook.original(ids)


@torch.compiler.disable
def _same_start(hook, ids):
    """Positions (batch, text and image, axes): every stream's text begins where the prompt's does."""
    return hook.original(_restarted(ids, hook.rows) if hook.rows.any else ids)


@torch.compiler.disable
def _same_end(hook, ids):
    """For LongCat, whose image begins where its text ends: where the prompt ends, and there the other streams end too."""
    rows = hook.rows
    if not rows.any:
        return hook.original(ids)
    moved, prompt, total = _restarted(ids, rows), rows.lengths[0], sum(rows.lengths)
    follows = ids[:, total:total + 1, 1:] == total  # older hosts leave the image at one place
    for (start, stop), length in zip(rows.bounds, rows.lengths):
        moved[:, start:stop, 1:] += follows * (prompt - length)
    moved[:, total:, 1:] -= follows * (total - prompt)
    return hook.original(moved)


def _restarted(ids, rows):
    ids = ids.clone()
    for start, stop in rows.bounds:
        ids[:, start:stop] += ids[:, :1] - ids[:, start:start + 1]
    return ids


@torch.compiler.disable
def _ideogram_backbone(hook, text, x, t, position_ids, *args, **kwargs):
    if hook.rows.any:
        position_ids = _restarted(position_ids, hook.rows)
    return hook.original(text, x, t, position_ids, *args, **kwargs)


@torch.compiler.disable
def _aura_registers(hook, context):
    """AuraFlow puts its registers in front of the text; each stream has its own."""
    tokens = hook.original(context)
    if not hook.rows.any:
        return tokens
    registers = hook.network.register_tokens.to(tokens).expand(len(tokens), -1, -1)
    first, *others = [tokens[:, start:stop] for start, stop in hook.rows.bounds]
    hook.rows.lead = registers.shape[1]
    hook.rows.lengths = [length + hook.rows.lead for length in hook.rows.lengths]
    return torch.cat([first, *(part for other in others for part in (registers, other))], dim=1)


# --- Attention -------------------------------------------------------------------------------------------------------


def attention(call, options):
    """Attention, in which rows with joined text see each of their prompts apart."""
    rows, place = options.get(JOINED), options.get(PLACE)
    kind = rows.form.kind(rows, call, place) if rows is not None and rows.any and place != OFF else None
    return call() if kind is None else _split(call, kind, rows)


@torch.compiler.disable
def _replaced(rows, replace, q, k, v, options):
    """A UNet's attention to the text that another pack has replaced (IPAdapter): also once for each of the prompts."""
    def attend(q, k, v, heads, transformer_options):
        return replace(q, k, v, transformer_options)

    return _split(Call(attend, q, k, v, (options["n_heads"],), {"transformer_options": options}), "cross", rows)


def _split(call, kind, rows):
    if kind != "text":
        rows.noted.add("split")
    size, out = call.q.shape[0] // len(rows.streams), []
    for streams, group in groupby(range(len(rows.streams)), key=rows.streams.__getitem__):
        group = list(group)
        part = call if len(group) == len(rows.streams) else call.rows(group[0] * size, (group[-1] + 1) * size, group)
        out.append(part() if streams is None else SPLIT[kind](part, streams, rows))
    return out[0] if len(out) == 1 else torch.cat(out)


def _guide(plus, minus, streams, axis, features):
    """NAG, of long videos in pieces, because its float32 would not fit beside them."""
    pieces = 1 + plus.numel() // 2 ** 26
    pairs = zip(plus.chunk(pieces, axis), minus.chunk(pieces, axis))
    numbers = streams.nag
    outs = [nag(one, other, numbers.scale, numbers.tau, numbers.alpha, features) for one, other in pairs]
    return outs[0] if len(outs) == 1 else torch.cat(outs, dim=axis)


def _cross(call, streams, rows):
    """Every query is an image token; the keys are the text."""
    prompt, pushed = streams.prompt, streams.pushed
    whole = [(0, call.queries)]
    read = [(0, prompt), (prompt + streams.lead, prompt + pushed)] if streams.lead else [(0, prompt + pushed)]
    positive = call.part(whole, read)
    if pushed:
        positive = positive.weighted(prompt, streams.weights)
    if not streams.negative:
        return _seen(positive, streams.sparse)
    negative = call.part(whole, [(prompt + pushed, prompt + pushed + streams.negative)])
    plus, minus = (_seen(part, streams.sparse) for part in (positive, negative))
    return _guide(plus, minus, streams, call.out_axis, call.features)


def _seen(call, sparse):
    """What attention to the text answers, whoever computes it; and by what that changes where it is sparser."""
    answer = call()
    if sparse is None:
        return answer
    q, k, v = call.by_head()
    return answer + call.laid_out(sparser(q, k, v, call.mask_by_head(), *sparse))


def _text(call, streams, rows):
    """Text attends to text: each stream to itself."""
    return torch.cat([call.part([bounds], [bounds])() for bounds in rows.bounds], dim=call.out_axis)


def _joint(call, streams, rows):
    """Text in front, image behind, all attend to all: each stream's text sees itself and the image."""
    if streams.negative and not streams.pushed and call.shares:
        return _joint_once(call, streams, rows)
    bounds = iter(rows.bounds)
    prompt = next(bounds)
    image = (rows.bounds[-1][1], call.queries)
    text, count = [], image[1] - image[0]

    def seen_by(stream, keys):
        """Answers for a stream's text and for the image."""
        answer = call.part([stream, image], keys)()
        length = stream[1] - stream[0]
        return answer.narrow(call.out_axis, 0, length), answer.narrow(call.out_axis, length, count)

    if streams.pushed:
        # The prompt's own tokens stay what they are; only the image is pushed away, and not by padding or registers.
        pushed = next(bounds)
        text += [call.part([stream], [stream, image]).with_option(PLACE, TEXT)() for stream in (prompt, pushed)]
        start = pushed[0] + rows.lead + streams.lead
        away = start, start + len(streams.weights)
        out = call.part([image], [prompt, away, image]).weighted(prompt[1], streams.weights)()
    else:
        own, out = seen_by(prompt, [prompt, image])
        text.append(own)
    if streams.negative:
        negative = next(bounds)
        own, away = seen_by(negative, [negative, image])
        text.append(own)
        out = _guide(out, away, streams, call.out_axis, call.features)
    return torch.cat([*text, out], dim=call.out_axis)


def _joint_once(call, streams, rows):
    """The same, in which everything attends to the image once, and to the texts apart.

    Attention over two sets of keys is the mean of attention over each, weighted by how much of the softmax each has.
    """
    q, k, v = call.by_head()
    text = sum(rows.lengths)
    pixels, mass = partial_attention(q, k[:, :, text:], v[:, :, text:])
    image, out, guided = (text, q.shape[2]), [], []
    for stream in rows.bounds:
        words, share = partial_attention(pick(q, [stream, image], 2), *(pick(t, [stream], 2) for t in (k, v)))
        share = torch.sigmoid(share - pick(mass, [stream, image], 2)).unsqueeze(-1)
        seen = torch.lerp(pick(pixels, [stream, image], 2).float(), words.float(), share).to(q.dtype)
        length = stream[1] - stream[0]
        out.append(seen[:, :, :length])
        guided.append(seen[:, :, length:])
    plus, minus = guided
    out = torch.cat([*out, _guide(plus, minus, streams, 2, (1, 3))], dim=2)
    return call.laid_out(out)


SPLIT = {"cross": _cross, "text": _text, "joint": _joint}


# --- Architectures ---------------------------------------------------------------------------------------------------


def _cross_kind(rows, call, place):
    """Only modules that were named attend to the text."""
    return "cross" if place is not None and call.keys != place.skip else None


def _joint_kind(rows, call, place):
    if place == TEXT:
        return "text"
    text = sum(rows.lengths)
    joint = call.queries == call.keys and call.keys > text and (rows.image is None or call.keys == text + rows.image)
    return "joint" if joint else None


class Form(NamedTuple):
    """How an architecture reads its text.

    entry: name of a module of the network that is called once in each forward. kind: (rows, call, place) -> which split
    this call of attention needs, or None. mixes: CONDStreams.mixes. hooks: network -> [(module, name of its method, what
    takes its place)]. image: (network, x) -> number of image tokens, where attention without text would be taken for
    joint. pads_in_front: whether the host pads its text, in front.
    """

    entry: str
    kind: Callable = _joint_kind
    mixes: bool = False
    hooks: Callable = lambda network: []
    image: Callable | None = None
    pads_in_front: bool = False

    def changes(self, network):
        return [(getattr(network, self.entry), "forward", _entered), *self.hooks(network)]


def _modules(network, *names):
    return [module for module in network.modules() if type(module).__name__ in names]


def _unet(network):
    blocks = _modules(network, "BasicTransformerBlock")
    text = [block.attn2 for block in blocks] + [block.attn1 for block in blocks if block.disable_self_attn]
    return [(module, "forward", _placed(CROSS)) for module in text]


def _wan(network):
    return [(m, "forward", _placed(CROSS)) for m in _modules(network, "WanT2VCrossAttention")] \
        + [(m, "forward", _wan_image) for m in _modules(network, "WanI2VCrossAttention")]


def _ltx(network):
    names = ("attn2", "audio_attn2") if hasattr(network.transformer_blocks[0], "audio_attn2") else ("attn2",)
    return [(getattr(block, name), "forward", _placed(CROSS)) for block in network.transformer_blocks for name in names]


def _cosmos(network):
    return [(block.cross_attn, "forward", _placed(CROSS)) for block in network.blocks]


def _flux(network):
    axes = list(network.params.txt_ids_dims)
    return [(network.pe_embedder, "forward", _same_end if axes == [1, 2] else _same_start)] if axes else []


def _lumina(network):
    return [
        (network, "embed_cap", _lumina_captions),
        (network.rope_embedder, "forward", _lumina_positions),
        *((module, "forward", _placed(TEXT)) for module in network.context_refiner),
        *((module, "forward", _placed(OFF)) for module in network.noise_refiner),
    ]


def _sd3(network):
    return [(network.context_processor, "forward", _text_by_stream)] if network.context_processor is not None else []


def _sd3_image(network, x):
    patch = network.patch_size
    return -(-x.shape[-2] // patch) * -(-x.shape[-1] // patch)


def _in(name, change):
    return lambda network: [(getattr(network, name), "forward", change)]


def _cross_form(entry, hooks):
    return Form(entry, _cross_kind, True, hooks)


WAN = _cross_form("time_embedding", _wan)
LTX = _cross_form("patchify_proj", _ltx)
COSMOS = _cross_form("x_embedder", _cosmos)
FORMS = {  # by the network's class, and where it is defined
    "modules.diffusionmodules.openaimodel.UNetModel": _cross_form("time_embed", _unet),
    "wan.model.WanModel": WAN,
    "wan.model.VaceWanModel": WAN,
    "wan.model.CameraWanModel": WAN,
    "lightricks.model.LTXVModel": LTX,
    "lightricks.av_model.LTXAVModel": LTX,
    "cosmos.predict2.MiniTrainDIT": COSMOS,
    "anima.model.Anima": COSMOS,
    "flux.model.Flux": Form("img_in", hooks=_flux, pads_in_front=True),
    "chroma.model.Chroma": Form("img_in"),
    "modules.diffusionmodules.mmdit.OpenAISignatureMMDITWrapper": Form("t_embedder", hooks=_sd3, image=_sd3_image),
    "qwen_image.model.QwenImageTransformer2DModel": Form("img_in", hooks=_in("pe_embedder", _same_start)),
    "lumina.model.NextDiT": Form("t_embedder", hooks=_lumina),
    "hunyuan_video.model.HunyuanVideo": Form("time_in", hooks=_in("txt_in", _text_by_stream)),
    "krea2.model.SingleStreamDiT": Form("tmlp", hooks=_in("txtfusion", _text_by_stream)),
    "ideogram4.model.Ideogram4Transformer2DModel": Form(
        "t_embedding", hooks=lambda network: [(network, "_backbone", _ideogram_backbone)]),
    "aura.mmdit.MMDiT": Form("t_embedder", hooks=_in("cond_seq_linear", _aura_registers)),
}


def refusal(model, conds):
    """Why these prompts cannot be joined on this model, in one sentence; None if they can.

    model: a ModelPatcher. conds: processed entries, of the prompts and of what is pushed away.
    """
    network = model.get_model_object("diffusion_model")
    form, kind = form_of(network), type(network).__name__
    if form is None:
        return f"attention cannot be told apart by prompt in this model, a {kind}."
    if getattr(network, "register_length", 0):
        return f"this {kind} has tokens of its own in front of the prompt."
    for entry in conds:
        for key, what in REFUSED.get(kind, {}).items():
            if key in entry["model_conds"]:
                return f"{what}, which cannot be told apart by prompt."
        if "c_crossattn" not in entry["model_conds"]:
            return "a prompt has no tokens that this model would attend to."
    widths = {entry["model_conds"]["c_crossattn"].cond.shape[-1] for entry in conds}
    if len(widths) > 1:
        wide = " and ".join(map(str, sorted(widths)))
        return f"the prompts come from different text encoders: their tokens are {wide} wide."
    return None


REFUSED = {  # by the network's class: what a prompt may carry beside its tokens
    "Flux": {"attention_mask": "a style model's mask lies over prompt and image"},
    "Chroma": {"attention_mask": "a style model's mask lies over prompt and image"},
    "HunyuanVideo": {"txt_byt5": "the prompt has glyph tokens", "clip_fea": "the prompt has tokens of an image"},
    "NextDiT": {"ref_latents": "the prompt has reference images between its parts"},
    "Anima": {"t5xxl_ids": "the prompt is encoded inside of the model"},
}


def form_of(network):
    """How this network reads its text; None for an architecture that is not known."""
    return FORMS.get(class_path(network))


def class_path(network):
    """Where the network's class is defined, and its name."""
    return f"{type(network).__module__}.{type(network).__name__}".removeprefix("comfy.ldm.")
