"""The bundled model's judges as classifiers of its latents, which are pictures: clean ones, or noisy ones."""

from functools import lru_cache

import torch
import torch.nn.functional as F
from comfy_api.latest import io

from ..bridge.noise_levels import on_the_cpu, space_of
from ..inputs import ClassifierType, checked, choices_by
from . import judge, noisy_judge

CLEAN, NOISY = "clean pictures", "noisy latents"
ATTRIBUTES = judge.CHOICES._asdict()
WORDS = list(dict.fromkeys(word for choices in judge.CHOICES for word in choices))


class DemoClassifier(io.ComfyNode):
    inputs = [
        io.Combo.Input("attribute", options=list(ATTRIBUTES), default="color", tooltip="What to look at."),
        io.Combo.Input("value", options=WORDS, default="red", **choices_by(attribute=ATTRIBUTES),
                       tooltip="What it should be."),
        io.Combo.Input("sees", options=[CLEAN, NOISY], default=CLEAN, optional=True, display_name="sees (trained on)",
                       tooltip="What it knows. clean pictures: for x0 on Classifier guidance. noisy latents: for x, as in the "
                       "paper."),
    ]

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="GuidanceDemoClassifier",
            display_name="Guidance Demo Classifier",
            category="guidance/more",
            description="A small classifier for the pictures of the demo model, to try classifier guidance with.",
            search_aliases=["judge", "classifier", "example classifier"],
            inputs=cls.inputs,
            outputs=[ClassifierType.Output()],
        )

    @classmethod
    def execute(cls, **knobs):
        attribute, value, sees = checked(cls.inputs, {"sees": CLEAN, **knobs}).values()
        choices = ATTRIBUTES[attribute]
        if value not in choices:
            raise ValueError(f"GuidanceDemoClassifier: value is {value!r}; for {attribute} it has to be one of "
                             f"{', '.join(choices)}.")
        kind = NoisyJudged if sees == NOISY else Judged
        return io.NodeOutput(kind(list(ATTRIBUTES).index(attribute), choices.index(value)))


class Judged:
    """log p(value of the attribute | picture), from pictures (B, 3, H, W) in -1..1."""

    channels = 3

    def __init__(self, attribute, value):
        self.attribute, self.value = attribute, value

    def __call__(self, latents, sigma):
        pictures = F.interpolate((latents + 1) / 2, (judge.PIXELS, judge.PIXELS), mode="area")
        rows, _ = load_judge().to(latents.device)(pictures)
        return rows[self.attribute].log_softmax(1)[:, self.value]


class NoisyJudged:
    """log p(value of the attribute | noisy picture), from a model's noisy latents (B, 3, H, W)."""

    channels, where = 3, "x"

    def __init__(self, attribute, value, alpha=None):
        self.attribute, self.value, self.alpha = attribute, value, alpha

    def for_model(self, model):
        """Where a model has latents of alpha * x0 + sigma * noise, the same classifier for these."""
        return NoisyJudged(self.attribute, self.value, space_of(on_the_cpu(model.get_model_object("model_sampling"))).alpha)

    def __call__(self, latents, sigma):
        alpha = self.alpha(sigma) if self.alpha else 1.0
        size = judge.PIXELS, judge.PIXELS
        noisy = F.interpolate(latents / alpha, size, mode="nearest")  # which leaves the noise as strong as it is
        level = noisy.new_full((len(noisy),), sigma / alpha)
        return load_noisy_judge().to(latents.device)(noisy, level)[self.attribute].log_softmax(1)[:, self.value]


@lru_cache(1)
def load_judge():
    with torch.inference_mode(False):  # the host runs nodes without autograd, and such weights cannot get it back
        return judge.load()


@lru_cache(1)
def load_noisy_judge():
    with torch.inference_mode(False):  # as above
        return noisy_judge.load()
