"""What a run will compute, said before it: a node that runs no model."""

import comfy.samplers
import torch
from comfy_api.latest import io, ui

from .bridge.plan import Plan as Foreseen
from .inputs import MODEL, check, checked

MOST_STEPS = 1000


class Plan(io.ComfyNode):
    inputs = [
        io.Int.Input("steps", default=20, min=1, max=MOST_STEPS, tooltip="The KSampler's. Not used where sigmas is linked."),
        io.Float.Input("cfg", default=8.0, min=0.0, max=100.0, step=0.1, tooltip="The sampler's; BasicGuider's is 1."),
        io.Combo.Input("sampler_name", options=comfy.samplers.SAMPLER_NAMES,
                       tooltip="The KSampler's. Not used where sampler is linked."),
        io.Combo.Input("scheduler", options=comfy.samplers.SCHEDULER_NAMES,
                       tooltip="The KSampler's. Not used where sigmas is linked."),
        io.Float.Input("denoise", default=1.0, min=0.01, max=1.0, step=0.01,
                       tooltip="The KSampler's. Not used where sigmas is linked."),
        io.Boolean.Input("negative", default=True, display_name="there is a negative",
                         tooltip="Whether the sampler has a negative prompt. BasicGuider has none."),
    ]
    links = [
        io.Sigmas.Input("sigmas", optional=True, tooltip="A custom sampler's, in place of steps, scheduler and denoise."),
        io.Sampler.Input("sampler", optional=True, tooltip="A custom sampler's, in place of sampler_name."),
    ]

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="GuidancePlan",
            display_name="Guidance plan",
            category="guidance",
            description="Says what a run will compute before it begins: which node acts at which steps, how many rows and "
                        "calls each step takes, what is idle and why, and what else to know. Runs no model. Place it last "
                        "on the MODEL wire, and give it the sampler's settings.",
            search_aliases=["rows", "cost", "plan", "dry run", "explain", "what will happen", "how many steps", "preview chain",
                            "which nodes are idle", "debug guidance"],
            inputs=[MODEL, *cls.inputs, *cls.links],
            outputs=[io.Model.Output(), io.String.Output(display_name="plan")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model, sigmas=None, sampler=None, **knobs):
        model, sampler = check(MODEL, model), check(cls.links[1], sampler)
        steps, cfg, sampler_name, scheduler, denoise, negative = checked(cls.inputs, knobs).values()
        if sigmas is None:
            device = torch.device("cpu")
            sigmas = comfy.samplers.KSampler(model, steps, device, sampler_name, scheduler, denoise).sigmas
        if sampler is None:
            sampler = comfy.samplers.sampler_object(sampler_name)
        text = Foreseen(model, sampler, checked_sigmas(sigmas), cfg, negative).text
        return io.NodeOutput(model, text, ui=ui.PreviewText(text))


def checked_sigmas(sigmas):
    """Noise levels on the CPU. Raises ValueError with one sentence where a run cannot go through them."""
    if not isinstance(sigmas, torch.Tensor) or sigmas.ndim != 1 or not 2 <= len(sigmas) <= MOST_STEPS + 1:
        found = f"of shape {tuple(sigmas.shape)}" if isinstance(sigmas, torch.Tensor) else f"a {type(sigmas).__name__}"
        raise ValueError(f"sigmas is {found}; it has to be a list of 2 to {MOST_STEPS + 1} noise levels.")
    sigmas = sigmas.detach().to("cpu", torch.float32)
    wrong = sigmas[~sigmas.isfinite() | (sigmas < 0)].tolist()
    if wrong:
        raise ValueError(f"sigmas has {wrong[0]:g} in it; each has to be a number of at least 0.")
    return sigmas
