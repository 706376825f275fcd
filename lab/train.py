"""Training of the demo model: `python lab train`.

v-prediction with classifier-free dropout. Two single-threaded processes average their gradients, which on two busy
cores is faster than one process with two threads. The learning rate is constant, then falls linearly to zero: that
is where shapes sharpen.
"""
import json
import time
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..guidance.dropout import drop_condition
from ..nodes.demo.network import ARCHITECTURE, DemoUNet, eight_groups
from ..nodes.demo.noise import SIGMA_LIMIT, sigma_table, timestep
from ..nodes.demo.text import TextEncoder, tokenize
from . import data, superconditioning

WEIGHTS = Path(__file__).with_name("demo_model.safetensors")
NULL_CHANCE = .1


class TrainOps:
    """Layers with an initialisation, which ComfyUI's own leave out."""
    Linear, LayerNorm, Conv2d, GroupNorm = nn.Linear, nn.LayerNorm, nn.Conv2d, eight_groups(nn.GroupNorm)

    @staticmethod
    def conv_nd(dims, *args, **kwargs):
        return nn.Conv2d(*args, **kwargs)


class Trainee(nn.Module):
    """Text encoder and network as one module; the names of its weights are those of the weights file. both: whether it predicts
    with the prompt and without it, in twice the channels."""

    def __init__(self, both=False):
        super().__init__()
        self.text = TextEncoder()
        self.unet = DemoUNet(**ARCHITECTURE, operations=TrainOps)
        for name, module in self.unet.named_modules():
            if name.endswith(("out_layers.3", "proj_out", "out.2")):  # every residual branch starts as nothing
                nn.init.zeros_(module.weight)
                nn.init.zeros_(module.bias)
        if both:
            superconditioning.widen(self.unet, "out.2")

    def forward(self, x, time, tokens):
        return self.unet(x, time, self.text(tokens), transformer_options={"optimized_attention_override": attention})


def attention(_, q, k, v, heads, *args, **kwargs):
    """softmax(q k) v on (batch, tokens, channels); on the CPU its backward is faster than that of torch's fused one."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -.5).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


def draw_batch(n, rng, null=NULL_CHANCE):
    """Images (n, 3, H, W) in -1..1 and their tokens, this share of them the empty prompt."""
    scenes = data.draw_scenes(n, rng)
    tokens, = drop_condition([data.noisy_tokens(scenes, rng)], [tokenize("").unsqueeze(0)], null, rng)
    return data.render(scenes, rng) * 2 - 1, tokens


def loss(model, images, tokens, rng, both=False):
    """Mean squared error of v. log sigma is normal, one draw per equal slice of its distribution."""
    n = len(images)
    slices = (torch.arange(n) + torch.rand(n, generator=rng)) / n
    table = sigma_table()
    sigma = (1.3 * torch.special.ndtri(slices)).exp().clamp(table[0], SIGMA_LIMIT)
    noise = torch.randn(images.shape, generator=rng)
    s = sigma.view(-1, 1, 1, 1)
    h = (1 + s ** 2).sqrt()
    target = (noise - s * images) / h
    alone = None
    if both:
        tokens, alone = superconditioning.exchanged(tokens, rng)
    with torch.autocast("cpu", torch.bfloat16):
        v = model((images + s * noise) / h, timestep(sigma, table), tokens)
    return superconditioning.loss(v, target, alone) if both else (v.float() - target).square().mean()


def optimizers(model, gradient, ends=("words", "places", "time_embed", "input_blocks.0.", "unet.out.")):
    """Muon for the hidden matrices (a convolution is one, flattened), AdamW for the rest; both share `gradient`.

    ends: words in the names of weights that are not hidden.

    Every parameter's grad is a slice of the one flat tensor, so that one call averages it over the processes.
    """
    hidden, rest, start = [], [], 0
    for name, weight in model.named_parameters():
        weight.grad = gradient[start:start + weight.numel()].view_as(weight)
        start += weight.numel()
        if weight.ndim < 2 or any(end in name for end in ends):
            rest.append(weight)
        else:
            matrix = weight.detach().flatten(1)  # shares the weight's memory
            matrix.grad = weight.grad.flatten(1)
            hidden.append(matrix)
    return [torch.optim.Muon(hidden, lr=3e-3, weight_decay=.05, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, lr=1.2e-3, betas=(.9, .99), weight_decay=0.)]


def learning_rate(step, progress, decay):
    """Factor on the learning rates: warm-up over 100 steps, constant, then linear to zero over the `decay` share."""
    return min(1, (step + 1) / 100, (1 - progress) / decay)


def save(model, path, **facts):
    """fp16 weights with the facts of their making as metadata."""
    weights = {name: weight.detach().half().contiguous() for name, weight in model.state_dict().items()}
    save_file(weights, path, {name: str(fact) for name, fact in facts.items()})


def train(rank, args):
    """One of args.processes equal workers; the first also averages, saves and writes the log."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{args.meet}", rank=rank, world_size=args.processes)
    torch.manual_seed(args.seed)
    model = Trainee(args.both)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(args.average))
    size = sum(weight.numel() for weight in model.parameters())
    shared = torch.zeros(size + 2)  # the gradient, then progress and loss, which all workers must agree on
    steppers = optimizers(model, shared[:size])
    rates = [group["lr"] for stepper in steppers for group in stepper.param_groups]
    rng = torch.Generator().manual_seed(args.seed * 1000 + rank)
    start, step, saved, total, progress = time.time(), 0, 0., 0., 0.
    if rank == 0:
        Path(args.log).write_text("")
    while progress < 1:
        shared.zero_()
        error = loss(model, *draw_batch(args.batch // args.processes, rng, args.null), rng, args.both)
        error.backward()
        minutes = (time.time() - start) / 60
        shared[-2] = step / args.steps if args.steps else minutes / args.minutes
        shared[-1] = error.detach()
        dist.all_reduce(shared)
        shared /= args.processes
        progress = min(1, float(shared[-2]))
        shared[:size] *= (1 / (shared[:size].norm() + 1e-6)).clamp(max=1)
        for stepper, rate in zip(steppers, rates):
            stepper.param_groups[0]["lr"] = rate * learning_rate(step, progress, args.decay)
            stepper.step()
        average.update_parameters(model)
        step, total = step + 1, total + float(shared[-1])
        if rank == 0 and step % 100 == 0:
            row = {"step": step, "minutes": round(minutes, 2), "cpu_minutes": round(time.process_time() / 60, 2),
                   "images": step * args.batch, "loss": round(total / 100, 5), "progress": round(progress, 4)}
            with open(args.log, "a") as log:
                print(json.dumps(row), file=log)
            total = 0.
        if rank == 0 and (minutes - saved > 5 or progress == 1):
            saved = minutes
            save(average.module, args.out, command=args.command, steps=step, images=step * args.batch,
                 minutes=round(minutes, 1), torch=torch.__version__)
    dist.destroy_process_group()
