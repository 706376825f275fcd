"""The demo model's second half: `python dev.py lab single_pass` compares one pass with two, `--train` makes the weights again.

It is distilled from the demo model's own two predictions, where sampling meets them: on runs at many scales and numbers of
steps, which go on by what the teacher says, so that a step costs nothing beyond the teacher; a quarter are noisy real pictures.
"""
import statistics
import time
from functools import partial

import comfy.utils
import torch
from safetensors.torch import save_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..nodes.demo import judge, model
from ..nodes.demo.network import ARCHITECTURE, DemoUNet
from ..nodes.demo.noise import sigma_table, timestep
from ..nodes.demo.single_pass import WEIGHTS, SinglePassUNet
from ..nodes.demo.text import LENGTH, TextEncoder, tokenize
from ..nodes.other_models import SinglePass
from . import data, metrics
from .speed import paired
from .superconditioning import distilled
from .sweep import CHUNK, sample
from .train import TrainOps, attention, learning_rate, optimizers
from .train_noisy_judge import noised

FEWEST, MOST, STRONGEST = 8, 24, 9.0  # steps and scale of the runs
OPTIONS = {"optimized_attention_override": attention}


class Runs:
    """Pictures on their way from noise, (count, 3, 32, 32) each at a level, a prompt and a scale of its own."""

    def __init__(self, count, rng):
        self.rng, self.table = rng, sigma_table()
        self.x = torch.empty(count, 3, 32, 32)
        self.tokens = torch.empty(count, LENGTH, dtype=torch.long)
        self.steps, self.step, self.scale = (torch.zeros(count, dtype=kind) for kind in (torch.long, torch.long, torch.float))
        self.begin(torch.arange(count))
        # Half-way through: what noisy real pictures are like there will do to begin with.
        self.step = (torch.rand(count, generator=rng) * self.steps).long()
        scenes = data.draw_scenes(count, rng)
        self.x = noised(scenes, self.sigma(), rng)

    def begin(self, places):
        count, rng = len(places), self.rng
        self.x[places] = torch.randn((count, 3, 32, 32), generator=rng) * (1 + self.table[-1] ** 2).sqrt()
        self.tokens[places] = data.noisy_tokens(data.draw_scenes(count, rng), rng, wrong=0, missing=.05)
        self.steps[places] = torch.randint(FEWEST, MOST + 1, (count,), generator=rng)
        self.step[places] = 0
        self.scale[places] = STRONGEST ** torch.rand(count, generator=rng)

    def sigma(self, ahead=0):
        """As of the scheduler "normal": even in time, then 0."""
        step = self.step + ahead
        place = (len(self.table) - 1) * (1 - step / (self.steps - 1)).clamp(min=0)
        low, high = self.table.log()[place.floor().long()], self.table.log()[place.ceil().long()]
        return torch.lerp(low, high, place.frac()).exp().masked_fill(step >= self.steps, 0)

    def go_on(self, cond, uncond):
        """An Euler step, given what is predicted of the clean pictures. Those that are done make place for new ones."""
        share = (self.sigma(1) / self.sigma()).view(-1, 1, 1, 1)
        self.x = torch.lerp(uncond + self.scale.view(-1, 1, 1, 1) * (cond - uncond), self.x, share)
        self.step += 1
        self.begin((self.step >= self.steps).nonzero().flatten())


def networks():
    """(the network to be trained, the teacher, the encoder of texts)"""
    weights = model.weights_of(model.WEIGHTS)
    text = TextEncoder()
    text.load_state_dict(model.part(weights, "text."))
    teacher, network = (kind(**ARCHITECTURE, operations=TrainOps) for kind in (DemoUNet, SinglePassUNet))
    teacher.load_state_dict(model.part(weights, "unet."))
    network.load_state_dict(model.part(weights, "unet."), strict=False)
    second = network.second
    for copy, original in ((second.enters, network.input_blocks[3]), (second.turns, network.output_blocks[0]),
                           (second.leaves, network.output_blocks[1]), (second.edges, network.output_blocks[3]),
                           (second.out, network.out)):
        copy.load_state_dict(original.state_dict(), strict=False)  # without what enlarges
    for layer in (second.middle, second.draws):  # at first nothing differs without the prompt
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    second.empty.data.copy_(text(tokenize("").unsqueeze(0)))
    second.options = OPTIONS
    for module in (text, teacher, network):
        module.requires_grad_(False)
    network.second.requires_grad_(True)
    return network, teacher, text


ROUNDING = 1e-3  # of the teacher's predictions in half precision, as a mean square, with room: smaller directions count less


class Weights:
    """How much an error counts: one over the direction's mean square at its noise level, from what was seen."""

    def __init__(self):
        self.edges = torch.logspace(-1.5, 1.2, 14)
        self.known = torch.full((15,), torch.nan)

    def __call__(self, sigma, cond, uncond):
        level, size = torch.bucketize(sigma, self.edges), (cond - uncond).square().flatten(1).mean(1)
        count = torch.zeros(15).index_add(0, level, torch.ones(len(level)))
        mean = torch.zeros(15).index_add(0, level, size) / count
        changed = torch.where(self.known.isnan(), mean, torch.lerp(self.known, mean, .02))
        self.known = torch.where(count > 0, changed, self.known)
        return 1 / (self.known[level] + ROUNDING), size, level


def train(steps, batch=128, seed=0, decay=.5):
    """Train and save; prints what is left of the error, as a share of what differs without the prompt."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    rng, table = torch.Generator().manual_seed(seed), sigma_table()
    network, teacher, text = networks()
    average = AveragedModel(network.second, multi_avg_fn=get_ema_multi_avg_fn(.998))
    gradient = torch.zeros(sum(weight.numel() for weight in network.second.parameters()))
    steppers = optimizers(network.second, gradient, ("empty", "out.2"))
    rates = [group["lr"] for stepper in steppers for group in stepper.param_groups]
    real, weights, null = batch // 4, Weights(), text(tokenize("").unsqueeze(0)).expand(batch, -1, -1)
    runs, start, left = Runs(batch - real, rng), time.process_time(), torch.zeros(2, 15)
    for step in range(steps):
        scenes, slices = data.draw_scenes(real, rng), (torch.arange(real) + torch.rand(real, generator=rng)) / real
        levels = (1.3 * torch.special.ndtri(slices)).exp().clamp(table[0], table[-1])
        sigma = torch.cat([runs.sigma(), levels])
        x = torch.cat([runs.x, noised(scenes, levels, rng)])
        tokens = torch.cat([runs.tokens, data.noisy_tokens(scenes, rng)])
        s = sigma.view(-1, 1, 1, 1)
        h = (1 + s ** 2).sqrt()
        with torch.autocast("cpu", torch.bfloat16):
            uncond = teacher(x / h, timestep(sigma, table), null, transformer_options=OPTIONS)
            prediction = network(x / h, timestep(sigma, table), text(tokens), transformer_options=OPTIONS)
        cond, uncond, prediction = prediction[:, :3].detach().float(), uncond.float(), prediction.float()
        weight, size, level = weights(sigma, cond, uncond)
        gradient.zero_()
        distilled(prediction, cond, uncond, weight).backward()
        gradient *= (1 / (gradient.norm() + 1e-6)).clamp(max=1)
        for stepper, rate in zip(steppers, rates):
            stepper.param_groups[0]["lr"] = rate * learning_rate(step, step / steps, decay)
            stepper.step()
        average.update_parameters(network.second)
        error = (prediction[:, 3:] - uncond).square().flatten(1).mean(1).detach()
        left += torch.stack([torch.zeros(15).index_add(0, level, value) for value in (error, size)])
        denoised = ((x / h - s * v) / h for v in (cond, uncond))
        runs.go_on(*(clean[:batch - real] for clean in denoised))
        if (step + 1) % 100 == 0:
            shares = " ".join(f"{share:.2f}" for share in left[0, 7:] / left[1, 7:])
            minutes = round((time.process_time() - start) / 60, 1)
            print(f"step {step + 1}, {minutes} CPU minutes: {left[0].sum() / left[1].sum():.3f} left; "
                  f"by noise level, from 0.5 up: {shares}", flush=True)
            left.zero_()
            save(average.module, steps=step + 1, cpu_minutes=minutes)


def save(second, **facts):
    weights = {name: value.detach().half().contiguous() for name, value in second.state_dict().items()}
    facts = {"command": "python dev.py lab single_pass --train", "torch": torch.__version__, **facts}
    save_file(weights, WEIGHTS, {name: str(fact) for name, fact in facts.items()})


def report(scales=(3, 6, 8), n=512, steps=16, prediction="v", seed=5):
    """Print a table: one pass and two at each scale, the same prompts and noise in every row."""
    comfy.utils.set_progress_bar_enabled(False)
    torch.set_num_threads(1)
    jury, (_, scenes) = judge.load(), metrics.real(n, seed)
    reference, prompts = metrics.reference(jury), [data.caption(scenes, i) for i in range(n)]
    ordinary, clip, vae = model.load(prediction)
    single = SinglePass.execute(model.load(prediction, model.SINGLE_PASS)[0]).result[0]
    print("| cfg | core3, two passes | one | frechet, two passes | one | CPU ms, two passes | one | ratio |")
    print("|---" * 8 + "|")
    for scale in scales:
        spent = [0.0, 0.0]
        drawn: list[list[torch.Tensor]] = [[], []]
        for first in range(0, n, CHUNK):  # in turns, so that a busy moment of the machine falls on both
            for i, kind in enumerate((ordinary, single)):
                start = time.process_time()
                drawn[i].append(sample(kind, clip, vae, prompts[first:first + CHUNK], scale, seed + first, steps))
                spent[i] += time.process_time() - start
        found = [metrics.score(torch.cat(images), scenes, jury, reference) for images in drawn]
        cells = [f"{one[name]:{form}}" for name, form in (("core3", ".3f"), ("frechet", ".2f")) for one in found]
        cells += [f"{1000 * seconds / n:.0f}" for seconds in spent]
        print("|", " | ".join([f"{scale:g}", *cells, f"{spent[1] / spent[0]:.2f}"]), "|", flush=True)
    print("\n| batch | CPU ms a picture, two passes | one | ratio |\n" + "|---" * 4 + "|")
    for batch in (1, 4, 16, 64):
        runs = [partial(sample, kind, clip, vae, prompts[:batch], 6, seed, steps) for kind in (ordinary, single)]
        two, one = (1000 * statistics.median(seconds) / batch for seconds in paired(*runs, 5, time.process_time))
        print(f"| {batch} | {two:.0f} | {one:.0f} | {one / two:.2f} |", flush=True)
