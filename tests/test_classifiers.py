"""Guidance by a classifier on real ComfyUI: a user's, the demo's, and CLIP's likeness to a picture."""

from pathlib import Path
from types import SimpleNamespace

import comfy.clip_vision
import comfy.latent_formats
import comfy.samplers
import comfy.sd
import comfy.taesd.taesd
import pytest
import torch
from pack.guidance.classifier import gradient
from pack.lab import metrics
from pack.nodes.demo import judge
from pack.nodes.demo.classifier import NOISY, DemoClassifier, Judged, NoisyJudged, load_noisy_judge
from pack.nodes.demo.model import load as load_demo
from pack.nodes.likeness import LikenessNode, TextLikenessNode
from pack.nodes.other_models import Classifier
from pack.tests.host import (
    CORE_GUIDERS,
    guided_by,
    node,
    one_level,
    sample,
    tiny_clip,
)
from pack.tests.measure import close

guiders = pytest.mark.parametrize("guider", CORE_GUIDERS.values(), ids=CORE_GUIDERS)


@pytest.fixture(scope="module")
def model():
    return one_level()


def test_the_demo_classifier_is_the_judge_at_any_size():
    pictures = 2 * torch.rand(3, 3, 32, 32) - 1
    rows, _ = judge.load()((pictures + 1) / 2)
    for i in range(4):
        close(Judged(i, 1)(pictures, 1.0), rows[i].log_softmax(1)[:, 1])
    bigger = pictures.repeat_interleave(2, 2).repeat_interleave(2, 3)
    close(Judged(1, 2)(bigger, 1.0), Judged(1, 2)(pictures, 1.0))


def test_a_value_that_the_attribute_does_not_have_is_refused():
    with pytest.raises(ValueError, match="one of circle, square") as error:
        DemoClassifier.execute(attribute="shape", value="red")
    assert "\n" not in str(error.value)


# ------------------------------------------------------------------------------------------------ of noisy latents

GREEN = {"attribute": "color", "value": "green", "sees": NOISY}


def test_a_classifier_that_knows_noise_is_surer_the_less_there_is():
    pictures, scenes = metrics.real(64, 3)
    noise = torch.randn(pictures.shape)
    knows, right = load_noisy_judge(), []
    for sigma in (0.1, 1.0, 4.0, 14.0):
        rows = knows(pictures * 2 - 1 + sigma * noise, torch.full((64,), sigma))
        right.append(sum((row.argmax(1) == truth).float().mean() for row, truth in zip(rows, scenes)) / 4)
    assert right == sorted(right, reverse=True) and right[0] > 0.9 and right[-1] < 0.7


@pytest.mark.parametrize("kind", ["v", "flow"])
def test_it_reads_a_models_latents_as_that_model_has_them(kind):
    host, _, _ = load_demo(kind)
    classifier = DemoClassifier.execute(**GREEN).result[0].for_model(host)
    sampling, sigma = host.get_model_object("model_sampling"), 0.6
    x0, noise = torch.rand(2, 3, 32, 32) - 0.5, torch.randn(2, 3, 32, 32)
    level = sigma / (1 - sigma) if kind == "flow" else sigma
    close(classifier(sampling.noise_scaling(torch.tensor([sigma]), noise, x0), sigma),
          NoisyJudged(1, 3)(x0 + level * noise, level), 1e-4)


def test_its_gradient_makes_what_it_is_asked_for_without_a_prompt(demo):
    classifier = DemoClassifier.execute(**GREEN).result[0]
    with torch.inference_mode():
        guided = node(Classifier, demo.model, classifier=classifier, where="x", scale=4.0)
        how = dict(cfg=1.0, noise=demo.noise(8), positive=demo.encode(""), negative=demo.encode(""))
        green = [int((judge.load().read((sample(model, **how) + 1) / 2).color == 3).sum()) for model in (guided, demo.model)]
    assert green[0] >= 6 > 3 >= green[1]


def test_a_classifier_says_which_latents_it_was_trained_on(demo):
    with pytest.raises(ValueError, match="where is 'x0'; for this classifier it has to be 'x'"):
        node(Classifier, demo.model, classifier=DemoClassifier.execute(**GREEN).result[0])


# ------------------------------------------------------------------------------------------------ a user's

@pytest.mark.parametrize("where", ["x0", "x"])
@guiders
def test_a_users_classifier_under_every_guider_costs_no_rows(where, guider, model):
    seen = []

    def likes_zero(latents, sigma):
        seen.append((latents.requires_grad, sigma))
        return -latents.square().flatten(1).sum(1) / 1000

    patched = node(Classifier, model, classifier=likes_zero, where=where)
    with torch.inference_mode():
        answer = guided_by(guider(patched))
    assert answer.isfinite().all() and len(seen) == 6 and all(grad for grad, _ in seen)
    assert seen[0][1] > seen[-1][1] > 0


# ------------------------------------------------------------------------------------------------ likeness

SEES = Path(__file__).parent / "clip_vision.json"  # every host reads its settings from a file


def with_random_weights(module):
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in module.parameters():
            wide = weight[0].numel() if weight.ndim > 1 else 1
            weight.copy_(
                torch.randn(weight.shape, generator=generator) * wide**-0.5
                if weight.ndim > 1
                else torch.ones(weight.shape)
            )
    return module


def likeness(model, vae, picture):
    """A Likeness as the host makes it, in inference mode, of a CLIP vision model at a thousandth of its size."""
    with torch.inference_mode():
        clip_vision = comfy.clip_vision.ClipVisionModel(str(SEES))
        with_random_weights(clip_vision.model)
        return LikenessNode.execute(model=model, clip_vision=clip_vision, vae=vae, image=picture, certainty=100.0).result[0]


def test_likeness_is_clips_cosine_of_the_decoded_latents(demo):
    pictures = torch.rand(2, 32, 32, 3).mul(255).round() / 255  # whole colours, as the host rounds them to
    like = likeness(demo.model, demo.vae, pictures[:1])
    ask = like.clip_vision.encode_image
    with torch.inference_mode():
        expected = 100 * torch.cosine_similarity(
            *(ask(picture[None])["image_embeds"].float() for picture in pictures), dim=-1
        )
    with torch.no_grad():
        found = like(2 * pictures.movedim(-1, 1) - 1, 1.0)
    close(found, torch.tensor([100.0, float(expected)]), 1e-4)


@pytest.mark.parametrize("kind", ["pixels", "taesd"])
def test_the_gradient_of_likeness_is_its_slope(kind, demo, model):
    if kind == "pixels":
        host, vae, shape = demo.model, demo.vae, (2, 3, 32, 32)
    else:
        with torch.inference_mode():
            network = with_random_weights(comfy.taesd.taesd.TAESD())
            host, vae, shape = model, comfy.sd.VAE(sd=network.state_dict()), (2, 4, 8, 8)
    like = likeness(host, vae, torch.rand(1, 32, 32, 3))
    like.certainty = 1e4  # so that the slope stands out of float32's noise
    with torch.inference_mode():
        at, along = torch.randn(shape) / 3, torch.randn(shape)
        slope = (gradient(like, at, 1.0) * along).flatten(1).sum(1)
        step = 1e-3
        rise = (like(at + step * along, 1.0) - like(at - step * along, 1.0)) / (2 * step)
    assert slope.abs().min() > 0
    torch.testing.assert_close(slope, rise, rtol=0.05, atol=0.02 * float(slope.abs().max()))


def test_guided_pictures_are_more_alike_and_the_host_loads_what_it_takes(demo):
    picture = torch.zeros(1, 32, 32, 3) + torch.tensor([0.1, 0.8, 0.2])
    like = likeness(demo.model, demo.vae, picture)
    patched = node(Classifier, demo.model, classifier=like, scale=3.0)
    loaded = patched.get_nested_additional_models()
    assert [m.model for m in loaded] == [m.model for m in (demo.vae.patcher, like.clip_vision.patcher)]
    with torch.inference_mode():
        how = dict(cfg=1.0, noise=demo.noise(2), positive=demo.encode("a big ring"), negative=demo.encode(""))
        guided, plain = sample(patched, **how), sample(demo.model, **how)
        assert (like(guided, 0.0) > like(plain, 0.0)).all()
    weights = [*demo.vae.first_stage_model.parameters(), *like.clip_vision.model.parameters()]
    assert all(weight.grad is None for weight in weights)


def test_a_text_is_compared_by_the_encoder_that_shares_clip_visions_space(demo):
    clip, encoder = tiny_clip(), tiny_clip().cond_stage_model.clip_l
    like = likeness(demo.model, demo.vae, torch.rand(1, 32, 32, 3))
    text = TextLikenessNode.execute(model=demo.model, clip_vision=like.clip_vision, clip=clip, vae=demo.vae, text="a cat", certainty=50.0).result[0]
    _, plain = encoder.encode_token_weights(clip.tokenize("a cat")["l"])
    projected = torch.nn.functional.normalize(encoder.transformer.text_projection(plain).float(), dim=-1)
    close(text.reference, projected)  # which the host's own encoding leaves out
    pictures = 2 * torch.rand(2, 3, 32, 32) - 1
    with torch.no_grad():
        like.reference, like.certainty = projected, 50.0
        close(text(pictures, 1.0), like(pictures, 1.0))


def test_a_text_encoder_of_another_space_and_a_long_text_are_refused(demo):
    vision, clip = likeness(demo.model, demo.vae, torch.rand(1, 32, 32, 3)).clip_vision, tiny_clip()
    with torch.no_grad():
        clip.cond_stage_model.clip_l.transformer.text_projection.weight.copy_(torch.eye(16))
    with pytest.raises(ValueError, match="text takes 3 times what CLIP reads at once"):
        TextLikenessNode.execute(model=demo.model, clip_vision=vision, clip=tiny_clip(), vae=demo.vae, text="cat " * 200, certainty=100.0)
    for given, says in [(clip, r"clip has clip_l \(16 wide, without its projection\); it has to have one that is 16 wide"),
                        (demo.clip, "clip has no CLIP text encoder")]:
        with pytest.raises(ValueError, match=says):
            TextLikenessNode.execute(model=demo.model, clip_vision=vision, clip=given, vae=demo.vae, text="a cat", certainty=100.0)


def test_a_video_vae_is_refused(demo):
    clip_vision, vae = SimpleNamespace(encode_image=None), SimpleNamespace(latent_dim=3, decode=None)
    with pytest.raises(ValueError, match="only pictures"):
        LikenessNode.execute(model=demo.model, clip_vision=clip_vision, vae=vae, image=torch.zeros(1, 8, 8, 3), certainty=100.0)
