"""What papers and users say of the strategies, held against the mixture: confirmed, contradicted, or not visible here."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from . import measure
from .runs import BENCHES, BLURRED_FLOW, CFG, EXACT, EXACT_FLOW, SCALES, Bench, plain

MARGIN = 0.02  # what differs by less than this counts as the same, where that is the claim
VISIBLE = 0.005  # and no other difference below this says anything
CURVE = [plain(scale).title for scale in SCALES]
TILTED = plain(2).title


class Measured:
    """All measures of the settings of one bench, for all seeds and for resampled ones, which are the same for all."""

    def __init__(self, truth, results, weights):
        self.measures = {title: truth.measures(result.seen.mean(weights)) for title, result in results.items()}
        self.rows = {title: result.rows for title, result in results.items()}
        self.from_tilted = truth.distance(results[TILTED].seen.mean(weights), truth.tilted(2)) if TILTED in results else None

    def of(self, name, title):
        return self.measures[title][name]

    def plain_at(self, name, title):
        """What CFG has of a measure at the scale at which it follows the prompt as well as this setting does; at the first or
        last of the scales where it nowhere does."""
        sure = lambda of: -self.of("doubt", of).clamp(min=1e-6).log()
        curve = torch.stack([sure(scale) for scale in CURVE], 1).cummax(1).values
        values = torch.stack([self.of(name, scale) for scale in CURVE], 1)
        return torch.tensor([np.interp(*row) for row in zip(sure(title).numpy(), curve.numpy(), values.numpy())])

    def matched(self, name, title):
        """A measure less CFG's where both follow the prompt as well."""
        return self.of(name, title) - self.plain_at(name, title)


# ---------------------------------------------------------------------------------------------------- kinds of claims
# Each from a Measured to values that are negative where the claim holds, of which the first is that of all seeds.

def less(name, one, other):
    """One setting has less of a measure than another."""
    return lambda bench: bench.of(name, one) - bench.of(name, other)


def more(name, one, other):
    return less(name, other, one)


def closer(title):
    """At a scale of CFG that follows the prompt as well, the setting is closer to the truth."""
    return lambda bench: bench.matched("distance", title)


def keeps_more(title):
    """At such a scale, it covers more of the truth's modes."""
    return lambda bench: -bench.matched("coverage", title)


def same(name, one, other, margin=MARGIN):
    """Two settings differ by less than a margin; at the margin it is 0."""
    return lambda bench: (bench.of(name, one) - bench.of(name, other)).abs() - margin


def best(bench, titles):
    return torch.stack([bench.of("distance", title) for title in titles], 1).amin(1)


AUTO = ["no guidance", *(f"autoguidance {cfg:g}" for cfg in (1.5, 2, 3, 4))]
NONE, PLAIN, TWICE = CURVE[0], plain(CFG).title, plain(8).title


def best_is_between(bench):
    """The best scale is closer to the truth than both ends of the range."""
    ends = torch.stack([bench.of("distance", NONE), bench.of("distance", TWICE)], 1).amin(1)
    return best(bench, CURVE[1:-1]) - ends


def flatter_in_scale(bench):
    return (bench.of("distance", "interval, cfg 8") - bench.of("distance", "interval, cfg 2")) \
        - (bench.of("distance", TWICE) - bench.of("distance", plain(2).title))


def best_of(titles, others):
    return lambda bench: best(bench, titles) - best(bench, others)


def is_tilted(bench):
    """CFG at 2 is as close to p(sample | prompt) p(prompt | sample) as true samples are to the truth."""
    return bench.from_tilted - bench.of("distance", "real") - MARGIN


class Claim(NamedTuple):
    text: str
    source: str
    number: str  # what the number is
    holds: Callable[[Measured], torch.Tensor]  # negative values
    benches: tuple[Bench, ...] = tuple(BENCHES)


def by_alignment(text, source, title, benches=tuple(BENCHES)):
    return Claim(text, source, "distance, less CFG's at the same alignment", closer(title), benches)


FLOWS = (EXACT_FLOW, BLURRED_FLOW)
DISTANCE = "difference of distances"
CLAIMS = [
    Claim("The distance to the truth is U-shaped over the scale", "Ho & Salimans 2022", DISTANCE, best_is_between),
    Claim("The higher the scale, the closer the prompt is followed", "Ho & Salimans 2022", "difference of doubts",
          less("doubt", TWICE, plain(2).title)),
    Claim("CFG draws from p(picture) p(prompt given picture)^cfg", "often said",
          "distance to that at cfg 2, less the least, less 0.02", is_tilted, (EXACT, EXACT_FLOW)),
    Claim("High cfg pushes modes outwards", "Chidambaram 2024", "difference of overshoots", more("overshoot", TWICE, NONE)),
    Claim("High cfg loses modes", "Ho & Salimans 2022", "difference of coverages", less("coverage", TWICE, NONE)),
    Claim("An interval is closer to the truth than the same cfg throughout", "Kynkäänniemi 2024", DISTANCE,
          less("distance", "interval", PLAIN)),
    by_alignment("An interval is closer also at the same alignment", "Kynkäänniemi 2024", "interval"),
    Claim("With an interval the distance depends less on the scale", "Kynkäänniemi 2024", "difference of rises from cfg 2 to 8",
          flatter_in_scale),
    Claim("Guidance at high noise is harmful", "Kynkäänniemi 2024", DISTANCE, less("distance", "not in the first 30 %", PLAIN)),
    Claim("Guidance at low noise is unnecessary: the last tenth", "Kynkäänniemi 2024", "difference of distances, less 0.02",
          same("distance", "not in the last 10 %", PLAIN)),
    Claim("To leave guidance out of the last 30 % hurts", "Wang 2024", DISTANCE,
          less("distance", PLAIN, "not in the last 30 %")),
    Claim("Rising scales are better than a constant one", "Wang 2024", DISTANCE, less("distance", "rising", PLAIN)),
    by_alignment("Rising scales are better also at the same alignment", "Wang 2024", "rising"),
    Claim("Falling scales are worse than a constant one", "Wang 2024", DISTANCE, less("distance", PLAIN, "falling")),
    Claim("Low-high-low is better than constant", "Jin 2025", DISTANCE, less("distance", "low-high-low", PLAIN)),
    by_alignment("beta-CFG is better than CFG", "Malarz 2025", "beta-CFG"),
    by_alignment("CFG++ is better than CFG", "Chung 2024", "CFG++ 0.6"),
    by_alignment("FBG is better than CFG", "Koulischer 2025", "FBG"),
    by_alignment("APG is better than CFG", "Sadat 2024", "APG"),
    Claim("APG keeps more variety than CFG", "Sadat 2024", "coverage, CFG's at the same alignment less its own",
          keeps_more("APG")),
    by_alignment("Of APG, the limit alone is better than CFG", "Sadat 2024", "APG, limit alone"),
    by_alignment("Perp-CFG is better than CFG", "the projected family", "Perp-CFG"),
    Claim("Perp-CFG burns less at the same cfg", "the projected family", "difference of overshoots",
          less("overshoot", "Perp-CFG", PLAIN)),
    by_alignment("CFG-Zero*'s scale is better than CFG", "Fan 2025", "CFG-Zero*", FLOWS),
    Claim("Zero init improves a flow model", "Fan 2025", DISTANCE, less("distance", "zero init alone", PLAIN), FLOWS),
    Claim("Zero init does more than to leave out guidance there", "Fan 2025", DISTANCE,
          less("distance", "zero init alone", "not in the first 4 %"), FLOWS),
    Claim("Zero init improves a flow model without guidance", "Fan 2025", DISTANCE,
          less("distance", "zero init, no guidance", NONE), FLOWS),
    by_alignment("FDG is better than CFG", "Sadat 2025", "FDG"),
    Claim("FDG keeps more variety than CFG", "Sadat 2025", "coverage, CFG's at the same alignment less its own",
          keeps_more("FDG")),
    by_alignment("TCFG is better than CFG", "Kwon 2025", "TCFG"),
    by_alignment("MAMBO-G is better than CFG", "Zhu 2025", "MAMBO-G", FLOWS),
    by_alignment("Power-law CFG is better than CFG", "Pavasovic 2025", "power-law"),
    by_alignment("Rectified-CFG++ is better than CFG", "Saini 2025", "Rectified-CFG++", FLOWS),
    Claim("SMC-CFG overshoots less at the same cfg", "Wang 2026", "difference of overshoots",
          less("overshoot", "SMC-CFG", PLAIN), FLOWS),
    *(Claim(f"{text} burns less at the same cfg", source, "difference of overshoots", less("overshoot", title, PLAIN))
      for text, source, title in (
          ("Rescale", "Lin 2023", "rescale"), ("Rescale of x0", "LTX-2", "rescale, x0"),
          ("Dynamic thresholding", "Saharia 2022", "dynamic threshold"), ("Mimic", "community", "mimic"),
          ("CFG norm", "Qwen-Image", "CFG norm"),
          ("Automatic CFG", "community", "Automatic CFG"), ("Skimmed CFG", "community", "Skimmed CFG"))),
    *(Claim(f"{text} changes contrast alone, and not which modes there are", source, "difference of coverages, less 0.02",
            same("coverage", title, PLAIN))
      for text, source, title in (
          ("Rescale", "Lin 2023", "rescale"), ("Dynamic thresholding", "Saharia 2022", "dynamic threshold"),
          ("Mimic", "community", "mimic"))),
    Claim("Momentum guidance improves on no guidance", "Liao 2026", DISTANCE, less("distance", "momentum", NONE), FLOWS),
    Claim("TSG improves on no guidance", "Sadat 2024", DISTANCE, less("distance", "TSG", NONE)),
    Claim("At its best, autoguidance is closer to the truth than CFG at its best", "Karras 2024", DISTANCE,
          best_of(AUTO, CURVE)),
    Claim("Autoguidance keeps more variety than CFG", "Karras 2024", "coverage, CFG's at the same cfg less its own",
          more("coverage", "autoguidance 3", plain(3).title)),
    Claim("An interval on top of autoguidance hurts", "Kynkäänniemi 2024", DISTANCE,
          less("distance", "autoguidance 3", "autoguidance 3, interval")),
    Claim("Adaptive guidance by cosine changes nothing", "Castillo 2023", "difference of distances, less 0.02",
          same("distance", "adaptive, cosine", PLAIN)),
    Claim("Adaptive guidance by norm changes nothing", "the node's default", "difference of distances, less 0.02",
          same("distance", "adaptive", PLAIN)),
    Claim("Compress guidance changes nothing", "Dinh 2024", "difference of distances, less 0.02",
          same("distance", "compress", PLAIN)),
    Claim("An exact classifier of noisy pictures makes the unconditional model the conditional one", "Dhariwal & Nichol 2021",
          "difference of distances, less 0.02", same("distance", "classifier alone", NONE), (EXACT, EXACT_FLOW)),
]


class Finding(NamedTuple):
    claim: Claim
    bench: Bench
    value: float
    low: float
    high: float

    @property
    def verdict(self):
        if abs(self.value) < VISIBLE or self.low <= 0 <= self.high:
            return "not visible here"
        return "confirmed" if self.value < 0 else "contradicted"


def findings(measured):
    """A Finding for each claim on each of its benches. measured: {Bench: Measured}."""
    return [Finding(claim, bench, *measure.interval(claim.holds(measured[bench])))
            for claim in CLAIMS for bench in claim.benches]
