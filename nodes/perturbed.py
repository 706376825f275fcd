"""The menu of strategies that guide away from a perturbed model."""

from functools import partial

from comfy_api.latest import io

from .. import guidance
from .bridge.attention import choose_layers, install
from .inputs import number
from .strategy import Strategy


class PAG(Strategy):
    node_id = "GuidancePAG"
    title = "Perturbed attention (PAG)"
    about = (
        "Firmer structure, with or without a prompt: guides away from what the model sees when some of its layers "
        "cannot look around. 1 row more in the same forward (3 with CFG, 2 at cfg 1); none where the scale is 0. UNets "
        "only."
    )
    aliases = ["pag", "perturbed attention guidance", "PerturbedAttentionGuidance", "PerturbedAttention", "structure",
               "anatomy", "turbo", "lightning"]
    inputs = [
        number("scale", 3.0, -100.0, 100.0, "How strongly to guide. 3 is the paper's, for use without CFG; with CFG "
               "lower both. 0 is off and costs nothing."),
        io.String.Input("layers", default="middle", tooltip="Which self-attention layers lose their sight, separated "
                        "by commas: middle, input.4, output.3.0. A name stands for all layers that begin with it."),
        io.Float.Input("rescale", default=0.0, min=0.0, max=1.0, step=0.01, tooltip="How far to bring the contrast "
                       "back to the prompt's own prediction. 0.5 to 0.7 helps at high scales."),
    ]

    @classmethod
    def prepare(cls, model, scale, layers, rescale):
        layers = choose_layers(model, layers, cls.node_id)
        patched = model.clone()
        install(patched)
        return patched, partial(guidance.pag, layers, scale=scale, rescale=rescale), {}

    @classmethod
    def acts_at_1(cls, model, knobs):
        return True
