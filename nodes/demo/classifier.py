"""The bundled model's judge as a classifier of its latents, which are pictures."""

from functools import lru_cache

import torch
import torch.nn.functional as F
from comfy_api.latest import io

from ..inputs import ClassifierType, checked, choices_by
from . import judge

ATTRIBUTES = judge.CHOICES._asdict()
WORDS = list(dict.fromkeys(word for choices in judge.CHOICES for word in choices))


class DemoClassifier(io.ComfyNode):
    inputs = [
        io.Combo.Input("attribute", options=list(ATTRIBUTES), default="color", tooltip="What to look at."),
        io.Combo.Input("value", options=WORDS, default="red", **choices_by(attribute=ATTRIBUTES),
                       tooltip="What it should be."),
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
        attribute, value = checked(cls.inputs, knobs).values()
        choices = ATTRIBUTES[attribute]
        if value not in choices:
            raise ValueError(f"GuidanceDemoClassifier: value is {value!r}; for {attribute} it has to be one of "
                             f"{', '.join(choices)}.")
        return io.NodeOutput(Judged(list(ATTRIBUTES).index(attribute), choices.index(value)))


class Judged:
    """log p(value of the attribute | picture), from pictures (B, 3, H, W) in -1..1."""

    channels = 3

    def __init__(self, attribute, value):
        self.attribute, self.value = attribute, value

    def __call__(self, latents, sigma):
        pictures = F.interpolate((latents + 1) / 2, (judge.PIXELS, judge.PIXELS), mode="area")
        rows, _ = load_judge().to(latents.device)(pictures)
        return rows[self.attribute].log_softmax(1)[:, self.value]


@lru_cache(1)
def load_judge():
    with torch.inference_mode(False):  # the host runs nodes without autograd, and such weights cannot get it back
        return judge.load()
