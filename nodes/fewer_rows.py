"""The menu of strategies that compute less."""

from functools import partial

from comfy_api.latest import io

from .. import guidance
from .inputs import number, used_when, window
from .strategy import Strategy


class Adaptive(Strategy):
    saves = True
    node_id = "GuidanceAdaptive"
    title = "Adaptive guidance"
    about = (
        "Faster, with nearly the same picture: once prompt and negative ask for the same thing, the negative is no "
        "longer computed, 1 row instead of 2. Each picture of a batch decides for itself; time is saved once all have "
        "decided. From there on guidance is off for a weak model too. With other guidance nodes, place it last."
    )
    aliases = ["adaptive guidance", "AdaptiveGuidance", "AdaptiveGuider", "skip uncond", "faster", "speed up",
               "cosine similarity"]
    recipe = staticmethod(guidance.adaptive)
    inputs = [
        io.Combo.Input("measure", options=["norm", "cosine"], default="norm", tooltip="How alike the two predictions "
                       "are. norm: the length of their difference, in units of the prompt's prediction. cosine: 1 minus "
                       "their similarity as noise, as in the paper."),
        number("threshold", 0.02, 0.0, 2.0, "Stop when they differ by less than this. norm: 0.01 is careful, 0.02 saves "
               "more. cosine: 0.01 is a similarity of 0.99. 0 never stops.", step=0.001),
        io.Float.Input("arm", default=1.0, min=0.0, max=1000.0, step=0.01, display_name="arm at sigma",
                       **used_when(measure=["cosine"]), tooltip="cosine only: not before sigma has "
                       "fallen to this, because at high noise both predictions are nothing but the noise. 1 for SD1.5 "
                       "and SDXL; 0.5 for flow models (SD3, Flux, Wan, Qwen), unverified."),
    ]

    @classmethod
    def rehearsal(cls, knobs):
        never, at_once = partial(guidance.adaptive, threshold=0.0), partial(guidance.interval, guidance.Window(0.0, 0.0))
        return (never,) if knobs["threshold"] == 0 else (never, at_once)


class Alternate(Strategy):
    saves = True
    node_id = "GuidanceAlternate"
    category = "guidance/more"
    title = "Alternate guidance"
    about = (
        "Faster: in a window of the run only every second (third ...) step is guided, and the others compute the "
        "prompt alone, 1 row instead of 2. Guidance gets weaker by as much, so raise cfg a little. No published "
        "measurement; known as NGMS in other user interfaces, where it acts near the end of the run."
    )
    aliases = ["alternate guidance", "faster", "skip every other step", "NGMS", "negative guidance minimum sigma",
               "s_min_uncond"]
    when = window("Skip")
    recipe = staticmethod(guidance.alternate)
    inputs = [
        io.Int.Input("every", default=2, min=1, max=100, tooltip="Guide every so many steps. 1 guides all of them.",
                     display_name="every so many steps"),
        *when,
    ]


class Compress(Strategy):
    saves = True
    node_id = "GuidanceCompress"
    category = "guidance/more"
    title = "Compress guidance"
    about = (
        "Faster at the same strength: the negative is computed at some steps only, and the steps between them are "
        "guided in the direction that was found last: good with 30 steps and more. 1 row instead of 2 there. What "
        "other guidance nodes before it did to the direction is kept with it; beside Autoguidance, place it after."
    )
    aliases = ["compress guidance", "reuse guidance", "guidance cache", "cfg cache", "FasterCache", "skip uncond"]
    recipe = staticmethod(guidance.compress)
    inputs = [
        io.Float.Input("share", default=0.6, min=0.01, max=1.0, step=0.01, display_name="share of steps",
                       tooltip="Of the steps, how many compute the "
                       "negative. 0.6 is the paper's 40 % fewer; 1 is all of them."),
        io.Float.Input("power", default=1.0, min=0.1, max=10.0, step=0.1, display_name="power (early)",
                       tooltip="Where these steps are: 1 spreads them "
                       "evenly, more crowds them at the start."),
        number("reuse", 1.0, 0.0, 2.0, "How much of the last direction to use between them. 0 is the prompt alone there.",
               display_name="reuse of direction"),
    ]


class Budget(Strategy):
    saves = True
    node_id = "GuidanceBudget"
    category = "guidance/more"
    title = "Row budget"
    about = (
        "A cap on what a run costs: when its rows are spent, every further step computes the prompt alone. 20 steps of "
        "CFG are 40 rows, twice that with samplers such as heun; every evaluation takes at least 1. Place it last: it "
        "counts what the nodes before it ask for, a weak model's rows as well."
    )
    aliases = ["budget", "cap", "limit evaluations", "nfe", "Step AG", "guide first steps only"]
    recipe = staticmethod(guidance.budget)
    inputs = [
        io.Int.Input("rows", default=30, min=0, max=1000000, display_name="rows per picture",
                     tooltip="At most so many rows per picture. Less than "
                     "one for each evaluation cannot hold. 0 is no cap."),
        io.Combo.Input("spend", options=["first", "even"], default="first", display_name="spend on steps",
                       tooltip="first guides until only one row per "
                       "step is left; even spreads the guided steps over the run."),
    ]

    @classmethod
    def most_rows(cls, knobs):
        return knobs["rows"]
