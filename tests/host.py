"""Real ComfyUI for tests: a tiny UNet with random weights as EPS, V or FLOW model, every guider, and a counter."""

import asyncio
from functools import cache, partial

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_patcher
import comfy.sample
import comfy.samplers
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_base import ModelType
from comfy.patcher_extension import WrappersMP
from comfy_extras.nodes_custom_sampler import Guider_Basic, Guider_DualCFG
from comfy_extras.nodes_perpneg import Guider_PerpNeg
from pack.nodes import Guidance
from pack.nodes.bridge.joined import FORMS
from pack.tests.architectures import FLUX, patcher

# Every node of the pack by its id, which never changes; where its class stands may.
NODES = {cls.define_schema().node_id: cls for cls in asyncio.run(Guidance().get_node_list())}
TYPES = {"eps": ModelType.EPS, "v": ModelType.V_PREDICTION, "flow": ModelType.FLOW}
CPU = torch.device("cpu")


class TinyUNet(comfy.supported_models_base.BASE):
    """SD1.5's shape at a hundredth of its size: transformers at input 1 and 3, in the middle, and in every output."""

    unet_config = {
        "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1, 1],
        "channel_mult": [1, 2], "transformer_depth": [1, 1], "transformer_depth_middle": 1,
        "transformer_depth_output": [1, 1, 1, 1], "num_head_channels": 16, "num_heads": -1, "context_dim": 16,
        "use_spatial_transformer": True, "legacy": False,
    }
    unet_extra_config = {}
    latent_format = comfy.latent_formats.SD15


class OneLevelUNet(TinyUNet):
    """The least that has three transformers: at input 1, in the middle, and at output 1."""

    unet_config = {**TinyUNet.unet_config, "num_res_blocks": [1], "channel_mult": [1], "transformer_depth": [1],
                   "transformer_depth_output": [1, 0]}


class TimelyUNet(OneLevelUNet):
    """One that knows the time: the norms of the others have a channel each, and take it out again."""

    unet_config = {**OneLevelUNet.unet_config, "use_scale_shift_norm": True}


@cache
def tiny_flux(seed=0):
    """A Flux model for the latents and prompts of the UNets here; it takes its guidance as an input."""
    return patcher(comfy.model_base.Flux, {**FLUX, "in_channels": 4, "out_channels": 4}, ModelType.FLUX,
                   comfy.latent_formats.SD15, seed=seed)


def random_weights(network, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.endswith("norm.weight") or weight.ndim == 1 and "weight" in name:
                weight.fill_(1.0)
            else:
                weight.copy_(torch.randn(weight.shape, generator=generator) * (weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.1))
    return network


def tiny_model(kind="eps", seed=0, family=TinyUNet):
    config = family(dict(family.unet_config))
    model = comfy.model_base.BaseModel(config, TYPES[kind], device=CPU)
    random_weights(model.diffusion_model, seed)
    return comfy.model_patcher.ModelPatcher(model, CPU, CPU)


def one_level(kind="eps", seed=0):
    return tiny_model(kind, seed, OneLevelUNet)


@cache
def timely(kind="eps", seed=0):
    return tiny_model(kind, seed, TimelyUNet)


class TwoInOne(UNetModel):
    """A network that asks itself again without the prompt: in its one forward it makes both of CFG's predictions."""

    def __init__(self, **config):
        super().__init__(**config)
        self.out_channels *= 2

    def forward(self, x, timesteps=None, context=None, *args, **kwargs):
        without = NEGATIVE[0][0].expand(len(x), -1, -1)
        ask = super().forward
        return torch.cat([ask(x, timesteps, asked, *args, **kwargs) for asked in (context, without)], dim=1)


FORMS[f"{__name__}.TwoInOne"] = FORMS["modules.diffusionmodules.openaimodel.UNetModel"]  # attention reads its text alike


def two_in_one(kind="eps", seed=0, family=OneLevelUNet):
    """The model of one_level, with the channels of both predictions."""
    model = comfy.model_base.BaseModel(family(dict(family.unet_config)), TYPES[kind], CPU, TwoInOne)
    random_weights(model.diffusion_model, seed)
    return comfy.model_patcher.ModelPatcher(model, CPU, CPU)


def prompt(seed, tokens=6, **values):
    """A CONDITIONING of random tokens."""
    generator = torch.Generator().manual_seed(1000 + seed)
    return [[torch.randn(1, tokens, 16, generator=generator), {"pooled_output": None, **values}]]


POSITIVE, NEGATIVE, EMPTY = prompt(1), prompt(2), prompt(3)


def latent(batch=1, size=16, seed=5):
    return torch.randn(batch, 4, size, size, generator=torch.Generator().manual_seed(seed))


def sample(model, cfg=7.0, sampler="euler", steps=6, batch=1, scheduler="normal", positive=POSITIVE,
           negative=NEGATIVE, noise=None, image=None, seed=3, size=16, **more):
    """The plain KSampler path: the finished latent."""
    noise = latent(batch, size) if noise is None else noise
    image = torch.zeros_like(noise) if image is None else image
    return comfy.sample.sample(model, noise, steps, cfg, sampler, scheduler, positive, negative, image,
                               disable_pbar=True, seed=seed, **more)


def short(model, **how):
    """A short run of a small picture."""
    return sample(model, **{"steps": 4, "size": 8, **how})


def guided_by(guider, sampler="euler", steps=6, batch=1, image=None, size=16):
    """The SamplerCustomAdvanced path."""
    noise = latent(batch, size)
    sigmas = comfy.samplers.calculate_sigmas(guider.model_patcher.get_model_object("model_sampling"), "normal", steps)
    return guider.sample(noise, torch.zeros_like(noise) if image is None else image,
                         comfy.samplers.sampler_object(sampler), sigmas, disable_pbar=True, seed=3)


def cfg_guider(model, cfg=7.0, positive=POSITIVE, negative=NEGATIVE):
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    return guider


def basic_guider(model, positive=POSITIVE):
    guider = Guider_Basic(model)
    guider.set_conds(positive)
    return guider


def dual_guider(model, cfg1=3.0, cfg2=5.0, nested=False):
    guider = Guider_DualCFG(model)
    guider.set_conds(POSITIVE, EMPTY, NEGATIVE)
    guider.set_cfg(cfg1, cfg2, nested)
    return guider


def perp_neg_guider(model, cfg=5.0, neg_scale=1.0, positive=POSITIVE, negative=NEGATIVE, empty=EMPTY):
    guider = Guider_PerpNeg(model)
    guider.set_conds(positive, negative, empty)
    guider.set_cfg(cfg, neg_scale)
    return guider


CORE_GUIDERS = {"cfg": cfg_guider, "basic": basic_guider, "dual": dual_guider, "perp-neg": perp_neg_guider}


class Counter:
    """Counts forwards and their rows (in units of the batch) on the way into the network."""

    def __init__(self, model, batch=1):
        self.model, self.batch, self.rows, self.calls = model.clone(), batch, 0, 0
        self.model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "counter", self.count)

    def count(self, executor, x, *args, **kwargs):
        self.calls += 1
        self.rows += x.shape[0] // self.batch
        return executor(x, *args, **kwargs)


def node(cls, model, **knobs):
    """What a strategy node makes of a model; absent knobs have their defaults."""
    defaults = {}
    for given in cls.inputs:
        widget = getattr(given, "input_override", None) or given
        if getattr(widget, "default", None) is not None:
            defaults[given.id] = widget.default
    return cls.execute(model, **{**defaults, **knobs}).result[0]


def tiny_clip():
    """SD1.5's text encoder with its own tokenizer and random weights, as wide as the prompts here."""
    target = comfy.supported_models_base.ClipTarget(comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel)
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    clip = comfy.sd.CLIP(target, embedding_directory=[], model_options={"clip_l_model_config": size})
    random_weights(clip.cond_stage_model, 0)
    return clip


# What a strategy needs besides its defaults.
GIVEN = {
    "GuidanceTextEncode": {"clip": tiny_clip(), "text": "a cat, (dog:-1)"},
    "GuidanceNegative": {"negative": prompt(7)},
    "GuidanceNAG": {"negative": prompt(7)},
    "GuidancePushAway": {"away": prompt(8)},
    "GuidanceSLG": {"start": 0.0, "end": 1.0},
    "GuidanceRandomLayers": {"start": 0.0, "end": 1.0},
    "GuidanceAutoguidance": {"weak_model": one_level(seed=9)},
    "GuidanceClassifier": {"classifier": lambda latents, sigma: -latents.flatten(1).cos().sum(1)},
}


ON_FLUX = {"GuidanceDistilled"}  # strategies for another model than a UNet
ON_TIMELY = {"GuidanceTSG"}  # and for one that knows the time


def home(id, model):
    """The UNet, or a model that the strategy of this id is for."""
    if id in ON_FLUX or model is tiny_flux():
        return tiny_flux()
    return timely() if id in ON_TIMELY else model


def made(id, model, **knobs):
    """What the strategy of this id makes of a model, with all that it needs."""
    return node(NODES[id], model, **{**GIVEN.get(id, {}), **knobs})


def counted_by(run, model, **how):
    """What a run of the model gives and costs: (the finished latent, rows, calls)."""
    counter = Counter(model, how.get("batch", 1))
    answer = run(counter.model, **how)
    return answer, counter.rows, counter.calls


counted = partial(counted_by, short)


def ranged(conditioning, start, end):
    """In force from start to end, in percent."""
    return [[tokens, {**values, "start_percent": start, "end_percent": end}] for tokens, values in conditioning]
