"""`python lab mixture`: every strategy on a model that is known exactly, and what is claimed of them held against it."""

import csv
import time
from pathlib import Path

import comfy.utils
import torch

from . import claims, measure, picture, runs
from .model import pictures

SHOWN = [  # in the picture
    "no guidance", "CFG 2", "CFG 4", "CFG 8", "interval",
    "rising", "falling", "low-high-low", "CFG++ 0.6", "beta-CFG", "FBG",
    "Perp-CFG", "APG", "FDG", "TCFG", "MAMBO-G", "power-law",
    "rescale", "mimic", "dynamic threshold", "CFG norm", "Automatic CFG", "Skimmed CFG",
    "autoguidance 2", "autoguidance 4", "TSG", "momentum", "adaptive", "negative, plain",
]
COLUMNS = ("distance", "coverage", "doubt", "overshoot", "spread")


def report(folder, seeds=16, n=512):
    """Run everything, and write table.md, table.csv, claims.md and samples.png into a folder."""
    comfy.utils.set_progress_bar_enabled(False)
    torch.set_grad_enabled(False)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    measured, truth = {}, measure.Truth(pictures(), runs.prompts()[0])
    weights = measure.resampling(seeds)
    for bench in runs.BENCHES:
        start, results = time.perf_counter(), {"real": runs.real(seeds, n)}
        for setting in on(bench):
            results[setting.title] = runs.run(bench, setting, seeds, n)
        measured[bench] = claims.Measured(truth, results, weights)
        print(f"{bench.title}: {len(results)} settings, {time.perf_counter() - start:.0f} s", flush=True)
    found = claims.findings(measured)
    write_csv(folder / "table.csv", measured)
    size = f"{seeds * n} samples of {seeds} seeds for each row, {runs.STEPS} steps of euler."
    (folder / "table.md").write_text("\n".join(table(measured, size)) + "\n", encoding="utf-8")
    (folder / "claims.md").write_text("\n".join(told(found, size)) + "\n", encoding="utf-8")
    sheet(measured[runs.BLURRED]).save(folder / "samples.png", optimize=True)
    print((folder / "claims.md").read_text(encoding="utf-8"))
    print(f"Written to {folder}: table.md, table.csv, claims.md, samples.png")


def on(bench):
    return [setting for setting in runs.SETTINGS if bench.prediction in setting.on]


def write_csv(path, measured):
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(["predictions", "model", "strategy", "node", "cfg", "rows",
                        *(f"{name}{end}" for name in (*COLUMNS, "at same alignment") for end in ("", " low", " high"))])
        for bench, of in measured.items():
            for title, node, cfg in [("real", "", ""), *((s.title, s.node, s.cfg) for s in on(bench))]:
                values = [of.of(name, title) for name in COLUMNS] + [of.matched("distance", title)]
                node = node.format(interval=runs.INTERVAL[bench.prediction])
                kind, prediction = bench.title.split(", ")
                lines.writerow([prediction, kind, title, node, cfg, f"{of.rows[title]:.2f}",
                                *(f"{number:.4f}" for value in values for number in measure.interval(value))])


def table(measured, size):
    """Lines of Markdown."""
    yield from ("# The mixture: every strategy", "", f"By `python dev.py lab mixture`. {size}", "")
    yield from LEGEND
    for bench, of in measured.items():
        yield from ("", f"## {bench.title}", "", f"| strategy | cfg | {' | '.join(COLUMNS)} | at same alignment | rows |",
                    "|---|---:|" + "---:|" * (len(COLUMNS) + 2))
        for title, cfg in [("real", ""), *((s.title, f"{s.cfg:g}") for s in on(bench))]:
            cells = [f"{float(of.of(name, title)[0]):.3f}" for name in COLUMNS]
            middle, low, high = measure.interval(of.matched("distance", title))
            same = "" if title in ("real", *claims.CURVE) else f"{middle:+.3f} ({low:+.3f} to {high:+.3f})"
            yield f"| {title} | {cfg} | {' | '.join(cells)} | {same} | {of.rows[title]:.2f} |"


LEGEND = [
    "distance: sliced Wasserstein, to what the prompt asks for; the row \"real\" is as many true samples, and so the least",
    "that can be seen. coverage: 1 where each mode is as frequent as it should be. doubt: how likely samples are of another",
    "class. overshoot: how far modes have moved outwards, in their widths. spread: their width; the true one is 1. at same",
    "alignment: distance less that of CFG at the scale that has the same doubt, with its 95 % interval; negative is better.",
    "rows: those of adaptive guidance are those of the slowest of thousands of pictures. exact: a perfect model. blurred: one",
    "that takes modes to be 2 times as wide as they are, and 3 times without a prompt.",
    "",
    "Not here, because this model cannot show it: " + "; ".join(
        f"{', '.join(id.removeprefix('Guidance') for id, why in runs.CANNOT.items() if why == reason)} ({reason})"
        for reason in dict.fromkeys(runs.CANNOT.values())) + ".",
]


def told(found, size):
    """Lines of Markdown: each claim, its number on each model, and the verdict."""
    yield from ("# The mixture: what is claimed, and what is seen", "", f"By `python dev.py lab mixture`. {size}", "",
                "A number says by how much a claim fails: it is confirmed where the 95 % interval (seeds drawn anew) is below",
                "0, contradicted where it is above, and not visible here where 0 is in it, or where the number is smaller than",
                f"{claims.VISIBLE}. The models are those of table.md.", "")
    verdicts = [finding.verdict for finding in found]
    yield "; ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts)) + "."
    titles = [bench.title for bench in runs.BENCHES]
    yield from ("", f"| claim | source | number | {' | '.join(titles)} |", "|---" * (3 + len(titles)) + "|")
    for claim in claims.CLAIMS:
        cells = {finding.bench: f"{finding.verdict}: {finding.value:+.3f} ({finding.low:+.3f} to {finding.high:+.3f})"
                 for finding in found if finding.claim is claim}
        yield f"| {claim.text} | {claim.source} | {claim.number} | {' | '.join(cells.get(b, '') for b in runs.BENCHES)} |"


def sheet(of):
    """The picture, of the blurred model."""
    settings = {setting.title: setting for setting in runs.SETTINGS}
    samples = {"the truth": pictures().draw(picture.SHOWN, torch.Generator().manual_seed(0), runs.prompts()[0])}
    notes = {"the truth": "what the prompt asks for"}
    for title in SHOWN:
        cfg = settings[title].cfg
        name = title if cfg == runs.CFG or title.endswith((f" {cfg:g}", "guidance")) else f"{title}, cfg {cfg:g}"
        samples[name], _ = runs.sample(runs.BLURRED, settings[title], runs.noise_of(2, picture.SHOWN // 2))
        distance, coverage = (float(of.of(column, title)[0]) for column in ("distance", "coverage"))
        notes[name] = f"distance {distance:.2f}, coverage {coverage:.0%}"
    return picture.draw(samples, notes, "The same prompt and noise, an imperfect model, cfg 4 where nothing else is said",
                        ("all pictures", "what the prompt asks for", "samples"))
