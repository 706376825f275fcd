"""The ComfyUI side: every file that imports ComfyUI is in this folder. This one lists the nodes, in menu order."""

from comfy_api.latest import ComfyExtension

from .answer import DynamicThreshold, Mimic, Renorm, Rescale
from .attention import NAG, PLADIS, PushAway, TextEncode
from .demo.classifier import DemoClassifier
from .demo.model import DemoModel
from .direction import (
    APG,
    FDG,
    SMC,
    TCFG,
    AutoRange,
    CFGZeroStar,
    FreSca,
    MamboG,
    Momentum,
    PerpCFG,
    PowerLaw,
    SkimmedCFG,
)
from .elsewhere import SWG, TSG, RectCFGPlusPlus
from .fewer_rows import Adaptive, Alternate, Budget, Compress
from .grid import Grid
from .likeness import LikenessNode, TextLikenessNode
from .model_preset import ModelPreset
from .negative_texts import NegativeTexts
from .null_text import NullText
from .other_models import Autoguidance, Classifier, SinglePass
from .perturbed import ERG, PAG, S2, SEG, SLG, TPG
from .plan import Plan
from .probe import ProbeNode, ProbePlot
from .prompts import CADS, Negative, Null
from .replacements import register
from .scale import CFG, FBG, BetaCFG, CFGPlusPlus, Distilled, StreamCFG
from .schedules import Drawn, Math, Preset, Preview
from .sweep import CostNode, Sweep
from .training import TrainingDropout
from .values import Values

STRATEGIES = [
    CFG, StreamCFG, Distilled, Negative, NAG, PushAway, TextEncode, CFGPlusPlus, PerpCFG, PAG, SLG,
    DynamicThreshold, Mimic, APG, CFGZeroStar, Rescale, FDG,
    Renorm, TCFG, FreSca, MamboG, PowerLaw, BetaCFG, AutoRange, SkimmedCFG, Momentum,
    SMC, FBG, RectCFGPlusPlus, TSG, SWG,
    Adaptive, Alternate, Compress, Budget,
    Autoguidance, SEG, TPG, S2, ERG, PLADIS, Classifier, Null, CADS,
]
NODES = [
    *STRATEGIES, Drawn, Preset, Math, Preview, Plan, ProbeNode, ProbePlot,
    SinglePass, ModelPreset, NegativeTexts, DemoModel, DemoClassifier, LikenessNode, Values, Sweep, CostNode, Grid,
    TrainingDropout, NullText, TextLikenessNode,
]


class Guidance(ComfyExtension):
    async def on_load(self):
        await register()

    async def get_node_list(self):
        return NODES
