"""What is compared: every strategy of the menu at a few strengths, beside plain CFG at many."""
from typing import NamedTuple

from ...nodes import STRATEGIES
from ..workflows import SETTINGS


class Point(NamedTuple):
    """One strategy at one strength: the sampler's cfg, its node if any, and those of its inputs that are not at their
    defaults. at: the strength in words."""
    strategy: str
    at: str
    cfg: float
    node: str = ""
    inputs: dict = {}


PLAIN = "Plain CFG"
SCALES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)  # of plain CFG
FEWER = (3.0, 6.0, 12.0)  # of what is measured over cfg
BESIDE = 2.0  # the cfg beside which a scale of its own is measured

# Strategies whose strength is another knob than cfg: (cfg, knob, values, more inputs).
KNOBS = {
    "GuidanceCFGPlusPlus": (1.0, "strength", (0.5, 1.0, 2.0), {}),
    "GuidanceNAG": (1.0, "scale", (2.0, 4.0, 8.0), {"alpha": 0.5}),
    "GuidanceFBG": (1.0, "largest", (3.0, 6.0, 12.0), {"pi": 0.95}),
    "GuidancePAG": (BESIDE, "scale", (0.5, 1.0, 2.0), {"layers": "middle, output"}),
    "GuidanceSLG": (BESIDE, "scale", (0.5, 1.0, 2.0), {"start": 0.0, "end": 1.0}),
    "GuidanceTSG": (BESIDE, "scale", (0.75, 1.5, 3.0), {}),
    "GuidanceSWG": (BESIDE, "scale", (0.15, 0.3, 0.6), {}),
    "GuidanceSEG": (BESIDE, "scale", (0.75, 1.5, 3.0), {}),
    "GuidanceTPG": (BESIDE, "scale", (0.75, 1.5, 3.0), {}),
    "GuidanceRandomLayers": (BESIDE, "scale", (0.25, 0.5, 1.0), {}),
    "GuidanceERG": (BESIDE, "scale", (0.5, 1.0, 2.0), {}),
    "GuidanceMomentum": (BESIDE, "alpha", (0.25, 0.5, 1.0), {}),
}
MORE = {  # settings of what is measured over cfg, in place of those of the examples
    "GuidanceCFG": {"start": 0.1, "end": 0.7},
    "GuidanceBudget": {"rows": 18},
    "GuidanceCFGZeroStar": {},  # 12 steps are too few for one that stands still
}
TITLES = {"GuidanceCFG": "CFG, interval"}
FIRST = ("GuidanceCFG", "GuidanceRescale", "GuidanceAPG", "GuidanceCFGPlusPlus", "GuidancePerpCFG", "GuidancePAG")
FLOW_ONLY = ("GuidanceRectCFGPlusPlus",)
LEFT_OUT = {
    "GuidanceStreamCFG": "one stream: it is plain CFG",
    "GuidanceDistilled": "the bundled model takes no scale",
    "GuidanceNegative": "depends on what the negative says: `python dev.py lab negatives`",
    "GuidancePushAway": "depends on what the negative says: `python dev.py lab negatives`",
    "GuidanceTextEncode": "depends on what the negative says: `python dev.py lab negatives`",
    "GuidanceClassifier": "leads to what the classifier is told, not to the prompt",
}


def points(prediction="eps"):
    """All points, in the order in which they are shown: plain CFG, the most used strategies, then the menu's order."""
    menu = [cls for cls in STRATEGIES if cls.node_id not in LEFT_OUT]
    if prediction != "flow":
        menu = [cls for cls in menu if cls.node_id not in FLOW_ONLY]
    rank = lambda cls: (cls.node_id not in FIRST, FIRST.index(cls.node_id) if cls.node_id in FIRST else 0, cls.category)
    plain = [Point(PLAIN, f"cfg {scale:g}", scale) for scale in SCALES]
    return plain + [point for cls in sorted(menu, key=rank) for point in strengths(cls)]


def strengths(cls):
    title, node = TITLES.get(cls.node_id, cls.title), cls.node_id
    if node in KNOBS:
        cfg, knob, values, more = KNOBS[node]
        return [Point(title, f"{knob} {value:g}", cfg, node, {knob: value, **more}) for value in values]
    return [Point(title, f"cfg {cfg:g}", cfg, node, MORE.get(node, SETTINGS.get(node, {}))) for cfg in FEWER]


def broad(points):
    """The points in the order in which they are computed: plain CFG, then every strategy's middle strength, then its weaker
    ones and its stronger ones, so that a run that is cut short has compared as many strategies as it can."""
    def turn(point):
        own = [other for other in points if other.strategy == point.strategy]
        return 0 if point.strategy == PLAIN else 1 + (len(own) // 2 - own.index(point)) % len(own)

    return sorted(points, key=turn)
