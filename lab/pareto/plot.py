"""The picture of a run: for each strategy its points beside the line of plain CFG."""
import matplotlib
import torch

matplotlib.use("agg")  # no window

from matplotlib import pyplot  # noqa: E402

from .grid import PLAIN  # noqa: E402
from .measures import interval  # noqa: E402
from .overview import GREY, LOOKS  # noqa: E402

ACROSS = 4
SETTINGS = {"svg.hashsalt": "pareto", "svg.fonttype": "none", "font.size": 8, "font.family": "DejaVu Sans"}


def draw(folder, measured, verdicts, real, count, prediction):
    plain = [(point, found) for point, found, _ in measured if point.strategy == PLAIN]
    told = [(point, found, verdict) for (point, found, _), verdict in zip(measured, verdicts) if verdict]
    names = list(dict.fromkeys(point.strategy for point, _, _ in told))
    down = -(-(len(names) + 1) // ACROSS)
    with matplotlib.rc_context(SETTINGS):
        figure, axes = pyplot.subplots(down, ACROSS, figsize=(11, 0.8 + 2.3 * down), sharex=True, sharey=True,
                                       squeeze=False, layout="constrained")
        first, *panels = axes.flat
        panel(first, plain, real)
        first.set_title("plain CFG", fontsize=9)
        for point, found in plain:
            first.annotate(point.at.removeprefix("cfg "), middle(found), xytext=(4, 3), textcoords="offset points",
                           color="#333333")
        for name, axis in zip(names, panels):
            panel(axis, plain, real)
            axis.set_title(name, fontsize=9)
            strategy([(found, verdict) for point, found, verdict in told if point.strategy == name], axis)
        for axis in panels[len(names):]:
            axis.set_axis_off()
        first.set_yscale("log")
        first.yaxis.set_major_formatter("{x:g}")
        first.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
        figure.supxlabel("share of pictures that show what was asked for")
        figure.supylabel("Frechet distance to real images")
        marks = [pyplot.Line2D([], [], color=colour, marker=mark, linestyle="", label=word)
                 for word, (colour, mark) in LOOKS.items() if any(word == verdict.word for _, _, verdict in told)]
        marks += [pyplot.Line2D([], [], color=GREY, marker=".", label="plain CFG")]
        if real is not None:
            marks += [pyplot.Line2D([], [], color=GREY, linestyle=":", label="other real images")]
        figure.legend(handles=marks, loc="outside upper center", ncols=len(marks), frameon=False,
                      title=f"Against plain CFG of equal alignment (prediction {prediction}, {count} images a point, 95 %)")
        figure.savefig(folder / "pareto.png", dpi=130)
        figure.savefig(folder / "pareto.svg", metadata={"Date": None})
        pyplot.close(figure)


def middle(found):
    return found["alignment"][0].item(), found["frechet"][0].item()


def panel(axis, plain, real):
    """What all strategies are compared with."""
    axis.plot(*zip(*(middle(found) for _, found in plain)), color=GREY, marker=".", zorder=1)
    if real is not None:
        axis.axhline(real["frechet"][0].item(), color=GREY, linestyle=":", linewidth=1, zorder=0)
    axis.grid(color="#eeeeee", zorder=0)
    axis.spines[["top", "right"]].set_visible(False)


def strategy(points, axis):
    axis.plot(*zip(*(middle(found) for found, _ in points)), color="#888888", linewidth=0.8, zorder=2)
    for found, verdict in points:
        (colour, mark), (x, y) = LOOKS[verdict.word], middle(found)
        spans = [torch.tensor([[value - low], [high - value]]).clamp(min=0).tolist() for value, (low, high) in
                 ((x, interval(found["alignment"])), (y, interval(found["frechet"])))]
        axis.errorbar(x, y, xerr=spans[0], yerr=spans[1], color=colour, marker=mark, markersize=5, linewidth=0.8, zorder=3)
