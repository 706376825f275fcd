"""The menu of strategies that bring another model: a weaker one to guide away from, a classifier to guide towards."""

from functools import partial
from uuid import uuid4

from comfy_api.latest import io

from .. import guidance
from .bridge import halves
from .bridge.weak_model import as_weak_model
from .inputs import ClassifierType, number
from .strategy import Strategy


class Autoguidance(Strategy):
    node_id = "GuidanceAutoguidance"
    title = "Autoguidance (weak model)"
    about = (
        "Cleaner pictures without losing variety: guides away from what a worse version of the same model makes of the "
        "prompt, in place of the negative prompt or beside it. The sampler's cfg is the strength; 2 to 3 is plenty "
        "here. Best is a smaller or earlier checkpoint with the same faults, only more of them; a quantised copy does "
        "not help. One call of the weak model per step in place of the negative's row; none where cfg is 1."
    )
    aliases = ["autoguidance", "bad version of itself", "weak model", "dual model guider", "DualModelGuider", "Karras"]
    inputs = [
        io.Model.Input("weak_model", tooltip="A worse model of the same family. Loaded beside the first, so it needs "
                       "memory of its own."),
        number("share", 1.0, 0.0, 1.0, "How much of guidance comes from the weak model; the rest is CFG's, and both "
               "together keep the strength of cfg. 1 computes no negative, 0 no weak model.",
               display_name="share of weak model"),
    ]

    @classmethod
    def prepare(cls, model, weak_model, share):
        key = f"guidance_{uuid4().hex}"
        return model, partial(guidance.autoguidance, key, share), {key: as_weak_model(weak_model, model, cls.node_id)}


class SinglePass(Strategy):
    node_id = "GuidanceSinglePass"
    category = "guidance/more"
    title = "Single-pass guidance"
    about = (
        "For models that were trained to make two predictions at once, with the prompt and without it, in twice the "
        "channels. Guides from one to the other: full guidance for 1 row a step, half the cost of CFG. The sampler's cfg "
        "is the strength; a plain negative prompt has no effect, weighted and perp-neg ones have. Such a model does not run "
        "without this node, at cfg 1 either."
    )
    aliases = ["superconditioning", "single pass cfg", "one pass guidance", "double channels", "2x output channels"]
    inputs: list[io.Input] = []

    @classmethod
    def prepare(cls, model):
        reason = halves.refusal(model)
        if reason is not None:
            raise ValueError(f"{cls.node_id}: {reason}")
        model = model.clone()
        halves.install(model)
        return model, guidance.superconditioning, {}


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
        io.Combo.Input("where", options=["x0", "x"], default="x0", display_name="where it looks",
                       tooltip="What the classifier sees. x0: the picture as "
                       "the model expects it, for ordinary classifiers. x: the noisy latent, for a classifier that was "
                       "trained on noise, as in the paper."),
    ]

    @classmethod
    def prepare(cls, model, classifier, where, **knobs):
        knows = getattr(classifier, "where", where)
        if where != knows:
            raise ValueError(f"{cls.node_id}: where is {where!r}; for this classifier it has to be {knows!r}, which is what it "
                             "was trained on.")
        classifier = classifier.for_model(model) if hasattr(classifier, "for_model") else classifier
        channels, seen = model.get_model_object("latent_format").latent_channels, getattr(classifier, "channels", None)
        if seen not in (None, channels):
            raise ValueError(f"{cls.node_id}: this classifier knows latents of {seen} channels, and this model's have "
                             f"{channels}.")
        models = getattr(classifier, "models", [])
        if models:  # the host loads them with this model and keeps them through the run
            model = model.clone()
            model.set_additional_models(f"guidance_classifier_{uuid4().hex}", models)
        return model, partial(guidance.classifier, classifier, where=where, **knobs), {}

    @classmethod
    def acts_at_1(cls, model, knobs):
        return True

    @classmethod
    def rehearsal(cls, knobs):
        knobs = {name: value for name, value in knobs.items() if name != "classifier"}
        return (partial(guidance.classifier, lambda latents, sigma: latents.flatten(1).sum(1), **knobs),)
