"""NAG in one row, as a table: python dev.py test -s tests/nag_table.py

effect: how far the latent after two steps is from the one without NAG. error: share of the effect by which one row differs
from a row for each prompt, with negatives of equal and of other length. Times are of one evaluation's processor time at
cfg 1 with torch's own attention on one thread, over a plain row: one row without and with attending to the image once (where
text and image attend to each other), and two rows.
"""

import time
from dataclasses import replace

import torch
from comfy.ldm.modules import attention
from pack.tests.architectures import ARCHITECTURES
from pack.tests.joined import OneRow, RowForEach


def test_table():
    print(f"\n{'architecture':16} {'effect':>8} {'equal':>9} {'unequal':>9}  calls  rows (of two steps)")
    for name, architecture in ARCHITECTURES.items():
        model = architecture.model()
        plain, cells = architecture.sample(model), []
        for tokens in (architecture.text, architecture.unequal):
            one = OneRow(model, architecture.prompt(4, tokens))
            reference = architecture.sample(RowForEach(model, architecture.prompt(4, tokens), image=architecture.image).model)
            effect = (reference - plain).norm()
            cells += [effect / plain.norm(), (architecture.sample(one.model) - reference).norm() / effect]
        print(f"{name:16} {cells[0]:8.4f} {cells[1]:9.1e} {cells[3]:9.1e}  {one.calls:5}  {one.rows:4}")


SHAPES = {
    "Flux-like, 1024 + 128 + 128 tokens": ("flux", (16, 64, 64), 128, lambda width, heads: {
        "hidden_size": width, "num_heads": heads, "depth": 2, "depth_single_blocks": 4, "mlp_ratio": 4.0,
        "axes_dim": [width // heads // 4, width // heads * 3 // 8, width // heads * 3 // 8]}),
    "Wan-like, 1024, 512 + 512 tokens": ("wan", (16, 4, 32, 32), 512, lambda width, heads: {
        "dim": width, "num_heads": heads, "ffn_dim": 4 * width, "num_layers": 4}),
}


def test_time():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    print(f"\n{'time over a plain row':36} {'width':>5} {'one':>6} {'once':>6} {'two':>6}")
    try:
        for title, (name, latent, tokens, changes) in SHAPES.items():
            for width, heads in ((128, 2), (256, 4), (768, 6)):
                times = measure(replace(ARCHITECTURES[name], latent=latent), tokens, changes(width, heads))
                print(f"{title:36} {width:5} {times['one']:6.2f} {times['once']:6.2f} {times['two']:6.2f}", flush=True)
    finally:
        torch.set_num_threads(threads)


def measure(architecture, tokens, changes):
    model = architecture.model(**changes)
    options = model.model_options["transformer_options"]
    options["optimized_attention_override"] = lambda attend, *args, **kwargs: attention.attention_pytorch(*args, **kwargs)
    negative = architecture.prompt(4, tokens)
    both = model.clone()
    both.model_options["disable_cfg1_optimization"] = True
    models = {"plain": model.clone(), "one": OneRow(model, negative).model, "two": both}
    del options["optimized_attention_override"]
    models["once"] = OneRow(model, negative, attention=attention.attention_pytorch).model
    noise, best = architecture.noise(), dict.fromkeys(models, float("inf"))
    given = {"positive": architecture.prompt(1, tokens), "negative": negative, "noise": noise, "steps": 1}
    for _ in range(3):
        for name, patched in models.items():
            start = time.process_time()
            architecture.sample(patched, **given)
            best[name] = min(best[name], time.process_time() - start)
    return {name: seconds / best["plain"] for name, seconds in best.items()}
