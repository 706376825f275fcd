"""The layers of a network that can be weakened: what they are called, where they are, and what they take and hand back."""

import re
from collections.abc import Callable
from math import prod
from typing import NamedTuple
from weakref import WeakKeyDictionary

from torch import nn

from .joined import class_path


class Block(NamedTuple):
    """A module that is called once in a forward and hands back what it takes, changed.

    name: the layer that it is, as users write it; "" where it only lies on the way. layers: those that lie in it. module:
    None where it is known otherwise. takes: names and places of the arguments that it changes, in the order of its answer;
    none where only its attention counts. text: which of these is text, where picture and text come apart. attention: names
    of its modules in which the picture looks at itself; none where the whole block does, and at the text too.
    """

    name: str
    layers: tuple[str, ...]
    module: nn.Module | None
    takes: tuple[tuple[str, int], ...] = (("x", 0),)
    text: int | None = None
    attention: tuple[str, ...] = ()


class Anatomy(NamedTuple):
    """What is known of a network. blocks: in the order of the forward.

    layers: names of those that can be weakened, in that order. patch: how many frames, rows and columns of the latent
    make a token. joint: whether picture and text look at each other. restores: whether shuffled tokens are put back behind
    each block; a UNet leaves them, as its skip connections bring back the order. rotary: whether tokens are told their
    places in each attention.
    """

    blocks: list[Block]
    patch: tuple[int, int, int]
    joint: bool = False
    restores: bool = True
    rotary: bool = True

    @property
    def layers(self):
        return [block.name for block in self.blocks if block.name]

    def grid(self, shape, stream=0):
        """(frames, rows, columns) of the tokens of a latent of this shape (batch, channels, ...)."""
        if stream > 0:  # sound, whose frequencies make one token
            return 1, 1, shape[2]
        sides = ((1,) * 3 + tuple(shape[2:]))[-3:]
        return tuple(-(-side // step) for side, step in zip(sides, self.patch))


class Kind(NamedTuple):
    """An architecture. lists: (what its blocks are called, the network's attribute, what they take, which of it is text)."""

    lists: tuple
    attention: tuple[str, ...] = ()
    patch: Callable = lambda network: (1, network.patch_size, network.patch_size)
    rotary: bool = True

    def anatomy(self, network):
        blocks = []
        for name, attribute, takes, text in self.lists:
            for i, module in enumerate(getattr(network, attribute)):
                attention = tuple(name for name in self.attention if hasattr(module, name))
                blocks.append(Block(f"{name}.{i}", (f"{name}.{i}",), module, takes, text, attention))
        return Anatomy(blocks, self.patch(network), not self.attention, rotary=self.rotary)


X, PAIR = (("x", 0),), (("img", 0), ("txt", 1))
FLUX = Kind((("double", "double_blocks", PAIR, 1), ("single", "single_blocks", X, None)))
WAN = Kind((("double", "blocks", X, None),), ("self_attn",), lambda network: tuple(network.patch_size))
LTX = Kind((("double", "transformer_blocks", X, None),), ("attn1", "audio_attn1"), lambda network: (1, 1, 1))
COSMOS = Kind((("double", "blocks", (("x_B_T_H_W_D", 0),), None),), ("self_attn",),
              lambda network: (network.patch_temporal, network.patch_spatial, network.patch_spatial))
KINDS = {  # by the network's class, and where it is defined
    "wan.model.WanModel": WAN,
    "wan.model.VaceWanModel": WAN,
    "wan.model.CameraWanModel": WAN,
    "lightricks.model.LTXVModel": LTX,
    "lightricks.av_model.LTXAVModel": LTX,
    "cosmos.predict2.MiniTrainDIT": COSMOS,
    "anima.model.Anima": COSMOS,
    "flux.model.Flux": FLUX,
    "chroma.model.Chroma": FLUX,
    "hunyuan_video.model.HunyuanVideo": FLUX._replace(
        patch=lambda network: (1, *network.patch_size) if len(network.patch_size) == 2 else tuple(network.patch_size)),
    "modules.diffusionmodules.mmdit.OpenAISignatureMMDITWrapper": Kind(
        (("double", "joint_blocks", (("", 0), ("", 1)), 0),), rotary=False),
    "qwen_image.model.QwenImageTransformer2DModel": Kind(
        (("double", "transformer_blocks", (("encoder_hidden_states", 1), ("hidden_states", 0)), 0),)),
    "lumina.model.NextDiT": Kind((("double", "layers", X, None),)),
    "krea2.model.SingleStreamDiT": Kind(
        (("single", "blocks", X, None),), patch=lambda network: (1, network.patch, network.patch)),
    "ideogram4.model.Ideogram4Transformer2DModel": Kind((("single", "layers", X, None),), patch=lambda network: (1, 1, 1)),
    "aura.mmdit.MMDiT": Kind(
        (("double", "double_layers", (("c", 0), ("x", 1)), 0), ("single", "single_layers", (("cx", 0),), None)), rotary=False),
}
ON_THE_WAY = ("ResBlock", "SpatialTransformer", "Downsample", "Upsample")  # of a UNet: what works row by row


def unet(network):
    """Layers are called by block, its number, and the transformer in it: input.4.0"""
    blocks = []
    parts = [("input", i, part) for i, part in enumerate(network.input_blocks)]
    parts += [("middle", 0, network.middle_block or [])]
    parts += [("output", i, part) for i, part in enumerate(network.output_blocks)]
    for part, number, modules in parts:
        for module in modules:
            transformers = getattr(module, "transformer_blocks", [])
            names = tuple(f"{part}.{number}.{i}" for i in range(len(transformers)))
            if type(module).__name__ in ON_THE_WAY:
                blocks.append(Block("", names, module))
            blocks += [Block(name, (name,), block, attention=("attn1",)) for name, block in zip(names, transformers)]
            along_time = getattr(module, "time_stack", [])  # of video models
            blocks += [Block("", (name,), block, (), attention=("attn1",)) for name, block in zip(names, along_time)]
    return Anatomy(blocks, (1, 1, 1), restores=False)


_known: WeakKeyDictionary = WeakKeyDictionary()


def anatomy_of(network):
    """The Anatomy of a network, or None where none is known."""
    if network not in _known:
        kind = KINDS.get(class_path(network))
        found = kind.anatomy(network) if kind else unet(network) if hasattr(network, "input_blocks") else None
        _known[network] = found if found and found.layers else None
    return _known[network]


# ---------------------------------------------------------------------------------------------------- layers as text

MOST = 1000  # names in a text: ten times the layers of any model
# Published choices, by the network's class and what is done: which layers, of how many. Elsewhere, the middle.
PUBLISHED = {
    ("OpenAISignatureMMDITWrapper", "skip"): ("double.7-9", 24),  # Stable Diffusion 3.5 medium, Stability AI
    ("LTXVModel", "skip"): ("double.19", 28), ("LTXVModel", "identity"): ("double.19", 28),  # STG, Hyung et al.
    ("LTXAVModel", "skip"): ("double.28", 48), ("LTXAVModel", "identity"): ("double.28", 48),  # LTX-2, Lightricks
    ("WanModel", "skip"): ("double.9-10", 30),  # the community's, for the negative's row
}


def choose_layers(network, text, kind, strategy):
    """The layers that a text names, in the order of the network.

    text: names with commas between. A name stands for all layers that begin with it (`input.4`), a range for several
    (`double.7-9`, `40%-60%` of the depth), `all` for all, `middle` for the middle, and `auto` for what is published for
    this model and what is done to it (`kind`), else the middle. A question mark behind a name lets it be missing.
    """
    anatomy = anatomy_of(network)
    if anatomy is None:
        raise ValueError(f"{strategy}: the layers of this model, a {type(network).__name__}, are not known.")
    if kind == "shuffle" and not anatomy.rotary:
        raise ValueError(f"{strategy}: this model, a {type(network).__name__}, tells tokens their places only at its start, so "
                         "shuffling them for the time of a block changes nothing.")
    layers = anatomy.layers
    chosen: set[str] = set()
    names = dict.fromkeys(filter(None, (part.strip() for part in text.split(","))))
    if len(names) > MOST:
        raise ValueError(f"{strategy}: layers has {len(names)} names; it has to have at most {MOST}.")
    for name in names:
        found = published(network, layers, kind) if name.lower() == "auto" else named(layers, name.rstrip("?"))
        if not found and not name.endswith("?"):
            raise ValueError(f"{strategy}: this model has no layer {name[:60]!r}; it has {spoken(layers)}.")
        chosen.update(found)
    if not chosen:
        raise ValueError(f"{strategy}: name at least one layer; this model has {spoken(layers)}.")
    return tuple(layer for layer in layers if layer in chosen)


def published(network, layers, kind):
    if kind == "draw":  # S2-Guidance leaves out any but the first, which matters too much
        return layers[1:] or layers
    if kind == "shuffle" and hasattr(network, "input_blocks"):  # TPG's, which for SDXL are its layers 6 to 23 of 24
        encoder = [layer for layer in layers if layer.startswith("input.")]
        return encoder[len(encoder) // 4:] or named(layers, "middle")
    text, depth = PUBLISHED.get((type(network).__name__, kind), ("middle", len(layers)))
    return named(layers, text if len(layers) >= depth else "middle")


def named(layers, name):
    """The layers that one name stands for; none where there is no such layer."""
    share = re.fullmatch(r"(\d+(?:\.\d+)?)%?\s*-\s*(\d+(?:\.\d+)?)%", name)
    if share:
        low, high = (float(part) / 100 * len(layers) for part in share.groups())
        return [layer for i, layer in enumerate(layers) if low <= i < high]
    if name.lower() == "all":
        return layers
    found = [layer for layer in layers if f"{layer}.".startswith(f"{name}.")]
    if name.lower() == "middle":
        return found or [layers[len(layers) // 2]]
    several = re.fullmatch(r"(?:(.*)\.)?(\d{1,99})\s*-\s*(\d{1,99})", name)
    kinds = {layer.partition(".")[0] for layer in layers}
    if not found and several:
        begin, first, last = several.groups()
        begins = [begin] if begin else kinds if len(kinds) == 1 else []  # 7-9, where there is one kind only
        found = [layer for layer in layers if any(int(first) <= number_in(layer, begin) <= int(last) for begin in begins)]
    if not found and name.isdecimal() and len(name) < 100 and len(kinds) == 1:
        found = [layer for layer in layers if layer == f"{min(kinds)}.{int(name)}"]
    return found


def number_in(layer, begin):
    """The number that a layer's name has behind this beginning; -1 where it begins otherwise."""
    rest = layer.removeprefix(f"{begin}.")
    return int(rest.partition(".")[0]) if rest != layer and rest[:1].isdecimal() else -1


def spoken(layers):
    """Layers in words: input.1.0, double.0 to double.18"""
    if prod(layer.count(".") for layer in layers) != 1:
        return ", ".join(layers)
    kinds = dict.fromkeys(layer.partition(".")[0] for layer in layers)
    ends = [(kind, sum(layer.startswith(f"{kind}.") for layer in layers) - 1) for kind in kinds]
    return ", ".join(f"{kind}.0 to {kind}.{last}" if last else f"{kind}.0" for kind, last in ends)
