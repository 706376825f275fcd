"""What a run has found, as files: all numbers (points.csv, and costs.csv with those that differ from run to run), a table
(table.md) and pictures (pareto.png, pareto.svg, overview.png)."""
import csv
import json
from itertools import groupby

from . import overview
from .grid import PLAIN
from .measures import compare, interval, roughness

MEASURES = ("alignment", "frechet", "precision", "recall", "clipped", "diversity")
REAL = "Real images"


def write(folder, measured, real, count, prediction, left, refused):
    """measured: [(point, {measure: draws}, costs)]; real: measures of real images, or None; left: points not computed yet;
    refused: {(strategy, at): why there is nothing of this one}."""
    plain = [found for point, found, _ in measured if point.strategy == PLAIN]
    compared = "frechet" in plain[0]
    verdicts = [compare(found, plain) if compared and point.strategy != PLAIN else None for point, found, _ in measured]
    names = [name for name in MEASURES if name in plain[0]]
    save(folder / "points.csv", table_of(measured, verdicts, real, names, count))
    save(folder / "costs.csv", [["strategy", "at", "rows per image", "CPU seconds per image"]] + [
        [point.strategy, point.at, f"{costs['rows']:.6g}", f"{costs['seconds']:.4g}"] for point, _, costs in measured])
    text = markdown(measured, verdicts, real, names, count, prediction, left, roughness(plain) if compared else None)
    text += "".join(f"\nLeft out: {strategy}, {at}. {why}\n" for (strategy, at), why in refused.items())
    (folder / "table.md").write_text(text, encoding="utf-8")
    print(text)
    if compared:
        pictures(folder, measured, verdicts, real, count, prediction)
    print(f"Everything is in {folder}")


def pictures(folder, measured, verdicts, real, count, prediction):
    from .plot import draw  # takes a package that nothing else needs
    draw(folder, measured, verdicts, real, count, prediction)
    overview.draw({prediction: overview.read(folder / "points.csv")}, folder / "overview.png")


def save(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def table_of(measured, verdicts, real, names, count):
    header = ["strategy", "at", "cfg", "node", "inputs", "images"]
    header += [text for name in names for text in (name, f"{name} from", f"{name} to")]
    header += [overview.DIFFERENCE, "from", "to", "verdict"]
    rows = [header]
    if real is not None:
        rows.append([REAL, "", "", "", "", count, *numbers(real, names), "", "", "", ""])
    for (point, found, _), verdict in zip(measured, verdicts):
        told = [f"{value:.4g}" for value in verdict[:3]] + [verdict.word] if verdict else [""] * 4
        rows.append([point.strategy, point.at, f"{point.cfg:g}", point.node, json.dumps(point.inputs), count,
                     *numbers(found, names), *told])
    return rows


def numbers(found, names):
    return [f"{value:.4g}" for name in names for value in (found[name][0].item(), *interval(found[name]))]


# ---------------------------------------------------------------------------------------------- the table

def markdown(measured, verdicts, real, names, count, prediction, left, rough):
    shown = [(point.at if point.strategy == PLAIN else f"{point.strategy}, {point.at}", found, costs)
             for point, found, costs in measured if point.strategy == PLAIN or rough is None]
    title = [*names, "rows", "CPU ms"]
    lines = [f"Prediction {prediction}, {count} images a point, {in_all(measured, count)}."
             + (f" {left} points are not computed yet." if left else ""),
             "", line(["plain CFG", *title]), line(["---", *["---:"] * len(title)])]
    if real is not None:
        lines.append(line([REAL.lower(), *(cell(name, real) for name in names), "", ""]))
    for at, found, costs in shown:
        lines.append(line([at, *(cell(name, found) for name in names), *cost(costs)]))
    if rough is None:
        return "\n".join(lines) + "\n"
    strengths = max((len(told) for _, told in by_strategy(measured, verdicts)), default=1)
    lines += ["", "Frechet distance against that of plain CFG where it follows the prompt equally well:", "",
              line(["strategy", "rows", "CPU ms", *(["from weak to strong"] + [""] * (strengths - 1))]),
              line(["---", "---:", "---:", *["---"] * strengths])]
    for strategy, told in by_strategy(measured, verdicts):
        costs = [cost(costs) for _, _, costs, _ in told]
        lines.append(line([strategy, *map(span, zip(*costs)), *map(judgement, told)]))
    lines += ["", "Intervals are 95 %, of single comparisons. What follows the prompt better than any scale of plain CFG is "
              "compared with the scale that does so best. Between its points the line of plain CFG may be off by up to "
              f"{rough:.2g}, so do not read much into less than that. "
              "Settings are in points.csv."]
    return "\n".join(lines) + "\n"


def in_all(measured, count):
    rows, hours = (count * sum(costs[name] for _, _, costs in measured) for name in ("rows", "seconds"))
    return f"{len(measured)} points" + (f", {rows:,.0f} rows and {hours / 3600:.1f} CPU hours in all" if rows == rows else "")


def line(cells):
    return f"| {' | '.join(cells)} |"


def cell(name, found):
    value, (low, high) = found[name][0].item(), interval(found[name])
    form = {"frechet": ".2f", "diversity": ".2f", "clipped": ".2%"}.get(name, ".3f")
    return f"{value:{form}} ({low:{form}} to {high:{form}})"


def cost(costs):
    """Rows and milliseconds as cells, empty where unknown."""
    rows, seconds = costs["rows"], costs["seconds"]
    return [f"{rows:.3g}" if rows == rows else "", f"{1000 * seconds:.0f}" if seconds == seconds else ""]


def span(cells):
    least, most = min(cells, key=lambda cell: float(cell or 0)), max(cells, key=lambda cell: float(cell or 0))
    return least if least == most else f"{least} to {most}"


def by_strategy(measured, verdicts):
    """[(strategy, [(point, measures, costs, verdict) of each strength])] without plain CFG."""
    told = [(*one, verdict) for one, verdict in zip(measured, verdicts) if verdict]
    return [(name, list(group)) for name, group in groupby(told, lambda one: one[0].strategy)]


def judgement(told):
    point, found, _, verdict = told
    where = f"{point.at}, {found['alignment'][0].item():.0%} as asked"
    low, high = f"{verdict.low:.2f}", f"{verdict.high:.2f}"
    if verdict.word == "better":
        return f"**better** by {-verdict.difference:.2f} ({-verdict.high:.2f} to {-verdict.low:.2f})<br>{where}"
    if verdict.word == "worse":
        return f"worse by {verdict.difference:.2f} ({low} to {high})<br>{where}"
    return f"{verdict.word}{f' ({low} to {high})' if verdict.low == verdict.low else ''}<br>{where}"
