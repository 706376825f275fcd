"""What each way to combine the predictions costs: time in copies of the tensor, memory in tensors."""
import statistics
import time

import torch
from torch.profiler import ProfilerActivity, profile

from .. import guidance
from ..guidance import ops
from ..guidance.core import State, Timeline

SHAPES = [(1, 4, 128, 128), (1, 16, 21, 90, 160)]
SIGMAS, SCALE = (14.6, 5.0, 1.5, 0.3, 0.0), 7.0

STRATEGIES = {
    "dynamic threshold, pixels": lambda: guidance.dynamic_threshold(form="pixels"),
    "dynamic threshold, latents": guidance.dynamic_threshold,
    "mimic": lambda: guidance.mimic(4.0),
    "mimic, percentile 0.995": lambda: guidance.mimic(4.0, percentile=0.995),
    "Perp-CFG": guidance.perp_cfg,
    "APG": guidance.apg,
    "CFG-Zero*": guidance.cfg_zero_star,
    "TCFG": guidance.tcfg,
    "rescale": guidance.rescale,
    "renorm, tokens": guidance.renorm,
    "renorm, sample": lambda: guidance.renorm(over="sample", limit=1.0),
    "FDG": guidance.fdg,
    "FreSca": guidance.fresca,
    "MAMBO-G": guidance.mambo_g,
    "power law": guidance.power_law,
    "beta-CFG": guidance.beta_cfg,
    "auto range": guidance.auto_range,
    "skimmed CFG": lambda: guidance.skimmed_cfg(4.0),
    "momentum guidance": guidance.momentum_guidance,
    "SMC-CFG": guidance.smc_cfg,
    "FBG": guidance.fbg,
}


def applied(make, x, cond, uncond):
    """The step at work in the third evaluation of a run, with what it remembers of the second."""
    step, line = make(), Timeline(SIGMAS)
    moments = [step.plan(line.moment(sigma, SCALE)) for sigma in SIGMAS[1:3]]
    states = [State(moment, x, cond, uncond, uncond + moment.scale * (cond - uncond)) for moment in moments]
    step.apply(states[0])
    return lambda: step.apply(states[1]).denoised


def svd(x, cond, uncond):
    """TCFG with the singular vectors themselves."""
    rows = torch.stack([(x - uncond).flatten(1), (x - cond).flatten(1)], dim=1)
    shared = torch.linalg.svd(rows, full_matrices=False).Vh[:, :1]
    damped = x - (rows[:, :1] @ shared.transpose(1, 2) * shared).view_as(x)
    return damped + SCALE * (cond - damped)


def std_rescale(cond, answer):
    dims = tuple(range(1, answer.ndim))
    factor = cond.std(dim=dims, keepdim=True) / answer.std(dim=dims, keepdim=True)
    return 0.7 * answer * factor + 0.3 * answer


def rows(shape, device):
    """What is timed, by name; references last."""
    x, cond, uncond = (torch.randn(shape, device=device) for _ in range(3))
    x, uncond = cond + 1.5 * x, cond + 0.3 * uncond
    target, size, q = torch.empty_like(x), cond.abs(), 0.995
    answer = uncond + SCALE * (cond - uncond)
    table = {"one copy": lambda: target.copy_(x), "plain CFG": lambda: uncond + SCALE * (cond - uncond)}
    table |= {name: applied(make, x, cond, uncond) for name, make in STRATEGIES.items()}
    table |= {
        "exact percentile": lambda: ops.quantile(size, q),
        "(torch.quantile)": lambda: torch.quantile(size.flatten(1), q, dim=1),
        "(TCFG by SVD)": lambda: svd(x, cond, uncond),
        "(rescale by torch.std)": lambda: std_rescale(cond, answer),
    }
    return table


def seconds(run, device):
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def extra_memory(run, device):
    """Bytes at the peak beyond what is held before, the result included."""
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def measure(shape, repeats, device):
    """{row: (median time in median copies, peak extra memory in tensors)}"""
    table = rows(shape, device)
    times = {name: [] for name in table}
    for run in table.values():
        run()
    for _ in range(repeats):  # interleaved, so that a busy moment of the machine falls on all of them
        for name, run in table.items():
            times[name].append(seconds(run, device))
    copy = statistics.median(times["one copy"])
    size = 4 * torch.Size(shape).numel()
    return {name: (statistics.median(times[name]) / copy, extra_memory(run, device) / size)
            for name, run in table.items()}


@torch.no_grad()
def bench(args):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tables = [measure(shape, args.repeats, device) for shape in SHAPES]
    print(f"{device}, torch {torch.__version__}, median of {args.repeats} interleaved repeats: copies (tensors)")
    print("| |", " | ".join("x".join(map(str, shape)) for shape in SHAPES), "|")
    print("|---|" + "---:|" * len(SHAPES))
    for name in tables[0]:
        print(f"| {name} |", " | ".join(f"{t[name][0]:.1f} ({t[name][1]:.1f})" for t in tables), "|")
