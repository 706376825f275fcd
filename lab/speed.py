"""`python lab speed`: what the bridge costs on the bundled model, against ComfyUI's own nodes in the same process."""

import statistics
import time
from functools import partial

import comfy.utils
import nodes
import torch
from comfy_extras.nodes_pag import PerturbedAttentionGuidance

from .. import guidance
from ..guidance.core import UNCOND, Step, Timeline, chain, guide
from ..nodes.bridge.blocks import anatomy_of
from ..nodes.bridge.hooks import attach
from ..nodes.demo.model import load
from ..nodes.direction import APG
from ..nodes.perturbed import PAG
from ..nodes.probe import ProbeNode
from .bench import extra_memory
from .order import wired

STEPS, CFG = 20, 5.0
LAYERS = ["middle.0.0"]


def paired(one, other, repeats, clock=time.perf_counter):
    """Seconds of two functions, run in turn so that a busy moment of the machine falls on both."""
    seconds = ([], [])
    for i in range(-1, repeats):
        for run, taken in zip((one, other), seconds):
            start = clock()
            run()
            if i >= 0:
                taken.append(clock() - start)
    return seconds


def sampler(model, clip, batch):
    encode = lambda text: nodes.CLIPTextEncode().encode(clip, text)[0]
    positive, negative = encode("a big red circle on blue"), encode("")
    latent = nodes.EmptyLatentImage().generate(32, 32, batch)[0]
    return lambda: nodes.common_ksampler(model, 1, STEPS, CFG, "euler", "normal", positive, negative, latent)


def speed(repeats=15):
    comfy.utils.set_progress_bar_enabled(False)
    model, clip, _ = load()
    ours = PAG.execute(model, scale=3.0, layers="middle", rescale=0.0).result[0]
    cores = PerturbedAttentionGuidance.execute(model, 3.0).result[0]
    print(f"{STEPS}-step runs, median of {repeats} pairs, {torch.get_num_threads()} threads")
    for batch in (1, 4):
        a, b = paired(sampler(ours, clip, batch), sampler(cores, clip, batch), repeats)
        ratio = statistics.median(x / y for x, y in zip(a, b))
        print(f"PAG + CFG at batch {batch}: {statistics.median(a):.3f} s, ComfyUI's own node "
              f"{statistics.median(b):.3f} s, ratio {ratio:.2f}")
    a, b = paired(sampler(attach(model, "nothing", Step), clip, 1), sampler(model, clip, 1), 4 * repeats)
    more = statistics.median(x - y for x, y in zip(a, b)) / STEPS
    print(f"a neutral chain: {1e6 * more:.0f} microseconds per step, of {1e6 * statistics.median(b) / STEPS:.0f}")
    probe(model, clip, 2 * repeats)
    print(f"self-attention layers of the bundled model: {', '.join(anatomy_of(model.model.diffusion_model).layers)}")
    memory()


def probe(model, clip, repeats):
    """In time on the processor: what a probe takes is less than what other programs make a run vary by."""
    chained = wired(model, PAG, APG)
    probed = ProbeNode.execute(chained).result[0]
    for batch in (1, 4):
        a, b = paired(sampler(probed, clip, batch), sampler(chained, clip, batch), repeats, time.process_time)
        more, step = statistics.median(x - y for x, y in zip(a, b)) / STEPS, statistics.median(b) / STEPS
        print(f"a probe behind PAG and APG at batch {batch}: {1e6 * more:.0f} microseconds per step, {more / step:.1%} of "
              f"{1e6 * step:.0f}")


CHAINS = {
    "CFG": guidance.cfg(3.0),
    "Perp-CFG": guidance.perp_cfg(),
    "PAG": guidance.pag(LAYERS),
    "PAG, rescaled": guidance.pag(LAYERS, rescale=0.7),
    "negative, weighted": guidance.negative_weighted("n"),
    "Perp-Neg": guidance.perp_neg("n"),
    "PAG + Perp-Neg + Perp-CFG": chain(guidance.pag(LAYERS), guidance.perp_neg("n"), guidance.perp_cfg()),
}


@torch.no_grad()
def memory(shape=(1, 16, 128, 128)):
    """Peak memory of a chain beyond the host's own tensors, in latents; what a branch predicts counts as its own."""
    print("peak extra memory in latents, branches included:")
    for name, step in CHAINS.items():
        moment = step.plan(Timeline((1.0, 0.5, 0.0)).moment(0.5, 7.0))
        predictions = [torch.randn(shape) for _ in range(4)]
        branches = {branch: torch.randn(shape) for branch in moment.asked - {UNCOND}}
        extra = extra_memory(partial(guide, step, moment, *predictions, branches), "cpu") / predictions[0].nbytes
        print(f"  {name}: {extra + len(branches):.1f} with {len(branches)} branches")
