"""What a model needs while it trains in ComfyUI, so that guidance works on it afterwards."""

from functools import partial

from comfy_api.latest import io

from .bridge.training import instead_of, text_of, with_dropout
from .checked import Checked
from .prompts import from_prompt, zeros


class TrainingDropout(Checked):
    inputs = [
        io.Model.Input("model", tooltip="The model to train."),
        io.Float.Input("probability", default=0.1, min=0.0, max=1.0, step=0.01, tooltip="The share of samples that lose "
                       "their caption. 0.1 to 0.2 is usual; 0.5 was worse in the paper. 0 is off."),
        io.Int.Input("seed", default=0, min=0, max=2**63 - 1, control_after_generate=True, tooltip="Which samples."),
        io.Conditioning.Input("null", optional=True, display_name="null prompt", tooltip="What stands for a lost caption: an "
                              "empty prompt for most models. Use the same when you sample. Not linked: zeros, which SDXL was "
                              "trained with."),
    ]

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="GuidanceTrainingDropout",
            display_name="Caption dropout while training",
            category="guidance/more",
            description="For Train LoRA, between it and the model: some pictures of a step lose their caption, so that the "
                        "LoRA goes on knowing pictures without one, which is what CFG guides away from. Does nothing "
                        "when you sample.",
            search_aliases=["caption dropout", "cfg dropout", "conditioning dropout", "unconditional training"],
            inputs=cls.inputs,
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, null=None, **knobs):
        model, probability, seed, null = cls.check({**knobs, "null": null}).values()
        made = zeroed if null is None else partial(instead_of, text_of(null))
        return io.NodeOutput(with_dropout(model, probability, seed, made) if probability else model)


def zeroed(entry):
    return from_prompt(zeros, {"positive": [entry]})[0]
