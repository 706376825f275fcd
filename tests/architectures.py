"""Tiny real instances of the host's own models, one for each architecture that the pack works on.

    model = ARCHITECTURES["flux"].model()                       # a ModelPatcher, random weights of a sound scale
    result = ARCHITECTURES["flux"].sample(model, cfg=3.0)       # the KSampler path, two steps, the latent at the end

Nothing here is a mock: the classes are comfy.model_base's, with small configs. A host that is too old for an
architecture lacks its class, and then the name is missing in ARCHITECTURES.
"""

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod

import comfy.latent_formats
import comfy.model_base
import comfy.model_patcher
import comfy.nested_tensor
import comfy.sample
import comfy.samplers
import comfy.supported_models_base
import torch
from comfy.model_base import ModelType
from comfy.patcher_extension import WrappersMP

try:
    from comfy.multigpu import MultiGPUThreadPool
except ImportError:  # hosts before 0.29 run on one device
    MultiGPUThreadPool = None

CPU = torch.device("cpu")
Predictions = namedtuple("Predictions", "cond uncond")


@dataclass(frozen=True)
class Architecture:
    """How to build one tiny model, and what it takes as a prompt.

    base: name of the class in comfy.model_base. config: of its network. latent: shape of one sample without the
        batch; a tuple of shapes for packed streams. width: features of a text token. image: image tokens in the
        longest attention (padding of the architecture's own included), by which a test finds them; None where text
        only ever is keys and values. text: tokens of the prompts in a test; unequal: another such number.
    extras: (tokens, generator) -> what the CONDITIONING carries beside its tokens. masked: whether the text
        encoder of this architecture gives an attention mask.
    """

    name: str
    base: str
    config: dict
    latent: tuple
    width: int
    image: int | None = None
    kind: ModelType = ModelType.FLOW
    format: str = "LatentFormat"
    text: int = 12
    unequal: int = 7
    extras: Callable = lambda tokens, generator: {}
    masked: bool = False
    settings: dict = field(default_factory=dict)

    @property
    def streams(self):
        """Shapes of the latent's streams, without the batch."""
        return self.latent if isinstance(self.latent[0], tuple) else (self.latent,)

    def model(self, seed=0, **changes):
        """A ModelPatcher around the tiny model. changes: of the network's config."""
        return patcher(getattr(comfy.model_base, self.base), {**self.config, **changes}, self.kind,
                       getattr(comfy.latent_formats, self.format), self.settings, seed)

    def prompt(self, seed=1, tokens=None, kept=None, batch=1, **values):
        """A CONDITIONING of random tokens.

        kept: how many of them the attention mask keeps (the rest is padding); None gives no mask.
        """
        tokens = self.text if tokens is None else tokens
        generator = torch.Generator().manual_seed(1000 + seed)
        context = torch.randn(batch, tokens, self.width, generator=generator)
        given = {"pooled_output": None, **self.extras(tokens, generator)}
        if kept is not None:
            given["attention_mask"] = (torch.arange(tokens) < kept).long().expand(batch, -1)
        return [[context, {**given, **values}]]

    def noise(self, batch=1, seed=5):
        """A latent of noise; a NestedTensor where the architecture has several streams."""
        generator = torch.Generator().manual_seed(seed)
        parts = [torch.randn(batch, *shape, generator=generator) for shape in self.streams]
        return parts[0] if len(parts) == 1 else comfy.nested_tensor.NestedTensor(parts)

    def sample(self, model, cfg=1.0, positive=None, negative=None, batch=1, steps=2, noise=None, seed=3, **more):
        """The KSampler path: the finished latent, streams flattened into one tensor (batch, all)."""
        positive = self.prompt(1) if positive is None else positive
        negative = self.prompt(2) if negative is None else negative
        noise = self.noise(batch) if noise is None else noise
        with torch.inference_mode():
            out = comfy.sample.sample(model, noise, steps, cfg, "euler", "normal", positive, negative, noise * 0,
                                      disable_pbar=True, seed=seed, **more)
        parts = out.unbind() if out.is_nested else [out]
        return torch.cat([part.flatten(1) for part in parts], dim=1)

    def predict(self, model, **more):
        """What the first evaluation predicts: (cond, uncond), each flattened to (batch, all)."""
        seen, model = [], model.clone()
        model.set_model_sampler_post_cfg_function(lambda args: seen.append(args) or args["denoised"])
        self.sample(model, steps=1, **more)
        return Predictions(seen[0]["cond_denoised"].flatten(1), seen[0]["uncond_denoised"].flatten(1))


def patcher(base, config, kind=ModelType.FLOW, latent_format=comfy.latent_formats.LatentFormat, settings=None, seed=0):
    """A host model with random weights in its ModelPatcher."""

    class Config(comfy.supported_models_base.BASE):
        unet_config = {}
        unet_extra_config = {}
        sampling_settings = settings or {}

    Config.latent_format = latent_format
    config = Config({"dtype": torch.float32, **config})
    model = base(config, kind, device=CPU) if base is not comfy.model_base.BaseModel else base(config, kind, CPU)
    fill(model.diffusion_model, torch.Generator().manual_seed(seed))
    return comfy.model_patcher.ModelPatcher(model, CPU, CPU)


@torch.no_grad()
def fill(network, generator):
    """Random weights under which the signal keeps its size and every token matters."""
    for name, weight in network.named_parameters():
        if weight.ndim == 1 and name.endswith("weight"):
            weight.fill_(1.0)  # a norm's
        elif weight.ndim == 1:
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
        else:
            weight.copy_(torch.randn(weight.shape, generator=generator) * prod(weight.shape[1:]) ** -0.5)
    for name, buffer in network.named_buffers():
        if name.endswith("pos_embed"):  # SD3's is left as it was allocated
            buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.5)


def pooled(width):
    return lambda tokens, generator: {"pooled_output": torch.randn(1, width, generator=generator)}


UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1, 1],
    "channel_mult": [1, 2], "num_head_channels": 16, "num_heads": -1, "use_spatial_transformer": True, "legacy": False,
}
FLUX = {
    "image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": 8, "context_in_dim": 16, "hidden_size": 64,
    "mlp_ratio": 2.0, "num_heads": 4, "depth": 2, "depth_single_blocks": 2, "axes_dim": [4, 6, 6], "theta": 10000,
    "patch_size": 2, "qkv_bias": True, "guidance_embed": True, "txt_ids_dims": [],
}
WAN = {
    "image_model": "wan2.1", "model_type": "t2v", "in_dim": 16, "dim": 48, "ffn_dim": 96, "freq_dim": 32, "text_dim": 16,
    "out_dim": 16, "num_heads": 4, "num_layers": 3, "qk_norm": True, "cross_attn_norm": True,
}
LUMINA = {
    "image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 48, "cap_feat_dim": 16, "n_layers": 3, "qk_norm": True,
    "n_heads": 4, "n_kv_heads": 2, "axes_dims": [4, 4, 4], "axes_lens": [300, 64, 64], "rope_theta": 10000.0,
    "ffn_dim_multiplier": 2.0, "multiple_of": 16,
}
LTX = {
    "in_channels": 16, "cross_attention_dim": 48, "attention_head_dim": 12, "num_attention_heads": 4, "caption_channels": 16,
    "num_layers": 3,
}
COSMOS = {
    "max_img_h": 64, "max_img_w": 64, "max_frames": 16, "in_channels": 16, "out_channels": 16, "patch_spatial": 2,
    "patch_temporal": 1, "concat_padding_mask": True, "model_channels": 64, "num_blocks": 3, "num_heads": 4,
    "crossattn_emb_channels": 16, "pos_emb_cls": "rope3d", "pos_emb_learnable": True, "pos_emb_interpolation": "crop",
    "use_adaln_lora": True, "adaln_lora_dim": 16, "rope_h_extrapolation_ratio": 4.0, "rope_w_extrapolation_ratio": 4.0,
}
QWEN = {
    "image_model": "qwen_image", "patch_size": 2, "in_channels": 64, "out_channels": 16, "num_layers": 3,
    "attention_head_dim": 16, "num_attention_heads": 4, "joint_attention_dim": 16, "axes_dims_rope": (4, 6, 6),
}
HUNYUAN = {
    "image_model": "hunyuan_video", "in_channels": 16, "out_channels": 16, "vec_in_dim": 8, "context_in_dim": 16,
    "hidden_size": 64, "mlp_ratio": 2.0, "num_heads": 4, "depth": 2, "depth_single_blocks": 2, "axes_dim": [4, 6, 6],
    "theta": 256, "patch_size": [1, 2, 2], "qkv_bias": True, "guidance_embed": True, "byt5": False, "meanflow": False,
    "use_cond_type_embedding": False, "vision_in_dim": None, "meanflow_sum": False,
}
SD3 = {
    "input_size": None, "patch_size": 2, "in_channels": 16, "depth": 2, "num_patches": 256, "pos_embed_max_size": 16,
    "adm_in_channels": 8, "qk_norm": "rms", "x_block_self_attn_layers": [0],
    "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 16, "out_features": 128}},
}


def i2v(tokens, generator):
    """What WanImageToVideo adds to a prompt: the first frame, its mask, and what CLIP vision saw in it."""
    seen = type("Seen", (), {})()
    seen.penultimate_hidden_states = torch.randn(1, 257, 1280, generator=generator)
    return {"clip_vision_output": seen, "concat_latent_image": torch.randn(1, 16, 2, 10, 8, generator=generator),
            "concat_mask": torch.ones(1, 1, 2, 10, 8)}


def edit(tokens, generator):
    return {"reference_latents": [torch.randn(1, 16, 1, 8, 6, generator=generator)]}


def unmasked(tokens, generator):
    return {"attention_mask": torch.ones(1, tokens, dtype=torch.long)}  # LTX-Video wants a mask, even one that keeps all


def kontext(tokens, generator):
    return {**pooled(8)(tokens, generator), "reference_latents": [torch.randn(1, 16, 8, 6, generator=generator)]}


KNOWN = [
    Architecture("sd15", "BaseModel", {
        **UNET, "transformer_depth": [1, 1], "transformer_depth_middle": 1, "transformer_depth_output": [1, 1, 1, 1],
        "context_dim": 16,
    }, (4, 16, 12), 16, kind=ModelType.EPS, format="SD15"),
    Architecture("sdxl", "SDXL", {
        **UNET, "transformer_depth": [0, 2], "transformer_depth_middle": 2, "transformer_depth_output": [0, 0, 2, 2],
        "context_dim": 16, "num_classes": "sequential", "adm_in_channels": 8 + 6 * 256, "use_linear_in_transformer": True,
    }, (4, 16, 12), 16, kind=ModelType.EPS, format="SDXL", extras=pooled(8)),
    Architecture("sd3", "SD3", SD3, (16, 16, 12), 16, image=48, extras=pooled(8), format="SD3"),
    Architecture("flux", "Flux", FLUX, (16, 16, 12), 16, image=48, kind=ModelType.FLUX, extras=pooled(8), format="Flux"),
    Architecture("kontext", "Flux", FLUX, (16, 16, 12), 16, image=60, kind=ModelType.FLUX, extras=kontext, format="Flux"),
    Architecture("flux2", "Flux2", {
        **FLUX, "image_model": "flux2", "in_channels": 128, "out_channels": 128, "vec_in_dim": None, "patch_size": 1,
        "num_heads": 2, "axes_dim": [8, 8, 8, 8], "theta": 2000, "mlp_ratio": 3.0, "global_modulation": True,
        "mlp_silu_act": True, "qkv_bias": False, "ops_bias": False, "txt_ids_dims": [3], "default_ref_method": "index",
        "ref_index_scale": 10.0, "guidance_embed": False,
    }, (128, 8, 6), 16, image=48, kind=ModelType.FLUX, format="Flux2", text=40, unequal=520),
    Architecture("longcat", "LongCatImage", {**FLUX, "vec_in_dim": None, "guidance_embed": False, "txt_ids_dims": [1, 2]},
                 (16, 16, 12), 16, image=48, kind=ModelType.FLUX, format="Flux"),
    Architecture("chroma", "Chroma", {
        "image_model": "chroma", "in_channels": 64, "out_channels": 64, "context_in_dim": 16, "hidden_size": 64, "mlp_ratio": 2.0,
        "num_heads": 4, "depth": 2, "depth_single_blocks": 2, "axes_dim": [4, 6, 6], "theta": 10000, "patch_size": 2,
        "qkv_bias": True, "in_dim": 64, "out_dim": 64, "hidden_dim": 48, "n_layers": 2, "txt_ids_dims": [], "vec_in_dim": None,
    }, (16, 16, 12), 16, image=48, kind=ModelType.FLUX, format="Flux"),
    Architecture("wan", "WAN21", WAN, (16, 2, 10, 8), 16, format="Wan21", settings={"shift": 8.0}),
    Architecture("wan_i2v", "WAN21", {**WAN, "model_type": "i2v", "in_dim": 36}, (16, 2, 10, 8), 16, format="Wan21",
                 extras=i2v, settings={"shift": 8.0}),
    Architecture("wan_vace", "WAN21_Vace", {**WAN, "model_type": "vace", "vace_layers": 3, "vace_in_dim": 96}, (16, 2, 10, 8), 16,
                 format="Wan21", settings={"shift": 8.0}),
    Architecture("wan_camera", "WAN21_Camera", {**WAN, "model_type": "camera", "in_dim": 36}, (16, 2, 10, 8), 16, format="Wan21",
                 extras=i2v, settings={"shift": 8.0}),
    Architecture("ltxv", "LTXV", {"image_model": "ltxv", **LTX}, (16, 2, 6, 4), 16, kind=ModelType.FLUX, format="LTXV",
                 masked=True, extras=unmasked),
    Architecture("ltxav", "LTXAV", {
        "image_model": "ltxav", **LTX, "audio_in_channels": 128, "audio_cross_attention_dim": 32, "audio_attention_head_dim": 8,
        "audio_num_attention_heads": 4, "connector_attention_head_dim": 8, "connector_num_attention_heads": 2,
        "connector_num_layers": 1,
    }, ((16, 2, 6, 4), (8, 9, 16)), 32, kind=ModelType.FLUX, format="LTXAV"),
    Architecture("qwen", "QwenImage", QWEN, (16, 1, 16, 12), 16, image=48, kind=ModelType.FLUX, format="Wan21", masked=True),
    Architecture("qwen_edit", "QwenImage", QWEN, (16, 1, 16, 12), 16, image=60, kind=ModelType.FLUX, format="Wan21",
                 masked=True, extras=edit),
    Architecture("lumina2", "Lumina2", LUMINA, (16, 16, 12), 16, image=48, format="Flux", masked=True),
    Architecture("z_image", "Lumina2", {
        **LUMINA, "dim": 256, "n_kv_heads": 4, "axes_dims": [16, 24, 24], "z_image_modulation": True, "time_scale": 1000.0,
        "pad_tokens_multiple": 8, "rope_theta": 256.0,
    }, (16, 16, 12), 16, image=48, format="Flux"),
    Architecture("hunyuan_video", "HunyuanVideo", HUNYUAN, (16, 2, 10, 8), 16, image=40, extras=pooled(8),
                 format="HunyuanVideo", masked=True),
    Architecture("hunyuan_image", "HunyuanImage21", {**HUNYUAN, "vec_in_dim": None, "patch_size": [1, 1], "axes_dim": [8, 8]},
                 (16, 8, 6), 16, image=48, masked=True),
    Architecture("cosmos_predict2", "CosmosPredict2", {"image_model": "cosmos_predict2", **COSMOS}, (16, 2, 10, 8), 16,
                 kind=ModelType.FLOW_COSMOS, format="Wan21", settings={"sigma_data": 1.0, "sigma_max": 80.0, "sigma_min": 0.002}),
    Architecture("krea2", "Krea2", {
        "image_model": "krea2", "features": 64, "tdim": 32, "txtdim": 8, "heads": 4, "kvheads": 2, "multiplier": 2, "layers": 3,
        "patch": 2, "channels": 16, "txtlayers": 3, "txtheads": 2, "txtkvheads": 2,
    }, (16, 1, 16, 12), 24, image=48, kind=ModelType.FLUX, format="Wan21"),
    Architecture("ideogram4", "Ideogram4", {
        "image_model": "ideogram4", "in_channels": 128, "num_layers": 3, "num_attention_heads": 4, "attention_head_dim": 16,
        "intermediate_size": 96, "adaln_dim": 32, "llm_features_dim": 16, "mrope_section": (4, 2, 2),
    }, (128, 8, 6), 16, image=48, format="Flux2", masked=True),
    Architecture("aura", "AuraFlow", {
        "in_channels": 4, "out_channels": 4, "patch_size": 2, "dim": 64, "n_layers": 3, "n_double_layers": 1, "n_heads": 4,
        "global_conddim": 64, "cond_seq_dim": 16, "max_seq": 64,
    }, (4, 16, 12), 16, image=48, format="SDXL"),
]

ARCHITECTURES = {a.name: a for a in KNOWN if hasattr(comfy.model_base, a.base) and hasattr(comfy.latent_formats, a.format)}


class TwoDevices:
    """A model and its twin on a device each, with some of the entries of every batch, in threads as MultiGPU has them."""

    def __init__(self, architecture):
        self.model, twin = architecture.model(), architecture.model()
        twin.model.current_patcher = twin
        self.devices = {CPU: self.model, torch.device("cpu", 0): twin}
        self.networks, self.seen = {self.model.model, twin.model}, set()

    def split(self, model):
        """This patched clone of the model, on both."""
        split = model.clone()
        split.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "two", self.on_two)
        split.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "where", self.where)
        return split

    def on_two(self, executor, host, conds, x, timestep, options):
        pool = MultiGPUThreadPool(list(self.devices))
        try:
            more = {"multigpu_clones": self.devices, "multigpu_thread_pool": pool}
            return executor(host, conds, x, timestep, {**options, **more})
        finally:
            pool.shutdown()

    def where(self, executor, *args, **kwargs):
        self.seen.add(executor.class_obj)
        return executor(*args, **kwargs)
