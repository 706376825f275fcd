"""The bundled demo model: its data, its training step, its loader node and what it can do."""

import pytest
import torch
from pack.guidance.dropout import drop_condition
from pack.lab import data, metrics, null_chance, sweep, train
from pack.nodes.demo import judge, single_pass
from pack.nodes.demo import model as demo_model
from pack.nodes.demo.network import ARCHITECTURE, DemoUNet
from pack.nodes.demo.text import BOS, LENGTH, PAD, WORDS, tokenize
from safetensors import safe_open


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def loaded():
    return {prediction: demo_model.load(prediction) for prediction in demo_model.TYPES}


# ------------------------------------------------------------------------------------------- data

def test_data_depends_on_the_seed_only():
    one, same, other = (data.render(data.draw_scenes(8, r), r) for r in (rng(3), rng(3), rng(4)))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert one.shape == (8, 3, 32, 32) and one.min() >= 0 and one.max() <= 1


def test_real_images_hardly_clip():
    images, _ = metrics.real(256, seed=0)
    assert ((images <= 0) | (images >= 1)).float().mean() < 1e-3


def test_captions_follow_the_grammar_and_say_what_is_there():
    scenes = data.draw_scenes(100, rng())
    for i in range(100):
        a, size, color, shape, on, background = data.caption(scenes, i).split()
        assert (a, on) == ("a", "on") and color != background
        assert [size, color, shape, background] == [words[index[i]] for words, index in zip(judge.CHOICES, scenes)]
        assert tokenize(data.caption(scenes, i)).shape == (LENGTH,)


def test_caption_noise_has_the_rates_it_promises():
    n = 20_000
    scenes = data.draw_scenes(n, rng())
    exact = data.noisy_tokens(scenes, rng(1), wrong=0., missing=0.)
    assert torch.equal(exact[7], tokenize(data.caption(scenes, 7)))
    noisy = data.noisy_tokens(scenes, rng(1))
    shapes = torch.tensor([WORDS.index(word) for word in judge.CHOICES.shape])
    said = torch.isin(noisy, shapes)
    right = (noisy == shapes[scenes.shape].unsqueeze(1)).any(1)
    for share, expected in ((said.any(1), .9), (right, .9 * .85)):
        assert abs(share.float().mean() - expected) < 4 * (expected * (1 - expected) / n) ** .5
    assert (noisy[:, 0] == BOS).all()
    padding = noisy == PAD
    assert (padding[:, 1:] >= padding[:, :-1]).all()  # no gaps between words


def test_a_training_batch_has_empty_prompts():
    _, tokens = train.draw_batch(512, rng())
    share = (tokens == tokenize("")).all(1).float().mean()
    assert .06 < share < .16
    assert torch.equal(drop_condition([tokens], [tokenize("").unsqueeze(0)], 1)[0][3], tokenize(""))


# --------------------------------------------------------------------------------------- training

@pytest.mark.parametrize("null, expected", [(0.0, 0), (1.0, 64)])
def test_captions_are_dropped_as_often_as_was_said(null, expected):
    _, tokens = train.draw_batch(64, rng(), null)
    assert (tokens == tokenize("")).all(1).sum() == expected


@pytest.mark.parametrize("both", [False, True], ids=["one prediction", "two"])
def test_training_steps_lower_the_loss_of_a_fixed_batch(both):
    torch.manual_seed(0)
    model = train.Trainee(both)
    assert model.unet.out[2].out_channels == (1 + both) * ARCHITECTURE["out_channels"]
    gradient = torch.zeros(sum(weight.numel() for weight in model.parameters()))
    steppers = train.optimizers(model, gradient)
    batch, losses = train.draw_batch(8, rng()), []
    for _ in range(12):
        gradient.zero_()
        error = train.loss(model, *batch, rng(1), both)
        error.backward()
        for stepper in steppers:
            stepper.step()
        losses.append(error.item())
    assert losses[-1] < .75 * losses[0]


def test_the_learning_rate_warms_up_stays_and_ends_at_zero():
    rates = [train.learning_rate(step, step / 1000, decay=.4) for step in (0, 50, 300, 600, 800, 1000)]
    assert rates == pytest.approx([.01, .51, 1, 1, .5, 0])


def test_models_trained_at_several_chances_are_measured_and_what_is_there_is_not_made_again(tmp_path, monkeypatch, capsys):
    for name, value in (("OUT", tmp_path / "out"), ("RESULTS", tmp_path), ("CHANCES", (0.1,)), ("SCALES", (1, 3)), ("STEPS", 2)):
        monkeypatch.setattr(null_chance, name, value)
    monkeypatch.setattr(null_chance, "picture", lambda *_: None)  # with a package of the experiment's own
    null_chance.report(2, 8, float("inf"))
    table = (tmp_path / "table.md").read_text()
    assert [line.split(" | ")[0] for line in table.splitlines()[4:]] == ["| 0.1", "| single pass"]
    assert "nan" not in table and table in capsys.readouterr().out
    monkeypatch.setattr(null_chance, "made", None)
    monkeypatch.setattr(null_chance, "measured", None)
    null_chance.report(2, 8, float("inf"))
    assert (tmp_path / "table.md").read_text() == table


# ---------------------------------------------------------------------------------- weights, loader

@pytest.mark.parametrize("path, limit", [(demo_model.WEIGHTS, 5e6), (single_pass.WEIGHTS, 3.5e6), (judge.WEIGHTS, 1e6)],
                         ids=["model", "single pass", "judge"])
def test_weights_are_small_fp16_and_say_how_they_were_made(path, limit):
    assert path.stat().st_size <= limit
    with safe_open(path, "pt") as file:
        assert file.metadata()["command"].startswith(("python lab ", "python dev.py lab "))
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}


def test_an_unknown_word_is_refused_in_one_sentence_with_the_vocabulary(loaded):
    _, clip, _ = loaded["v"]
    with pytest.raises(ValueError, match="does not know the word 'dog'; it knows: a, on, small, .*, star.$"):
        clip.tokenize("a small dog on blue")
    with pytest.raises(ValueError, match="at most 7 words"):
        clip.tokenize("a a a a (a a:1.2) a a")


def test_weights_in_the_prompt_change_that_word(loaded):
    _, clip, _ = loaded["v"]
    plain, heavy = (sweep.encode(clip, [f"a {red} circle"])[0][0] for red in ("red", "(red:1.5)"))
    empty = sweep.encode(clip, [""])[0][0]
    assert plain.shape == (1, LENGTH, 64)
    assert torch.allclose(heavy[:, 2] - empty[:, 2], 1.5 * (plain[:, 2] - empty[:, 2]), atol=1e-5)
    assert torch.allclose(heavy[:, 3], plain[:, 3])


def test_the_node_gives_a_model_of_the_kind_asked_for():
    assert demo_model.DemoModel.GET_SCHEMA().node_id == "GuidanceDemoModel"
    for prediction, kind in demo_model.TYPES.items():
        model, clip, vae = demo_model.DemoModel.execute(prediction=prediction).result
        assert model.model.model_type.name == kind
        assert (type(clip).__name__, type(vae).__name__) == ("CLIP", "VAE")


def test_an_unknown_prediction_is_refused():
    with pytest.raises(ValueError, match="one of v, eps, flow"):
        demo_model.load("x0")


@pytest.mark.parametrize("sigma", [.05, .3, 1., 4., 14.])
def test_v_eps_and_flow_predict_the_same_image(loaded, sigma):
    v, eps, flow = (loaded[prediction][0].model for prediction in ("v", "eps", "flow"))
    table = v.model_sampling.sigmas  # eps knows its sigma from the time step only, so take one of the table
    sigma = table[(table - sigma).abs().argmin()].expand(4)
    x = torch.randn(4, 3, 32, 32) * (1 + sigma.view(-1, 1, 1, 1))
    text = sweep.encode(loaded["v"][1], ["a big red star on white"] * 4)[0][0]
    s = sigma / (1 + sigma)
    expected = v.apply_model(x, sigma, c_crossattn=text)
    assert torch.allclose(eps.apply_model(x, sigma, c_crossattn=text), expected, atol=2e-5)
    assert torch.allclose(flow.apply_model(x * (1 - s).view(-1, 1, 1, 1), s, c_crossattn=text), expected, atol=2e-5)


def test_flow_starts_from_pure_noise_without_a_jump(loaded):
    flow = loaded["flow"][0].model
    x = torch.randn(2, 3, 32, 32)
    text = sweep.encode(loaded["v"][1], ["a big red star on white"] * 2)[0][0]
    last, end = (flow.apply_model(x, torch.full((2,), s), c_crossattn=text) for s in (.9999, 1.))
    assert end.isfinite().all() and end.abs().max() < 2
    assert torch.allclose(last, end, atol=1e-2)


def test_odd_sizes_keep_their_shape():
    network = DemoUNet(**ARCHITECTURE, operations=train.TrainOps)
    assert network(torch.randn(1, 3, 33, 30), torch.tensor([500.]), torch.randn(1, 8, 64)).shape == (1, 3, 33, 30)


@pytest.mark.parametrize("prediction", ["v", "eps", "flow"])
def test_four_steps_through_the_core_nodes_give_finite_images(loaded, prediction):
    images = sweep.sample(*loaded[prediction], ["a big red star on white", "a small blue ring on green"], 3., steps=4)
    assert images.shape == (2, 3, 32, 32) and images.isfinite().all()
    assert images.min() >= 0 and images.max() <= 1 and images.std() > .02


def test_guidance_makes_the_model_follow_the_prompt(loaded):
    jury = judge.load()
    _, scenes = metrics.real(48, seed=11)
    prompts = [data.caption(scenes, i) for i in range(48)]
    right = {}
    for scale in (1., 3.):
        seen = jury.read(sweep.sample(*loaded["v"], prompts, scale, steps=8))
        right[scale] = sum((a == b).float().mean().item() for a, b in zip(seen, scenes)) / 4
    assert right[3.] > right[1.] + .1


# ------------------------------------------------------------------------------------------- judge

def test_the_judge_reads_real_images():
    images, scenes = metrics.real(256, seed=12)
    for seen, truth in zip(judge.load().read(images), scenes):
        assert (seen == truth).float().mean() > .95


def test_frechet_of_known_gaussians():
    eye = torch.eye(3, dtype=torch.float64)
    zero = torch.zeros(3, dtype=torch.float64)
    assert metrics.frechet((zero, eye), (zero, eye)) == pytest.approx(0, abs=1e-9)
    assert metrics.frechet((zero, eye), (zero + 2, 4 * eye)) == pytest.approx(3 * 4 + 3 * 1)
