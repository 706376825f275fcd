"""What is run on the mixture: every strategy that can act on it, through ComfyUI's own sampling."""

from typing import NamedTuple

import comfy.sample
import torch

from ..sweep import guided
from . import measure
from .model import SIDE, Classifier, conditioning, load, patterns, pictures

CFG = 4
SCALES = (1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6.5, 8)
STEPS = 50
SCHEDULERS = {"eps": "normal", "flow": "simple"}  # both even in percent, so that shapes of schedules mean the same
WORSE = (2.0, 3.0)  # a model that takes modes to be wider than they are, and knows even less without a prompt
WEAKER = {(1.0, 1.0): (1.5, 1.5), WORSE: (3.0, 3.0)}  # what autoguidance leads away from


class Bench(NamedTuple):
    """One kind of model. blur: see model.Exact."""

    prediction: str
    blur: tuple[float, float] = (1.0, 1.0)

    @property
    def title(self):
        return f"{'exact' if self.blur == (1.0, 1.0) else 'blurred'}, {self.prediction}"


EXACT, BLURRED = Bench("eps"), Bench("eps", WORSE)
EXACT_FLOW, BLURRED_FLOW = Bench("flow"), Bench("flow", WORSE)
BENCHES = [EXACT, BLURRED, EXACT_FLOW, BLURRED_FLOW]


class Setting(NamedTuple):
    """A node as `lab sweep --node` takes it, and the sampler's cfg. on: of which predictions."""

    title: str
    node: str = ""
    cfg: float = CFG
    on: str = "eps flow"


def plain(scale):
    return Setting(f"CFG {scale:g}" if scale != 1 else "no guidance", cfg=scale)


INTERVAL = {"eps": "start=2.9 end=0.28 unit=sigma", "flow": "start=0.744 end=0.219 unit=sigma"}  # the same noise

SETTINGS = [
    *map(plain, SCALES),
    Setting("interval", "GuidanceCFG {interval}"),
    *(Setting(f"interval, cfg {cfg}", "GuidanceCFG {interval}", cfg) for cfg in (2, 8)),
    Setting("not in the first 4 %", "GuidanceCFG start=0.04"),
    Setting("not in the first 30 %", "GuidanceCFG start=0.3"),
    Setting("not in the last 30 %", "GuidanceCFG end=0.7"),
    Setting("not in the last 10 %", "GuidanceCFG end=0.9"),
    Setting("rising", "GuidanceCFG scale=0:1,1:7"),
    Setting("falling", "GuidanceCFG scale=0:7,1:1"),
    Setting("low-high-low", "GuidanceCFG scale=0:1,0.5:7,1:1"),
    Setting("CFG++ 0.4", "GuidanceCFGPlusPlus strength=0.4"),
    Setting("CFG++ 0.6", "GuidanceCFGPlusPlus strength=0.6"),
    Setting("beta-CFG", "GuidanceBetaCFG gamma=0"),
    Setting("FBG", "GuidanceFBG", 1),
    Setting("negative, plain", "GuidanceNegative"),
    Setting("negative, weighted", "GuidanceNegative mode=weighted"),
    Setting("negative, perp-neg", "GuidanceNegative mode=perp-neg"),
    Setting("Perp-CFG", "GuidancePerpCFG"),
    Setting("APG", "GuidanceAPG threshold=0.05"),
    Setting("APG, limit alone", "GuidanceAPG threshold=0.05 eta=1 momentum=0"),
    Setting("CFG-Zero*", "GuidanceCFGZeroStar"),
    Setting("CFG-Zero*, zero init", "GuidanceCFGZeroStar zero_steps=2", on="flow"),
    Setting("zero init alone", "GuidanceCFGZeroStar zero_steps=2 strength=0", on="flow"),
    Setting("zero init, no guidance", "GuidanceCFGZeroStar zero_steps=2 strength=0", 1, "flow"),
    Setting("FDG", "GuidanceFDG"),
    Setting("FreSca", "GuidanceFreSca"),
    Setting("TCFG", "GuidanceTCFG"),
    Setting("MAMBO-G", "GuidanceMamboG alpha=2"),
    Setting("power-law", "GuidancePowerLaw reference=0.3"),
    Setting("Automatic CFG", "GuidanceAutoRange reference=4"),
    Setting("Skimmed CFG", "GuidanceSkimmedCFG skim=2"),
    Setting("momentum", "GuidanceMomentum", 1),
    Setting("SMC-CFG", "GuidanceSMC"),
    Setting("dynamic threshold", "GuidanceDynamicThreshold form=latents"),
    Setting("mimic", "GuidanceMimic mimic_scale=2"),
    Setting("rescale", "GuidanceRescale"),
    Setting("rescale, x0", "GuidanceRescale space=x0"),
    Setting("CFG norm", "GuidanceRenorm"),
    Setting("CFG norm, limit 1", "GuidanceRenorm over=sample limit=1"),
    Setting("Rectified-CFG++", "GuidanceRectCFGPlusPlus", on="flow"),
    Setting("TSG", "GuidanceTSG", 1),
    Setting("adaptive", "GuidanceAdaptive"),
    Setting("adaptive, cosine", "GuidanceAdaptive measure=cosine threshold=0.01"),
    Setting("alternate", "GuidanceAlternate"),
    Setting("compress", "GuidanceCompress"),
    Setting("budget of 75", "GuidanceBudget rows=75"),
    *(Setting(f"autoguidance {cfg:g}", "GuidanceAutoguidance", cfg) for cfg in (1.5, 2, 3, 4)),
    Setting("autoguidance 3, interval", "GuidanceAutoguidance+GuidanceCFG {interval}", 3),
    Setting("classifier alone", "GuidanceClassifier where=x", 0),
]

CANNOT = {
    **dict.fromkeys(["GuidanceNAG", "GuidancePushAway", "GuidanceTextEncode", "GuidancePLADIS"],
                    "it reads no text by attention"),
    **dict.fromkeys(["GuidancePAG", "GuidanceSEG", "GuidanceSLG", "GuidanceTPG", "GuidanceRandomLayers", "GuidanceERG"],
                    "it has no layers"),
    **dict.fromkeys(["GuidanceNull", "GuidanceCADS"], "its prompts are classes and no embeddings"),
    "GuidanceDistilled": "it takes no scale",
    "GuidanceStreamCFG": "it has one stream",
    "GuidanceSWG": "it knows whole pictures only",
}


class Result(NamedTuple):
    seen: measure.Seen
    rows: float  # for each picture and step, weak models' included


def prompts():
    """The prompt, the empty one, and one of a class that is unwanted."""
    mixture = pictures()
    return mixture.only(0), torch.zeros_like(mixture.only(0)), mixture.only(1)


def links(node, bench, weak):
    """What a node needs besides widgets."""
    wanted, _, unwanted = prompts()
    return {"GuidanceNegative": {"negative": conditioning(unwanted)},
            "GuidanceAutoguidance": {"weak_model": weak},
            "GuidanceClassifier": {"classifier": Classifier(bench.prediction, wanted)}}.get(node.split()[0], {})


def noise_of(seeds, n):
    return torch.cat([torch.randn(n, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)) for seed in range(seeds)])


def sample(bench, setting, noise, steps=STEPS, sampler="euler"):
    """(coordinates along the patterns (len(noise), 16), rows for each picture and step)"""
    wanted, empty, _ = prompts()
    model, weak = load(*bench), load(bench.prediction, WEAKER[bench.blur])
    networks = [patcher.model.diffusion_model for patcher in (model, weak)]
    for node in filter(None, setting.node.format(interval=INTERVAL[bench.prediction]).split("+")):
        model = guided(model, node, **links(node, bench, weak))
    pictures = comfy.sample.sample(model, noise, steps, setting.cfg, sampler, SCHEDULERS[bench.prediction],
                                   conditioning(wanted), conditioning(empty), torch.zeros_like(noise),
                                   disable_pbar=True, seed=0)
    rows = sum(network.rows for network in networks) / len(noise) / steps
    return pictures.flatten(1) @ patterns().T, rows


def run(bench, setting, seeds, n):
    """The Result of one setting with n samples of each seed."""
    samples, rows = sample(bench, setting, noise_of(seeds, n))
    return Result(measure.see(pictures(), prompts()[0], samples.view(seeds, n, -1)), rows)


def real(seeds, n):
    """What as many true samples look like."""
    wanted = prompts()[0]
    samples = [pictures().draw(n, torch.Generator().manual_seed(1000 + seed), wanted) for seed in range(seeds)]
    return Result(measure.see(pictures(), wanted, torch.stack(samples)), 0.0)
