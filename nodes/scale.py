"""The menu of strategies that choose the scale: a number, a curve, an interval, one for each stream, CFG++, beta-CFG, and
the scale that a model takes as an input."""

from functools import partial

from comfy_api.latest import io

from .. import guidance
from .bridge.distilled import takes_scale
from .inputs import SCHEDULE_TYPES, check, number, text_schedule, window
from .strategy import Strategy


def typed_scale(id, default, tooltip):
    """A scale that may be left out, typed as a number or as a schedule's text, or linked."""
    widget = io.String.Input(id, default=default, tooltip=tooltip)
    return io.MultiType.Input(widget, types=[io.String, io.Float, *SCHEDULE_TYPES])


def read_scale(knobs, id):
    """The knobs with that one as recipes take it; None where it was left out."""
    allowed, scale = number(id, 1.0, -100.0, 100.0, ""), knobs.get(id)
    if isinstance(scale, str):
        scale = text_schedule(allowed, scale) if scale.strip() else None
    return {**knobs, id: scale if scale is None else check(allowed, scale)}


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
        typed_scale("scale", "", "Empty: the sampler's cfg. A number: this cfg instead. A schedule such as 0:7.5, 0.5:6, 1:1 "
                    "changes it over the run. 1 is no guidance, 0 ignores the prompt."),
        *when,
    ]

    @classmethod
    def check(cls, knobs):
        return read_scale(super().check(knobs), "scale")

    @classmethod
    def prepare(cls, model, scale, window):
        return model, partial(in_interval, [] if scale is None else [partial(guidance.cfg, scale)], window), {}

    @classmethod
    def applied(cls, knobs, schedule, moment):
        return moment.combined  # 1 outside the interval, and another scale where a later strategy sets it


def in_interval(recipes, window):
    interval = [] if window == guidance.ALWAYS else [guidance.interval(window)]
    return guidance.chain(*(recipe() for recipe in recipes), *interval)


class StreamCFG(Strategy):
    node_id = "GuidanceStreamCFG"
    title = "CFG for video and audio"
    about = (
        "A scale for video and another for audio, for models that make both at once (LTX-2): sound may follow the prompt "
        "closely while the picture keeps its colours. The negative is computed while any of the two is guided, and not "
        "where both scales are 1. Replaces the sampler's cfg; of other models it guides all by the first scale."
    )
    aliases = ["audio cfg", "video cfg", "LTXVDualCFGGuider", "MultimodalGuider", "ltx-2 cfg", "dual cfg", "sound",
               "modality cfg"]
    when = window("Guide")
    inputs = [
        typed_scale("video", "3", "The cfg of the video. A number or a schedule such as 0:4, 1:2; empty: the sampler's cfg. "
                    "1 is no guidance."),
        typed_scale("audio", "7", "The cfg of the audio, in the same way."),
        *when,
    ]

    @classmethod
    def check(cls, knobs):
        return read_scale(read_scale(super().check(knobs), "video"), "audio")

    @classmethod
    def prepare(cls, model, video, audio, window):
        unset = video is None and audio is None
        return model, partial(in_interval, [] if unset else [partial(guidance.stream_cfg, video, audio)], window), {}

    @classmethod
    def acts_at_1(cls, model, knobs):
        return knobs["video"] is not None or knobs["audio"] is not None  # it replaces the scale


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


class Distilled(Strategy):
    node_id = "GuidanceDistilled"
    title = "Distilled guidance over time"
    about = (
        "The guidance of models that take their scale as an input (Flux, HunyuanVideo), as a curve over the run: what "
        "FluxGuidance keeps at one number, for example strong early and weak later. It goes to all prompts, the negative "
        "included. Costs nothing."
    )
    aliases = ["FluxGuidance", "flux guidance", "guidance schedule", "distilled cfg", "embedded guidance",
               "HunyuanVideo guidance"]
    recipe = staticmethod(guidance.distilled)
    when = window("Set it")
    inputs = [
        number("scale", 3.5, 0.0, 100.0, "What the model is told, in place of the prompt's own (FluxGuidance, or 3.5 for "
               "Flux). 0:5, 0.4:2 changes it over the run."),
        *when,
    ]

    @classmethod
    def prepare(cls, model, **knobs):
        network = model.get_model_object("diffusion_model")
        takes, kind = takes_scale(network), type(network).__name__
        if takes is None:
            raise ValueError(f"{cls.node_id}: this model, a {kind}, does not take its scale as an input; use the CFG node.")
        if not takes:
            raise ValueError(f"{cls.node_id}: this {kind} was made without an input for its scale (as Flux schnell is), so "
                             "there is nothing to set.")
        return super().prepare(model, **knobs)

    @classmethod
    def acts_at_1(cls, model, knobs):
        return True


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
