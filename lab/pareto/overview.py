"""One look at what runs have found: how far each strategy is from plain CFG that follows the prompt equally well."""
import csv
from math import floor, inf, log10, nan
from statistics import median

import torch

from .grid import PLAIN
from .measures import roughness

LOOKS = {  # colour and mark of each verdict; the colours are told apart by colour-blind people too
    "better": ("#0072b2", "v"), "worse": ("#d55e00", "^"), "not told apart": ("#555555", "o"),
    "more than CFG reaches": ("#009e73", ">"), "less than CFG has": ("#999999", "<"),
}
GREY, BAND = "#b5b5b5", "#f0f0f0"
DIFFERENCE = "frechet less that of plain CFG of equal alignment"


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["at"]]  # real images are at no strength


def draw(runs, out):
    """runs: {title: rows of a points.csv}, drawn beside each other; strategies in the order of their middle strength."""
    from .plot import SETTINGS, matplotlib, pyplot  # a package that nothing else needs
    told = {title: by_strategy(rows) for title, rows in runs.items()}
    names = ordered(told)
    with matplotlib.rc_context(SETTINGS):
        figure, axes = pyplot.subplots(1, len(runs), figsize=(3.4 + 2.9 * len(runs), 1.1 + 0.235 * len(names)), sharex=True,
                                       sharey=True, squeeze=False, layout="constrained")
        for axis, title in zip(axes[0], runs):
            panel(axis, title, runs[title])
            for place, name in enumerate(names):
                strategy(axis, place, told[title].get(name, []))
        axes[0, 0].set_yticks(range(len(names)), names)
        axes[0, 0].set_ylim(len(names) - 0.4, -0.6)
        scaled(axes[0, 0], [number(row[name]) for rows in runs.values() for row in rows for name in ("from", "to")])
        figure.supxlabel("Frechet distance to real images, less that of plain CFG where it follows the prompt as well:\n"
                         "left of 0 is better", fontsize=9)
        words = {row["verdict"] for rows in runs.values() for row in rows}
        marks = [pyplot.Line2D([], [], color=colour, marker=mark, linestyle="", label=word)
                 for word, (colour, mark) in LOOKS.items() if word in words]
        marks += [pyplot.Rectangle((0, 0), 1, 1, color=BAND, label="how far off the line of plain CFG may be")]
        figure.legend(handles=marks, loc="outside upper center", ncols=3 if len(runs) == 1 else len(marks), frameon=False)
        figure.savefig(out, dpi=130)
        pyplot.close(figure)


def by_strategy(rows):
    groups: dict = {}
    for row in rows:
        if row["verdict"]:
            groups.setdefault(row["strategy"], []).append(row)
    return groups


def ordered(told):
    """The strategies of all runs by their difference at the middle strength, the mean over runs; those that cannot be compared
    come last."""
    def middle(name):
        points = [groups[name] for groups in told.values() if name in groups]
        found = [number(rows[len(rows) // 2][DIFFERENCE]) for rows in points]
        known = [value for value in found if value == value]
        return sum(known) / len(known) if known else inf

    return sorted(dict.fromkeys(name for groups in told.values() for name in groups), key=middle)


def number(text):
    return float(text) if text else nan


def scaled(axis, ends):
    """An axis on which what is near 0 is seen beside what is far: half of the ends lie before its first tick, and from there
    on the ticks double."""
    known = [0.0, *(end for end in ends if end == end)]
    low, high, middle = min(known), max(known), max(median(map(abs, known)), 1e-6)
    ten = 10 ** floor(log10(middle))
    first = next(ten * step for step in (1, 2, 5, 10) if ten * step >= middle)
    ticks = [sign * first * 2 ** i for sign in (-1, 1) for i in range(10)]
    axis.set_xscale("symlog", linthresh=first, linscale=1)
    axis.set_xticks([0, *ticks], [f"{tick:g}" for tick in (0, *ticks)])
    axis.set_xlim(1.2 * min(low, -first), 1.4 * max(high, first))


def panel(axis, title, rows):
    plain = [{name: torch.tensor([float(row[name])]) for name in ("alignment", "frechet")}
             for row in rows if row["strategy"] == PLAIN]
    axis.axvspan(-roughness(plain), roughness(plain), color=BAND, linewidth=0, zorder=0)
    axis.axvline(0, color=GREY, linewidth=1, zorder=1)
    axis.set_title(title, fontsize=9)
    axis.grid(axis="y", color="#eeeeee", zorder=0)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)


def strategy(axis, place, points):
    """Its strengths below each other, the weakest first; what cannot be compared stands at the edge."""
    for turn, row in enumerate(points):
        (colour, mark), y = LOOKS[row["verdict"]], place + 0.24 * (turn - (len(points) - 1) / 2)
        x, low, high = (number(row[name]) for name in (DIFFERENCE, "from", "to"))
        if x != x:
            axis.plot([0.985], [y], color=colour, marker=mark, markersize=4, transform=axis.get_yaxis_transform())
        else:
            axis.errorbar(x, y, xerr=[[max(x - low, 0)], [max(high - x, 0)]], color=colour, marker=mark, markersize=4,
                          linewidth=0.8, zorder=3)
