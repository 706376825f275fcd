"""Captions lost in ComfyUI's own TrainLoraNode: how many, whose, and what it is for."""

import inspect

import comfy.samplers
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from comfy_extras.nodes_train import LoraModelLoader, TrainLoraNode
from pack.nodes.training import TrainingDropout
from pack.tests.host import cfg_guider, one_level, prompt, sample
from pack.tests.measure import close

SETTINGS = {
    "batch_size": 4, "grad_accumulation_steps": 1, "steps": 16, "learning_rate": 1e-3, "rank": 4, "optimizer": "AdamW",
    "loss_function": "MSE", "seed": 0, "training_dtype": "fp32", "lora_dtype": "fp32", "quantized_backward": False,
    "algorithm": "LoRA", "gradient_checkpointing": False, "checkpoint_depth": 1, "offloading": False,
    "existing_lora": "[None]", "bucket_mode": False, "bypass_mode": False,
}
TAKEN = inspect.signature(TrainLoraNode.execute).parameters  # older hosts take fewer
CAPTIONS = [prompt(10 + i)[0] for i in range(8)]
NULL = prompt(3)


def tiny():
    model = one_level()
    model.cached_patcher_init = (lambda disable_dynamic=False: one_level(), ())  # the host trains a copy of its own
    return model


def train(model, latents, captions, **settings):
    """(the LoRA, its losses) as the host trains it, in inference mode; lists are given as they are."""
    settings = {**SETTINGS, **settings}
    with torch.inference_mode():
        return TrainLoraNode.execute(
            model=[model], latents=[{"samples": samples} for samples in latents], positive=[captions],
            **{name: [value] for name, value in settings.items() if name in TAKEN}).result[:2]


def read(model, pictures=None, **settings):
    """What the network is given while it trains on 8 pictures: [(noisy rows, their texts)] of every call."""
    seen, watched = [], model.clone()

    def watch(executor, x, t, c_concat=None, c_crossattn=None, *args, **kwargs):
        seen.append((x.detach().clone(), c_crossattn.detach().clone()))
        return executor(x, t, c_concat, c_crossattn, *args, **kwargs)

    watched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "watch", watch)
    pictures = [torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(1))] if pictures is None else pictures
    _, losses = train(watched, pictures, CAPTIONS, **settings)
    return seen, losses["loss"]


def lost(seen, null=NULL[0][0]):
    """For each row that the network read, whether it was the null; a text that is neither fails."""
    texts = torch.cat([text for _, text in seen])
    known = torch.cat([null, *(caption[0] for caption in CAPTIONS)])
    which = (texts[:, None] - known).abs().flatten(2).amax(2)
    assert (which.amin(1) < 1e-6).all()
    return (which.argmin(1) == 0).tolist()


def dropout(model, probability=0.3, seed=0, **null):
    return TrainingDropout.execute(model=model, probability=probability, seed=seed, **null).result[0]


def test_the_share_of_lost_captions_is_the_probability_and_the_seed_says_which():
    runs = [lost(read(dropout(tiny(), 0.4, seed, null=NULL), steps=12)[0]) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
    for run in runs[1:]:
        assert len(run) == 48  # one row for each sample: ComfyUI alone has 4 for each
        assert abs(sum(run) / 48 - 0.4) < 3 * (0.4 * 0.6 / 48) ** 0.5


def test_without_a_null_zeros_stand_for_a_lost_caption():
    assert all(lost(read(dropout(tiny(), 1.0), steps=1)[0], torch.zeros_like(NULL[0][0])))


def test_each_sample_has_its_own_caption_or_the_null():
    """Pictures that are told apart by their mean, however noisy: each goes with the caption of its number."""
    model = tiny()
    numbered = (torch.ones(8, 4, 8, 8) * torch.arange(8.0).view(8, 1, 1, 1) + 1) * 1e4
    pictures = model.model.process_latent_out(numbered)
    seen, _ = read(dropout(model, 0.5, null=NULL), [pictures], steps=5)
    kept = [(int(x.mean().div(1e4).round()) - 1, text) for (x, text), gone in zip(seen, lost(seen)) if not gone]
    assert len({i for i, _ in kept}) > 4
    for i, text in kept:
        close(text, CAPTIONS[i][0])


def test_neither_is_anything_lost_at_0_nor_where_one_samples():
    model = tiny()
    assert dropout(model, 0.0, null=NULL) is model
    assert all(lost(read(dropout(model, 1.0, null=NULL), steps=2)[0]))
    assert torch.equal(sample(dropout(model, 1.0, null=NULL)), sample(model))


def test_the_last_of_two_counts_and_captions_may_differ_in_length(caplog):
    twice = dropout(dropout(tiny(), 1.0, null=prompt(4, tokens=77)), 0.0001, null=prompt(4, tokens=9))
    with caplog.at_level("INFO"):
        assert not any(lost(read(twice, steps=3)[0]))
    assert "Training dropout: 0 of 12 captions were dropped." in caplog.text
    long = dropout(tiny(), 1.0, null=prompt(4, tokens=9))
    assert {text.shape[1] for _, text in read(long, steps=1)[0]} == {9}


@pytest.mark.parametrize("how", [{"bucket_mode": True}, {"gradient_checkpointing": True}, {"bypass_mode": True}], ids=str)
def test_every_way_of_training_loses_captions(how):
    if not how.keys() <= TAKEN.keys():
        pytest.skip("this host is without")
    pictures = [torch.randn(4, 4, 8, 8), torch.randn(4, 4, 8, 16)] if "bucket_mode" in how else None
    gone = lost(read(dropout(tiny(), 0.5, null=NULL), pictures, steps=6, **how)[0])
    assert any(gone) and not all(gone)


@pytest.mark.parametrize("null, says", [
    (prompt(1) + prompt(2), "null has 2 prompts; it has to be a single one."),
    ([], "null has 0 prompts"),
])
def test_a_null_that_is_not_one_prompt_is_refused(null, says):
    with pytest.raises(ValueError, match=says):
        dropout(tiny(), null=null)


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan"), "half"])
def test_a_probability_outside_0_to_1_is_refused(probability):
    with pytest.raises(ValueError, match="probability is .*; it has to be"):
        dropout(tiny(), probability)


def test_with_it_a_lora_learns_what_its_pictures_are_without_a_caption(demo):
    """Red pictures, each with a caption: the LoRA's uncond, which CFG guides away from, knows them only with dropout."""
    pictures = torch.full((8, 3, 32, 32), -0.5)
    pictures[:, 0] = 0.6
    with torch.inference_mode():
        captions = [demo.encode(f"a big red {shape} on red")[0] for shape in ("circle", "square", "ring", "star") * 2]
        empty = demo.encode("")

    def error(model):
        """Of what is predicted without a caption, from the pictures and noise."""
        sigmas = torch.tensor([2.0, 0.0])
        with torch.inference_mode():
            guider = cfg_guider(model, 1.0, empty, empty)
            seen = guider.sample(demo.noise(8), pictures, comfy.samplers.sampler_object("euler"), sigmas, disable_pbar=True)
        return float((seen - pictures).square().mean())

    after = {}
    for name, model in {"without": demo.model, "with": dropout(demo.model, 0.5, null=empty)}.items():
        lora, losses = train(model, [pictures], captions, steps=32, batch_size=1, learning_rate=3e-3, seed=1)
        losses = torch.tensor(losses["loss"])
        assert losses[-8:].mean() < 0.7 * losses[:8].mean()
        after[name] = error(LoraModelLoader.execute(demo.model, lora, 1.0).result[0])
    assert after["with"] < 0.8 * min(after["without"], error(demo.model))
