"""`python lab workflows`: the example workflows, drawn from the menu, so that every strategy has a place in one.

A strategy is shown in the file of its theme, which follows from where it stands in nodes/, with its defaults and one
sampler. SETTINGS are for those that show more at other values.
"""
import re
from math import ceil
from pathlib import Path
from typing import NamedTuple

from ..nodes import STRATEGIES
from . import inversion, lessons, sheets
from .abreast import EXTRAS, MOST, abreast
from .canvas import PROMPT
from .demo import COLUMNS, Column, classes, unwanted

FOLDER = Path(__file__).parent.parent / "example_workflows"


class Theme(NamedTuple):
    """A file of examples. homes: the files of nodes/ whose strategies it shows; cfg: of all samplers, unless CFG says
    otherwise."""
    title: str
    homes: tuple
    cfg: float
    text: str
    prediction: str = "v"


ALL = "what_each_strategy_does"  # the columns of the demo, and strategies that have no theme yet
FLOW = "flow_models"
HOW = "Each strategy has a sampler of its own, folded: a click before its title opens it. Prompt and seed are the same."
THEMES = {
    ALL: Theme("What each strategy does", (), 8.0, f"""\
The columns of the picture in the readme, which *python dev.py demo* makes. Press **Run**.

- **off** shows what the model knows without guidance.
- **CFG 3** follows the prompt, and **CFG 8** burns the colours.
- Compare the others with these. *{unwanted(PROMPT)}* is what the negatives keep out."""),
    "scale_over_the_run": Theme("The scale, and when", ("scale",), 8.0, """\
Nodes that say how much guidance there is, at each moment of the run. The first picture has **cfg 8** all the time."""),
    "high_cfg_calmer_directions": Theme("High cfg: calmer directions", ("direction",), 8.0, """\
At **cfg 8** this model burns colours: the first picture. Each strategy takes something back from the direction of guidance.

They chain: wire one's MODEL into the next."""),
    "high_cfg_calmer_answers": Theme("High cfg: calmer answers", ("answer",), 8.0, """\
At **cfg 8** this model burns colours: the first picture. Each strategy reshapes the answer of guidance, so it stands last on
the MODEL wire, behind others."""),
    "firmer_structure": Theme("Firmer structure", ("perturbed",), 1.0, """\
Away from what the model predicts when something in it is weakened. None needs a negative: all are at **cfg 1**, where the first
picture has no guidance."""),
    "negatives_and_prompts": Theme("Negatives and prompts", ("prompts", "attention"), 3.0, f"""\
What must not be there (*{unwanted(PROMPT)}*), what stands for "no prompt", and how closely text is read.

The first picture is plain CFG. Negatives in attention act at cfg 1 too: open a sampler and set it."""),
    FLOW: Theme("Flow models", (), 8.0, """\
Strategies that were made for flow models such as SD3, Flux, Wan and Qwen. The bundled model pretends to be one.""", "flow"),
    "fewer_predictions": Theme("Fewer predictions", ("fewer_rows",), 4.0, """\
Nearly the same picture in less time. A row is one prediction of the model; plain CFG takes two at each step. Below each
node stands what its run took."""),
    "guided_from_elsewhere": Theme("Guided from elsewhere", ("other_models", "elsewhere"), 4.0, """\
Away from a weaker model, a wrong time, or what is seen through windows, and towards what a classifier recognises.

The weak model is made from the demo model here, to show the wiring; with a real one take an earlier or smaller checkpoint
of the same family."""),
}

SETTINGS = {
    "GuidanceCFG": {"scale": "0:2, 0.5:8, 1:1"},
    "GuidanceMimic": {"mimic_scale": 3.0},
    "GuidanceCFGZeroStar": {"zero_steps": 1},
    "GuidanceSkimmedCFG": {"skim": 3.0},
    "GuidanceBetaCFG": {"gamma": 0.0},
    "GuidanceBudget": {"rows": 24},
    "GuidanceAutoguidance": {"share": 0.5},
    "GuidanceCADS": {"noise": 0.25},
    "GuidanceTextEncode": {"text": f"{PROMPT}, ({unwanted(PROMPT).split()[1]}:-1)"},
    "GuidanceClassifier": {"scale": 20.0},
    "GuidanceSLG": {"scale": 1.0, "start": 0.0, "end": 1.0},
    "GuidanceFBG": {"pi": 0.95},
}
ELSEWHERE = ("GuidanceDistilled",)  # for models that take their scale as an input; the bundled one does not
CFG = {"GuidanceAutoguidance": 3.0, "GuidanceClassifier": 1.0, "GuidanceFBG": 1.0}
FOR_FLOW = ("GuidanceCFGZeroStar", "GuidanceMamboG", "GuidanceMomentum", "GuidanceRectCFGPlusPlus")  # made for flow models


def parts(name):
    """{file's name: its columns}, in the menu's order. A theme with many strategies has several files."""
    theme = THEMES[name]
    shown = [column(cls, theme.cfg) for cls in STRATEGIES if cls.node_id not in ELSEWHERE and theme_of(cls) == name]
    if name == ALL:
        return {name: [*COLUMNS, *shown]}
    plain = Column("no guidance" if theme.cfg == 1 else f"plain CFG {theme.cfg:g}", theme.cfg)
    count = ceil(len(shown) / (MOST - 1))
    each = ceil(len(shown) / count)
    return {name + f"_{i + 1}" * (count > 1): [plain, *shown[i * each:(i + 1) * each]] for i in range(count)}


def column(cls, cfg):
    """A strategy called as its node without what stands in brackets, and by its cfg where that is not the theme's."""
    own = CFG.get(cls.node_id, cfg)
    title = re.sub(r" \(.*\)", "", cls.title) + (f" at cfg {own:g}" if own != cfg else "")
    return Column(title, own, cls.node_id, SETTINGS.get(cls.node_id, {}))


def theme_of(cls):
    home = cls.__module__.rpartition(".")[2]
    return FLOW if cls.node_id in FOR_FLOW else next((name for name, theme in THEMES.items() if home in theme.homes), ALL)


def strategies(known):
    for name, theme in THEMES.items():
        note = f"# {theme.title}\n\n{theme.text}\n\n{HOW}"
        for part, columns in parts(name).items():
            yield f"{part}.json", abreast(known, note, columns, theme.prediction, unwanted(PROMPT), folded=name == ALL)


def files():
    """{file name: text} of all example workflows."""
    known = {**classes(), **EXTRAS}
    return {**lessons.files(known), **dict(strategies(known)), **inversion.files(known), **sheets.files(known)}


def write():
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(FOLDER / name)
