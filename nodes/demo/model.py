"""The bundled tiny text-to-image model as a node: real MODEL, CLIP and VAE objects that every core node accepts."""
from pathlib import Path

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import safetensors.torch
import torch
from comfy_api.latest import io

from ..bridge import halves
from ..bridge.joined import FORMS
from ..inputs import checked
from . import single_pass
from .network import ARCHITECTURE, DemoUNet, eight_groups
from .text import BOS, LENGTH, PAD, TextEncoder, word_ids

WEIGHTS = Path(__file__).with_name("model.safetensors")
TYPES = {"v": "V_PREDICTION", "eps": "EPS", "flow": "FLOW"}

ORDINARY, SINGLE_PASS = "ordinary", "single-pass"
NETWORKS = {ORDINARY: DemoUNet, SINGLE_PASS: single_pass.SinglePassUNet}
# What they change is around the UNet, whose attention reads its text as any other's does.
for kind in NETWORKS.values():
    FORMS[f"{kind.__module__}.{kind.__name__}"] = FORMS["modules.diffusionmodules.openaimodel.UNetModel"]


class DemoOps(comfy.ops.disable_weight_init):
    GroupNorm = eight_groups(comfy.ops.disable_weight_init.GroupNorm)


class DemoConfig(comfy.supported_models_base.BASE):
    """Pixels are the latents: three channels, no downscaling."""
    unet_extra_config: dict = {}
    latent_format = comfy.latent_formats.ChromaRadiance
    custom_operations = DemoOps
    memory_usage_factor = .2


class DemoTokenizer:
    """Words to [(token, weight), ...] with ComfyUI's (word:1.2) syntax."""

    def __init__(self, embedding_directory=None, tokenizer_data={}):
        pass

    def tokenize_with_weights(self, text, return_word_ids=False, **kwargs):
        weighted = comfy.sd1_clip.token_weights(text, 1.)
        tokens = [(token, weight) for part, weight in weighted for token in word_ids(part)]
        if len(tokens) >= LENGTH:
            raise ValueError(f"The demo model reads at most {LENGTH - 1} words, and this prompt has {len(tokens)}.")
        tokens = [(BOS, 1.), *tokens] + [(PAD, 1.)] * (LENGTH - 1 - len(tokens))
        if return_word_ids:
            tokens = [(*token, i) for i, token in enumerate(tokens)]
        return {"demo": [tokens]}

    def state_dict(self):
        return {}


class DemoTextModel(torch.nn.Module, comfy.sd1_clip.ClipTokenWeightEncoder):
    """TextEncoder with the interface of ComfyUI's text encoders; fp32, because it is too small to gain from less."""
    dtypes = {torch.float32}
    disable_offload = True  # plain torch layers cannot be cast on the fly
    special_tokens = {"start": BOS, "pad": PAD}

    def __init__(self, device=None, dtype=None, model_options={}):
        super().__init__()
        self.encoder = TextEncoder(device=device).eval().requires_grad_(False)

    def encode_token_weights(self, tokens):
        return super().encode_token_weights(tokens["demo"])

    def encode(self, tokens):
        return self.encoder(torch.tensor(tokens, device=self.encoder.places.device)), None

    def set_clip_options(self, options):
        pass  # there are no layers to choose from

    def reset_clip_options(self):
        pass

    def load_sd(self, weights):
        return self.encoder.load_state_dict(weights)


def load(prediction="v", network=ORDINARY, path=WEIGHTS):
    """(model, clip, vae) of the demo model, exposed as a "v", "eps" or "flow" model. path: of other weights for it."""
    if prediction not in TYPES:
        raise ValueError(f"The demo model's prediction is one of {', '.join(TYPES)}, not {prediction!r}.")
    weights = weights_of(path)
    return load_model(prediction, part(weights, "unet."), network), load_clip(part(weights, "text.")), load_vae()


def weights_of(path):
    return {name: value.float() for name, value in safetensors.torch.load_file(path).items()}


def part(weights, prefix):
    """Those whose names begin with it, without it."""
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def load_model(prediction, weights, network=ORDINARY):
    offload = comfy.model_management.unet_offload_device()
    config = DemoConfig({**ARCHITECTURE, "prediction": prediction})
    config.set_inference_dtype(torch.float32, None)
    kind = getattr(comfy.model_base.ModelType, TYPES[prediction])
    model = comfy.model_base.BaseModel(config, kind, offload, NETWORKS[network])
    if network == SINGLE_PASS:
        weights = weights | {f"second.{name}": value for name, value in weights_of(single_pass.WEIGHTS).items()}
    model.diffusion_model.load_state_dict(weights)
    patcher = comfy.model_patcher.ModelPatcher(model, comfy.model_management.get_torch_device(), offload)
    patcher.cached_patcher_init = (loaded_again, (prediction, network))  # the host trains a copy of its own
    if network == SINGLE_PASS:
        halves.install(patcher)  # so that it runs without its node too: as the ordinary network, in two passes
    return patcher


def loaded_again(prediction, network=ORDINARY, disable_dynamic=False):
    """The model from its file once more, as the host asks for it."""
    return load(prediction, network)[0]


def load_clip(weights):
    clip = comfy.sd.CLIP(comfy.supported_models_base.ClipTarget(DemoTokenizer, DemoTextModel))
    clip.cond_stage_model.load_sd(weights)
    return clip


def load_vae():
    return comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.)})


class DemoModel(io.ComfyNode):
    inputs = [
        io.Combo.Input("prediction", options=list(TYPES), default="v",
                       tooltip="What kind of model it pretends to be. The weights are the same: v and eps are like "
                               "Stable Diffusion, flow is like SD3, Flux or Wan."),
        io.Combo.Input("network", options=list(NETWORKS), default=ORDINARY, optional=True,
                       tooltip="single-pass predicts with and without the prompt at once: guided by Single-pass guidance, it "
                               "takes 1 row a step. Without that node it is the ordinary one, only slower."),
    ]

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="GuidanceDemoModel",
            display_name="Guidance Demo Model",
            category="guidance",
            description="A tiny text-to-image model that comes with this pack: 32x32 pixels, prompts such as "
                        "'a small red circle on blue'. It makes an image in well under a second on a CPU, to try "
                        "out what guidance does.",
            search_aliases=["example model", "test model", "tiny model", "toy model", "sample model"],
            inputs=cls.inputs,
            outputs=[io.Model.Output(), io.Clip.Output(), io.Vae.Output()],
        )

    @classmethod
    def execute(cls, **knobs):
        return io.NodeOutput(*load(**checked(cls.inputs, knobs)))
