"""Null-text inversion: the picture comes back under CFG, and the host takes noise and nulls as its own."""

import comfy.model_management
import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_custom_sampler import SamplerCustomAdvanced
from pack.guidance.null_text import invert, null_text
from pack.lab import data, metrics
from pack.nodes.demo.model import load
from pack.nodes.null_text import NullText
from pack.nodes.scale import CFG
from pack.tests.host import POSITIVE, cfg_guider, node, one_level, prompt
from pack.tests.measure import close

SIGMAS = [8.0, 4.0, 2.0, 1.0, 0.5, 0.0]


# ------------------------------------------------------------------------------------------------ the maths


def gaussian(mean, spread):
    """The denoiser of N(mean, spread^2), with a mean for each sample or for all."""
    return lambda x, sigma, mean=mean: (spread**2 * x + sigma**2 * mean) / (spread**2 + sigma**2)


def test_a_null_for_each_step_leads_back_where_cfg_would_not():
    cond, latent = gaussian(torch.ones(3, 4), 0.5), torch.randn(3, 4)

    def arrives(iterations):
        return null_text(latent, SIGMAS, cond, lambda x, sigma, null: gaussian(0, 0.5)(x, sigma, null),
                         torch.zeros(3, 4), 7.5, iterations, rate=0.05)

    noisy, nulls, there = arrives(50)
    assert len(nulls) == 5 and noisy.abs().mean() > 2
    learnt, before = ((there - latent).square().mean() for there in (there, arrives(0)[2]))
    assert learnt < 1e-3 < 0.05 * before


def test_each_sample_is_learnt_by_itself():
    cond, latent = gaussian(torch.ones(1, 4), 0.5), torch.randn(3, 4)
    run = lambda latent: null_text(latent, SIGMAS, cond, lambda x, sigma, null: gaussian(0, 0.5)(x, sigma, null),
                                   torch.zeros(len(latent), 4), 3.0, 3, rate=0.05)
    together = run(latent)
    for i in range(3):
        alone = run(latent[i:i + 1])
        close(together[2][i:i + 1], alone[2], 1e-4)
        for all_of_them, one in zip(together[1], alone[1]):
            close(all_of_them[i:i + 1], one, 1e-4)


def test_euler_steps_with_the_prompt_lead_from_the_inverted_noise_to_the_picture():
    cond, latent = gaussian(torch.ones(2, 4), 0.5), torch.randn(2, 4)
    sigmas = [8 * (1 - i / 20) ** 2 for i in range(21)]
    x = invert(latent, sigmas, cond)[0]
    for sigma, below in zip(sigmas, sigmas[1:]):
        x = x + (below / sigma - 1) * (x - cond(x, sigma))
    assert float((x - latent).abs().max()) < 0.01  # 1.1 without the refinements


# ------------------------------------------------------------------------------------------------ on the host

EMPTY = prompt(3)


def sigmas_of(model, steps=4):
    return comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", steps)


def inverted(model, latent, positive=POSITIVE, negative=EMPTY, sigmas=None, **knobs):
    """(noise, nulls) of the node in inference mode, as the host runs it."""
    sigmas = sigmas_of(model) if sigmas is None else sigmas
    knobs = {"cfg": 5.0, "iterations": 2, "rate": 0.1, **knobs}
    with torch.inference_mode():
        return NullText.execute(model=model, latent={"samples": latent}, positive=positive, negative=negative, sigmas=sigmas,
                                **knobs).result


def again(model, noise, nulls, latent, positive=POSITIVE, cfg=5.0):
    """What the host's own sampler makes of them."""
    guider = cfg_guider(model, cfg, positive, nulls)
    with torch.inference_mode():
        return SamplerCustomAdvanced.execute(noise, guider, comfy.samplers.sampler_object("euler"), sigmas_of(model),
                                             {"samples": latent})[0]["samples"]


@pytest.mark.parametrize("kind", ["v", "flow"])
def test_the_host_makes_the_picture_again_whatever_latent_it_starts_from(kind):
    picture, scenes = metrics.real(1, 3)
    picture = picture * 2 - 1
    with torch.inference_mode():  # where the host loads models, so that autograd refuses their weights
        model, clip, _ = load(kind)
        positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (data.caption(scenes, 0), ""))
    found = {iterations: inverted(model, picture, positive, negative, iterations=iterations) for iterations in (0, 8)}
    made = {iterations: again(model, *found[iterations], picture, positive) for iterations in found}
    error = {iterations: float((made[iterations] - picture).square().mean()) for iterations in found}
    assert error[8] < 0.2 * error[0], error
    for latent in (torch.zeros_like(picture), torch.rand_like(picture)):
        close(again(model, *found[8], latent, positive), made[8], 1e-3)


def test_at_each_step_its_own_null_is_in_force_and_no_other():
    model = one_level()
    _, nulls = inverted(model, torch.randn(1, 4, 8, 8))
    sampling = model.get_model_object("model_sampling")
    for i, sigma in enumerate(sigmas_of(model)[:-1].tolist()):
        held = [sampling.percent_to_sigma(values["start_percent"]) >= sigma >= sampling.percent_to_sigma(values["end_percent"])
                for _, values in nulls]
        assert held == [j == i for j in range(4)]


def test_strategies_on_the_model_are_left_out_and_the_model_is_as_it_was():
    model = one_level()
    latent, patched = torch.randn(1, 4, 8, 8), node(CFG, model, scale=20.0)
    before = [weight.clone() for weight in model.model.parameters()]
    for plain, guided in zip(inverted(model, latent)[1], inverted(patched, latent)[1]):
        assert torch.equal(plain[0], guided[0])
    assert all(torch.equal(*pair) for pair in zip(before, model.model.parameters()))
    assert all(weight.grad is None for weight in model.model.parameters())


def test_it_can_be_stopped():
    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        inverted(one_level(), torch.randn(1, 4, 8, 8))


def test_where_no_gradient_comes_back_that_is_said():
    model = one_level()
    model.set_model_unet_function_wrapper(lambda apply, args: apply(args["input"], args["timestep"], **args["c"]).detach())
    with pytest.raises(ValueError, match="no gradient comes back through this model"):
        inverted(model, torch.randn(1, 4, 8, 8))


@pytest.mark.parametrize("wrong, says", [
    ({"negative": prompt(1) + prompt(2)}, "negative has 2 prompts; it has to be a single one."),
    ({"negative": [[None, {}]]}, "negative has no tokens"),
    ({"latent": torch.full((1, 4, 8, 8), float("nan"))}, "not finite"),
    ({"latent": torch.zeros(1, 16, 8, 8)}, "latent has 16 channels, and this model's have 4"),  # EmptyLatentImage's; torch's words before
    ({"sigmas": torch.tensor([1.0, 2.0, 0.0])}, "sigmas has to fall"),
    ({"cfg": 0.5}, "cfg is 0.5; it has to be between 1 and 100"),
    ({"iterations": -1}, "iterations is -1; it has to be between 0 and 1000"),
])
def test_what_cannot_be_inverted_is_refused_in_one_sentence(wrong, says):
    with pytest.raises(ValueError, match=says) as error:
        inverted(one_level(), **{"latent": torch.randn(1, 4, 8, 8), **wrong})
    assert "\n" not in str(error.value)


def test_the_noise_goes_with_latents_of_its_size_only():
    noise, _ = inverted(one_level(), torch.randn(1, 4, 8, 8), iterations=0)
    with pytest.raises(ValueError, match="it has to be as large"):
        noise.generate_noise({"samples": torch.zeros(1, 4, 8, 16)})
