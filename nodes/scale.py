"""The menu of strategies that choose the scale: a number, a curve, an interval, CFG++, beta-CFG."""

from functools import partial

from comfy_api.latest import io

from .. import guidance
from .inputs import SCHEDULE_TYPES, check, number, text_schedule, window
from .strategy import Strategy


class CFG(Strategy):
    node_id = "GuidanceCFG"
    title = "CFG"
    about = (
        "How strictly the picture follows the prompt, at each moment of the run. Outside the interval, and wherever "
        "the scale is 1, the negative is not computed: 1 row instead of 2. Guidance in the middle only keeps variety "
        "and natural colours at a higher scale. Applies to the whole chain, wherever it stands in it."
    )
    aliases = ["cfg schedule", "variable cfg", "dynamic cfg", "cfg interval", "cfg curve", "cfg scale", "guidance scale",
               "guidance interval", "limited interval", "guidance limiter", "skip uncond", "CFGOverride",
               "ScheduledCFGGuidance"]
    when = window("Guide")
    inputs = [
        io.MultiType.Input(
            io.String.Input("scale", default="", tooltip="Empty: the sampler's cfg. A number: this cfg instead. A "
                            "schedule such as 0:7.5, 0.5:6, 1:1 changes it over the run. 1 is no guidance, 0 ignores "
                            "the prompt."),
            types=[io.String, io.Float, *SCHEDULE_TYPES],
        ),
        *when,
    ]
    allowed = number("scale", 1.0, -100.0, 100.0, "")

    @classmethod
    def check(cls, knobs):
        knobs = super().check(knobs)
        scale = knobs.get("scale")
        if isinstance(scale, str):
            scale = text_schedule(cls.allowed, scale) if scale.strip() else None
        return {**knobs, "scale": scale if scale is None else check(cls.allowed, scale)}

    @classmethod
    def prepare(cls, model, scale, window):
        return model, partial(cfg_in_interval, scale, window), {}

    @classmethod
    def applied(cls, knobs, schedule, moment):
        return moment.combined  # 1 outside the interval, and another scale where a later strategy sets it


def cfg_in_interval(scale, window):
    steps = [] if scale is None else [guidance.cfg(scale)]
    return guidance.chain(*steps, *[] if window == guidance.ALWAYS else [guidance.interval(window)])


class CFGPlusPlus(Strategy):
    node_id = "GuidanceCFGPlusPlus"
    title = "CFG++"
    about = (
        "Gentler guidance early, full guidance late: pictures keep natural colours and stay closer to what the model "
        "can make. Replaces the sampler's cfg at every step by the scale that makes an ordinary euler, ddim or "
        "euler_ancestral step a CFG++ step. 2 rows, like CFG. With other samplers it is an approximation of the same strength."
    )
    aliases = ["cfgpp", "cfg plus plus", "euler_cfg_pp", "manifold constrained", "natural colors", "few steps"]
    recipe = staticmethod(guidance.cfgpp)
    inputs = [number("strength", 0.6, 0.0, 4.0, "How strictly to follow the prompt. 0.6 resembles cfg 7.5 at 50 steps; "
                     "0 ignores the prompt; 1 and above suit few steps.")]

    @classmethod
    def acts_at_1(cls, model, knobs):
        return True  # it replaces the scale



class BetaCFG(Strategy):
    node_id = "GuidanceBetaCFG"
    category = "guidance/more"
    title = "beta-CFG"
    about = (
        "Guides most in the middle of the run and not at all at its ends, by a push of fixed length. 2 rows, like "
        "CFG. One paper, for SD1.5 and SDXL; a drawn schedule on the CFG node is the gentler way to the same end."
    )
    aliases = ["beta cfg", "adaptive scaling", "beta distribution", "cfg norm schedule"]
    recipe = staticmethod(guidance.beta_cfg)
    inputs = [
        io.Float.Input("a", default=2.0, min=1.0, max=20.0, step=0.1, display_name="a (begins later)",
                       tooltip="The larger, the later guidance "
                       "begins. 1 and 1 is a flat curve."),
        io.Float.Input("b", default=3.0, min=1.0, max=20.0, step=0.1, display_name="b (ends earlier)",
                       tooltip="The larger, the earlier guidance ends."),
        number("gamma", 1.0, 0.0, 2.0, "1 gives every push the same length, 0 leaves it the one it has. 0 with a "
               "flat curve is plain CFG.", display_name="gamma (equal pushes)"),
    ]


class FBG(Strategy):
    node_id = "GuidanceFBG"
    category = "guidance/more"
    title = "Feedback guidance (FBG)"
    about = (
        "A scale for each picture, at each step: as much guidance as the picture still needs to show the prompt, and little "
        "for one that shows it. Set the sampler's cfg to 1: what is above adds up with it. 2 rows, like CFG, at cfg 1 too."
    )
    aliases = ["fbg", "feedback guidance", "FeedbackGuidance", "dynamic cfg", "adaptive scale", "self regulating"]
    recipe = staticmethod(guidance.fbg)
    when = window("Guide")
    inputs = [
        io.Float.Input("pi", default=0.999, min=0.0, max=1.0, step=0.001, round=0.00001, display_name="pi (trust in the model)",
                       tooltip="How much of the prediction for the prompt to trust. The lower, the sooner and the more it "
                       "guides. 0.999 and 0.95 are the authors'. 1 is off."),
        io.Float.Input("t0", default=0.556, min=0.0, max=0.99, step=0.001, display_name="t0 (start)",
                       tooltip="When the scale has risen to 3, if nothing is learnt by then: 1 is the start of the run, 0 its "
                       "end."),
        io.Float.Input("t1", default=0.429, min=0.0, max=0.99, step=0.001, display_name="t1 (learning)",
                       tooltip="Where what is learnt from the picture weighs most against that rise: 1 is the start of the "
                       "run, 0 its end."),
        number("largest", 10.0, 1.0, 100.0, "The highest scale, the sampler's cfg included. Not above that cfg is off.",
               display_name="largest cfg"),
        *when,
    ]

    @classmethod
    def acts_at_1(cls, model, knobs):
        return True
