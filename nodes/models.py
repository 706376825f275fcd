"""The menu of strategies that bring another model: a weaker one to guide away from, a classifier to guide towards."""

from functools import lru_cache, partial
from uuid import uuid4

import torch
import torch.nn.functional as F
from comfy_api.latest import io

from .. import guidance
from ..lab import data, judge
from . import weak
from .inputs import number
from .strategy import Strategy

ClassifierType = io.Custom("GUIDANCE_CLASSIFIER")


class Autoguidance(Strategy):
    node_id = "GuidanceAutoguidance"
    title = "Autoguidance (weak model)"
    about = (
        "Cleaner pictures without losing variety: guides away from what a worse version of the same model makes of the "
        "prompt, in place of the negative prompt or beside it. The sampler's cfg is the strength; 2 to 3 is plenty "
        "here. Best is a smaller or earlier checkpoint with the same faults, only more of them; a quantised copy does "
        "not help. One call of the weak model per step in place of the negative's row; none where cfg is 1. Place it "
        "before other guidance nodes, but after one that sets cfg."
    )
    aliases = ["autoguidance", "bad version of itself", "weak model", "dual model guider", "DualModelGuider", "Karras"]
    inputs = [
        io.Model.Input("weak_model", tooltip="A worse model of the same family. Loaded beside the first, so it needs "
                       "memory of its own."),
        number("share", 1.0, 0.0, 1.0, "How much of guidance comes from the weak model; the rest is CFG's, and both "
               "together keep the strength of cfg. 1 computes no negative, 0 no weak model."),
    ]

    @classmethod
    def prepare(cls, model, weak_model, share):
        patched, key = weak.add(model, weak_model, cls.node_id)
        return patched, partial(guidance.autoguidance, key, share), {}


class Classifier(Strategy):
    node_id = "GuidanceClassifier"
    category = "guidance/more"
    title = "Classifier guidance"
    about = (
        "Towards what a classifier recognises, with or without a prompt. Costs no rows, but one pass forward and "
        "backward through the classifier at every step. Classifiers come from the nodes in guidance/more, or from "
        "other packs."
    )
    aliases = ["classifier guidance", "mpgd", "manifold preserving", "universal guidance", "clip guidance", "FreeDoM"]
    inputs = [
        ClassifierType.Input("classifier", tooltip="What to guide towards, from a classifier node."),
        number("scale", 1.0, -1000.0, 1000.0, "How strongly to guide. 1 is Bayes' rule, and more is more certain; "
               "negative values avoid. 0 is off."),
        io.Combo.Input("where", options=["x0", "x"], default="x0", tooltip="What the classifier sees. x0: the picture as "
                       "the model expects it, for ordinary classifiers. x: the noisy latent, for a classifier that was "
                       "trained on noise, as in the paper."),
    ]

    @classmethod
    def prepare(cls, model, classifier, **knobs):
        models = getattr(classifier, "models", [])
        if models:  # the host loads them with this model and keeps them through the run
            model = model.clone()
            model.set_additional_models(f"guidance_classifier_{uuid4().hex}", models)
        return model, partial(guidance.classifier, classifier, **knobs), {}


ATTRIBUTES = dict(zip(data.Scenes._fields, data.CHOICES))


class DemoClassifier(io.ComfyNode):
    """The bundled model's judge as a classifier of its latents, which are pictures."""

    @classmethod
    def define_schema(cls):
        words = list(dict.fromkeys(word for choices in data.CHOICES for word in choices))
        return io.Schema(
            node_id="GuidanceDemoClassifier",
            display_name="Guidance Demo Classifier",
            category="guidance/more",
            description="A small classifier for the pictures of the demo model, to try classifier guidance with.",
            search_aliases=["judge", "classifier"],
            inputs=[
                io.Combo.Input("attribute", options=list(ATTRIBUTES), default="color", tooltip="What to look at."),
                io.Combo.Input("value", options=words, default="red", tooltip="What it should be."),
            ],
            outputs=[ClassifierType.Output()],
        )

    @classmethod
    def execute(cls, attribute, value):
        choices = ATTRIBUTES[attribute]
        if value not in choices:
            raise ValueError(f"GuidanceDemoClassifier: value is {value!r}; for {attribute} it has to be one of "
                             f"{', '.join(choices)}.")
        return io.NodeOutput(partial(judged, list(ATTRIBUTES).index(attribute), choices.index(value)))


def judged(attribute, value, latents, sigma):
    """log p(value of the attribute | picture), from pictures (B, 3, H, W) in -1..1."""
    pictures = F.interpolate((latents + 1) / 2, (data.PIXELS, data.PIXELS), mode="area")
    rows, _ = load_judge().to(latents.device)(pictures)
    return rows[attribute].log_softmax(1)[:, value]


@lru_cache(1)
def load_judge():
    with torch.inference_mode(False):  # the host runs nodes without autograd, and such weights cannot get it back
        return judge.load()


MODELS = [Autoguidance, Classifier]
