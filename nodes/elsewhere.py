"""The menu of strategies that ask the model for a prediction from elsewhere: another time, further along, a window."""

from functools import partial

from comfy_api.latest import io

from .. import guidance
from .inputs import number, window
from .strategy import Strategy


class TSG(Strategy):
    node_id = "GuidanceTSG"
    category = "guidance/more"
    title = "Time-step guidance (TSG)"
    about = (
        "Away from what the model sees when it is told a wrong time: cleaner pictures on any architecture, with or "
        "without a prompt. 1 row more in the same forward (3 with CFG, 2 at cfg 1); none where the scale is 0 or outside "
        "start and end."
    )
    aliases = ["tsg", "time step guidance", "timestep guidance", "TimeStepGuidance", "without negative", "turbo", "distilled"]
    recipe = staticmethod(guidance.tsg)
    when = window("Guide")
    inputs = [
        number("scale", 1.5, -100.0, 100.0, "How strongly to guide. 1.5 is the paper's for DiT, 3 for Stable Diffusion. 0 is "
               "off and costs nothing."),
        number("spread", 0.1, 0.0, 1.0, "How far from the right time, as a share of the run. 0 is off."),
        io.Float.Input("power", default=1.0, min=0.0, max=4.0, step=0.05, display_name="power (less at the end)",
                       tooltip="The larger, the less the time is moved towards the end of the run. 0 is the same throughout."),
        io.Int.Input("seed", default=0, min=0, max=2**32 - 1, tooltip="Of the wrong times, one for each step.",
                     control_after_generate=False),
        *when,
    ]

    @classmethod
    def acts_at_1(cls, model, knobs):
        return True


class RectCFGPlusPlus(Strategy):
    node_id = "GuidanceRectCFGPlusPlus"
    category = "guidance/more"
    title = "Rectified-CFG++"
    about = (
        "For flow models (SD3, Flux, Wan): follows the prompt's own path and guides by what prompt and negative say part of a "
        "step ahead on it, which keeps high cfg natural. A second forward at every step: 3 rows in 2 calls, and 1 row "
        "where cfg is 1."
    )
    aliases = ["rectified cfg++", "rect cfg++", "RectifiedCFGpp", "predictor corrector", "flow", "off manifold"]
    recipe = staticmethod(guidance.rect_cfgpp)
    when = window("Look ahead")
    inputs = [
        number("ahead", 0.5, 0.0, 1.0, "How much of the step to look ahead. 0.5 is the paper's; 0 takes the direction at hand "
               "and is plain CFG."),
        io.Float.Input("gamma", default=0.0, min=0.0, max=10.0, step=0.05, display_name="gamma (guide later)",
                       tooltip="The larger, the later guidance sets in. 0 is the same throughout, as in the authors' code."),
        *when,
    ]


class SWG(Strategy):
    node_id = "GuidanceSWG"
    category = "guidance/more"
    title = "Sliding window guidance (SWG)"
    about = (
        "Better composition: away from what the model makes of the picture when it only sees it through overlapping "
        "windows. For pictures and video. A row for each window, in a forward of their own: with 4 windows 6 rows in 2 "
        "calls, those of windows smaller than the picture."
    )
    aliases = ["swg", "m-swg", "sliding window guidance", "SlidingWindowGuidanceAdvanced", "long range", "composition"]
    recipe = staticmethod(guidance.swg)
    when = window("Guide")
    inputs = [
        number("scale", 0.3, -100.0, 100.0, "How strongly to guide. 0.3 is the paper's beside CFG, and 1.1 its best without. 0 "
               "is off and costs nothing."),
        io.Float.Input("size", default=0.625, min=0.1, max=1.0, step=0.005, round=0.0001, display_name="size of a window",
                       tooltip="As a share of each side. 0.625 is the paper's. 1 is the whole picture, and off."),
        io.Int.Input("count", default=2, min=2, max=8, display_name="count (along each side)",
                     tooltip="So many rows, and as many columns, of windows. count times size has to be 1 or more."),
        io.Boolean.Input("masked", default=True, display_name="masked (overlaps only)", tooltip="As the paper's M-SWG."),
        *when,
    ]

    @classmethod
    def prepare(cls, model, **knobs):
        dims = getattr(model.get_model_object("latent_format"), "latent_dimensions", 2)
        if dims < 2:
            raise ValueError(f"{cls.node_id} needs latents with height and width; those of this model have {dims} dimension.")
        guidance.swg(**knobs)  # for what it says of size and count
        return model, partial(guidance.swg, **knobs), {}

    @classmethod
    def acts_at_1(cls, model, knobs):
        return True
