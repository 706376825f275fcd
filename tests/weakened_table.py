"""Weakened rows, as tables: python dev.py test -s tests/weakened_table.py

effect: how far the weakened row's prediction is from the prompt's. same: whether cond and uncond are bit for bit what they are
without it. shared: how far the row is from one that is computed whole. Rows and calls are of one evaluation at cfg 2. Times are of
one evaluation's processor time on one thread, over that of cond and uncond alone, with the last layer of each third weakened:
the row computed whole, and from its first weakened layer on.
"""

import time
from dataclasses import replace

import pytest
import torch
from pack.guidance.core import Perturbed
from pack.tests.architectures import ARCHITECTURES
from pack.tests.weakened import KINDS, Seen, branch_of, layers_of


def test_table():
    print(f"\n{'architecture':16} {'what':16} {'effect':>7} {'same':>5} {'shared':>8} rows calls")
    for name, architecture in ARCHITECTURES.items():
        model, negative = architecture.model(), architecture.prompt(2, architecture.text)
        plain = Seen(architecture, model, [], negative=negative)
        for kind in KINDS:
            try:
                branch = branch_of(model, kind, layers_of(model)[-1])
            except ValueError:
                print(f"{name:16} {kind:16} refused")
                continue
            seen, whole = (Seen(architecture, model, [branch], shares, negative=negative) for shares in (True, False))
            (row,), same = seen.branches, torch.equal(seen.cond, plain.cond) and torch.equal(seen.uncond, plain.uncond)
            effect = float((row - seen.cond).norm() / seen.cond.norm())
            apart = float((row - whole.branches[0]).norm() / (row - seen.cond).norm())
            print(f"{name:16} {kind:16} {effect:7.3f} {'yes' if same else 'no':>5} {apart:8.1e} {seen.rows:4} {seen.calls:5}")


SHAPES = {
    "Flux-like, 12 blocks, 1024 + 128": ("flux", (16, 64, 64), 128, {
        "hidden_size": 256, "num_heads": 4, "depth": 4, "depth_single_blocks": 8, "mlp_ratio": 4.0, "axes_dim": [16, 24, 24]}),
    "Wan-like, 8 blocks, 1024, 128": ("wan", (16, 4, 32, 32), 128, {"dim": 256, "num_heads": 4, "ffn_dim": 1024, "num_layers": 8}),
    "UNet, 3 levels, 32 x 32": ("sd15", (4, 32, 32), 77, {
        "model_channels": 64, "channel_mult": [1, 2, 4], "num_res_blocks": [2, 2, 2], "num_head_channels": 64,
        "transformer_depth": [1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1, "transformer_depth_output": [1] * 6 + [0] * 3}),
}


@pytest.mark.parametrize("kind", ["identity", "skip"])
def test_time(kind):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    print(f"\n{kind + ', time over cond and uncond':36} {'first layer':>16} {'whole':>6} {'shared':>6}")
    try:
        for title, (name, latent, tokens, changes) in SHAPES.items():
            architecture = replace(ARCHITECTURES[name], latent=latent)
            model = architecture.model(**changes)
            layers = layers_of(model)
            given = {"negative": architecture.prompt(2, tokens), "positive": architecture.prompt(1, tokens), "noise": architecture.noise()}
            for place in (len(layers) // 4, len(layers) // 2, len(layers) * 3 // 4):
                branch = Perturbed(kind, (layers[place],))
                runs = {"plain": ([], True), "whole": ([branch], False), "shared": ([branch], True)}
                best = dict.fromkeys(runs, float("inf"))
                for _ in range(3):
                    for run, how in runs.items():
                        start = time.process_time()
                        Seen(architecture, model, *how, **given)
                        best[run] = min(best[run], time.process_time() - start)
                print(f"{title:36} {layers[place]:>16} {best['whole'] / best['plain']:6.2f} {best['shared'] / best['plain']:6.2f}", flush=True)
    finally:
        torch.set_num_threads(threads)
