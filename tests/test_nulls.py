"""What stands for the prompt's absence, on real ComfyUI: nulls made from it, from files and from a text encoder."""

from functools import partial

import folder_paths
import pytest
import torch
from nodes import ConditioningSetArea, ConditioningZeroOut
from pack.nodes.prompts import Null, from_prompt, independent, mean, zeros
from pack.tests.host import (
    POSITIVE,
    counted_by,
    node,
    one_level,
    prompt,
    sample,
)
from pack.tests.measure import close, error, far
from safetensors.torch import save_file

counted = partial(counted_by, sample)


@pytest.fixture(scope="module")
def model():
    return one_level()


def like(made, values):
    return [[made(values[0][0]), {**values[0][1]}]]


@pytest.mark.parametrize(
    "null, negative",
    [
        ("zeros", ConditioningZeroOut().zero_out(POSITIVE)[0]),
        ("mean", like(lambda y: y.mean(1, keepdim=True).repeat(1, y.shape[1], 1), POSITIVE)),
        ("independent", like(lambda y: independent(5, "cross_attn", y), POSITIVE)),
    ],
    ids=["zeros", "mean", "independent"],
)
def test_a_null_is_the_negative_that_one_would_make_by_hand(null, negative, model):
    answer, rows, calls = counted(node(Null, model, null=null, seed=5))
    assert (rows, calls) == (12, 6)
    assert torch.equal(answer, sample(model, negative=negative))
    assert torch.equal(sample(node(Null, model, null=null, seed=5), cfg=1.0), sample(model, cfg=1.0))


def test_tokens_and_pooled_embedding_are_both_replaced_and_everything_else_stays():
    tokens, pooled, mask = torch.randn(1, 6, 16), torch.randn(1, 8), torch.ones(1, 6)
    entry = {
        "cross_attn": tokens,
        "pooled_output": pooled,
        "attention_mask": mask,
        "strength": 0.5,
        "uuid": 1,
        "model_conds": {},
    }
    for null in (zeros, mean, lambda *given: independent(3, *given)):
        (made,) = from_prompt(null, {"positive": [entry]})
        assert made["cross_attn"].shape == tokens.shape and made["pooled_output"].shape == pooled.shape
        assert not torch.equal(made["cross_attn"], tokens) and not torch.equal(made["pooled_output"], pooled)
        assert made["attention_mask"] is mask and made["strength"] == 0.5 and made["uuid"] != 1
    assert entry["cross_attn"] is tokens
    (made,) = from_prompt(zeros, {"positive": [entry]})
    assert not made["cross_attn"].any() and not made["pooled_output"].any()
    (made,) = from_prompt(
        lambda *given: independent(3, *given),
        {"positive": [{**entry, "cross_attn": 2 + 3 * torch.randn(1, 400, 64)}]},
    )
    assert made["cross_attn"].mean() == pytest.approx(2, abs=0.1) and made["cross_attn"].std() == pytest.approx(
        3, abs=0.1
    )


def test_the_null_has_the_areas_of_the_prompt(model):
    positive = ConditioningSetArea().append(POSITIVE, 64, 128, 0, 0, 1.0)[0] + prompt(8)
    negative = ConditioningZeroOut().zero_out(positive)[0]
    close(sample(node(Null, model), positive=positive), sample(model, positive=positive, negative=negative))


def test_before_its_window_and_after_it_the_samplers_negative_is_the_negative(model):
    whole, early, off = (sample(node(Null, model, end=end)) for end in (1.0, 0.5, 0.0))
    assert torch.equal(off, sample(model))
    far(whole, off)
    far(early, off)
    assert error(early, whole) > 1e-3


@pytest.fixture
def embeddings(tmp_path, monkeypatch):
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "embeddings", ([str(tmp_path)], {".safetensors", ".pt"}))
    folder_paths.filename_list_cache.pop("embeddings", None)
    yield tmp_path
    folder_paths.filename_list_cache.pop("embeddings", None)


def test_a_learned_null_comes_from_a_file_in_the_embeddings_folder(embeddings, model):
    tokens = prompt(9)[0][0]
    save_file({"tokens": tokens}, embeddings / "null.safetensors")
    (embeddings / "old.pt").write_bytes(b"a pickle")
    chosen = next(given for given in Null.define_schema().inputs if given.id == "embedding")
    assert chosen.options == ["none", "null.safetensors"]
    null = dict(null="file", embedding="null.safetensors")
    close(sample(node(Null, model, **null)), sample(model, negative=prompt(9)))
    save_file({"tokens": POSITIVE[0][0][0]}, embeddings / "null.safetensors")  # the prompt itself is no null
    close(sample(node(Null, model, **null)), sample(model, cfg=1.0), 1e-4)


def test_a_file_that_cannot_be_a_null_is_refused_in_one_sentence(embeddings, model):
    save_file({"tokens": torch.zeros(4, 20)}, embeddings / "wide.safetensors")
    save_file({"bias": torch.zeros(16)}, embeddings / "flat.safetensors")
    for name, sentence in [
        ("none", "embedding is 'none'; it has to be a .safetensors"),
        ("old.pt", "embedding is 'old.pt'; it has to be one of"),
        ("absent.safetensors", "has to be one of"),
        ("../secret.safetensors", "has to be one of"),
        ("wide.safetensors", "20 wide and this model's prompts are 16"),
        ("flat.safetensors", "no tensor"),
    ]:
        with pytest.raises(ValueError, match=sentence) as error:
            sample(node(Null, model, null="file", embedding=name))
        assert "\n" not in str(error.value)


def test_the_empty_prompt_needs_a_text_encoder_and_is_what_it_makes_of_nothing(demo):
    with pytest.raises(ValueError, match="connect clip"):
        node(Null, demo.model, null="empty prompt")
    pictures = dict(
        positive=demo.encode("a big red star on white"), negative=demo.encode("blue"), noise=demo.noise(2)
    )
    answer = sample(node(Null, demo.model, null="empty prompt", clip=demo.clip), **pictures)
    assert torch.equal(answer, sample(demo.model, **{**pictures, "negative": demo.encode("")}))
    far(answer, sample(demo.model, **pictures))
