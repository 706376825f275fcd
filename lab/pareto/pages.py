"""`python lab pareto_results`: keep what runs have found in results/, and tell it of each strategy in its help page, in all of
the page's languages."""
import json
import re
import shutil
import textwrap
from pathlib import Path

from .overview import DIFFERENCE, by_strategy, draw, read
from .show import line

RESULTS = Path(__file__).with_name("results")
PAGES = Path(__file__).parent.parent.parent / "web" / "docs"
FILES = ("points.csv", "costs.csv", "table.md", "pareto.png", "pareto.svg")
HEADS = {"en": "**Against plain CFG**", "zh": "**与普通 CFG 相比**"}
TEXTS = {
    "en": " on the bundled model{settings} (`python dev.py lab pareto`): the Fréchet distance to real pictures, less that of "
          "plain CFG where it follows the prompt as well. Below 0 is better; bold is sure to 95 %.",
    "zh": "（演示模型{settings}，`python dev.py lab pareto`）：与真实图片的 Fréchet 距离，"
          "减去服从提示词程度相同的普通 CFG 的距离。小于 0 为更好；粗体表示有 95 % 的把握。",
}
WORDS = {
    "en": {"with": " with ", "to": " to ", "less than CFG has": "follows the prompt less than no guidance",
           "more than CFG reaches": "follows the prompt more than CFG at any scale"},
    "zh": {"with": "，", "to": " 至 ", "less than CFG has": "比没有引导时更不服从提示词",
           "more than CFG reaches": "比任何强度的 CFG 更服从提示词"},
}
NEXT = re.compile(r"^(\*\*Cost\.\*\*|Cost: |\*\*开销)", re.MULTILINE)  # what stands behind it on a page


def keep(runs):
    """runs: [(kind of model, the folder of its run)]"""
    for kind, folder in runs:
        for name in FILES:
            shutil.copyfile(Path(folder) / name, RESULTS / f"{kind}_{name}")
    draw({kind: read(RESULTS / f"{kind}_points.csv") for kind, _ in runs}, RESULTS / "overview.png")
    for node, runs in kept().items():
        for path, language in pages(node):
            page = path.read_text(encoding="utf-8")
            path.write_text(with_table(page, table(runs, language), language), encoding="utf-8")


def kept():
    """{node: {kind of model: rows of its points.csv}}"""
    found: dict = {}
    for path in sorted(RESULTS.glob("*_points.csv")):
        for rows in by_strategy(read(path)).values():
            found.setdefault(rows[0]["node"], {})[path.name.removesuffix("_points.csv")] = rows
    return found


def pages(node):
    """[(file, language)] of its help."""
    return [(PAGES / f"{node}.md", "en"), *((path, path.stem) for path in sorted((PAGES / node).glob("*.md")))]


def with_table(page, table, language):
    """The page with this table in place of the one that it has, or before what it costs."""
    old = re.compile(rf"^{re.escape(HEADS[language])}(.+\n)+\n(\|.*\n)+\n", re.MULTILINE)
    page = old.sub("", page)
    place = NEXT.search(page).start()
    return f"{page[:place]}{table}\n{page[place:]}"


def table(runs, language):
    words = WORDS[language]
    # By strength, which is that of all columns; a strength that one run has not is not there.
    columns = {row["at"]: title(row) for rows in runs.values() for row in sorted(rows, key=strength)}
    settings = {name: value for rows in runs.values() for name, value in json.loads(rows[0]["inputs"]).items()
                if name not in rows[0]["at"].split()}
    told = words["with"] + ", ".join(f"`{name}` {short(value)}" for name, value in settings.items()) if settings else ""
    text = HEADS[language] + TEXTS[language].format(settings=told)
    lines = [textwrap.fill(text, 124) if language == "en" else text, "", line(["", *columns.values()]),
             line(["---"] * (1 + len(columns)))]
    for run, rows in runs.items():
        cells = {row["at"]: cell(row, words) for row in rows}
        lines.append(line([run, *(cells.get(at, "") for at in columns)]))
    return "\n".join(lines) + "\n"


def strength(row):
    return float(row["at"].split()[-1])


def title(row):
    return row["at"] if row["at"].startswith("cfg") else f"{row['at']}, cfg {float(row['cfg']):g}"


def cell(row, words):
    if row["verdict"] in words:  # it cannot be compared
        return words[row["verdict"]]
    value, low, high = (f"{float(row[name]):.2f}".replace("-0.00", "0.00") for name in (DIFFERENCE, "from", "to"))
    sure = row["verdict"] in ("better", "worse")
    return f"{f'**{value}**' if sure else value} ({low}{words['to']}{high})"


def short(value):
    return f"{value:g}" if isinstance(value, float) else str(value)
