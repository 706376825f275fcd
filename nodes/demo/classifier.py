"""The bundled model's judge as a classifier of its latents, which are pictures."""

from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from comfy_api.latest import io

from ..inputs import ClassifierType
from . import judge

ATTRIBUTES = judge.CHOICES._asdict()


class DemoClassifier(io.ComfyNode):
    """The bundled model's judge as a classifier of its latents, which are pictures."""

    @classmethod
    def define_schema(cls):
        words = list(dict.fromkeys(word for choices in judge.CHOICES for word in choices))
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
    pictures = F.interpolate((latents + 1) / 2, (judge.PIXELS, judge.PIXELS), mode="area")
    rows, _ = load_judge().to(latents.device)(pictures)
    return rows[attribute].log_softmax(1)[:, value]


@lru_cache(1)
def load_judge():
    with torch.inference_mode(False):  # the host runs nodes without autograd, and such weights cannot get it back
        return judge.load()
