"""Negative weights written in a prompt: how the text is read, what is encoded, and what the push has to equal."""

import time
from contextlib import suppress
from types import SimpleNamespace

import comfy.sd1_clip
import comfy.sdxl_clip
import pytest
import torch
from comfy.text_encoders import flux, hunyuan_video, qwen_image, sd3_clip, z_image
from nodes import CLIPTextEncode, ConditioningZeroOut
from pack.nodes.words import _places, taken_apart, words_alone
from pack.tests.architectures import ARCHITECTURES
from pack.tests.host import NODES, Counter, cfg_guider, guided_by, node, prompt, sample, tiny_clip, tiny_model

CLIP, MODEL = tiny_clip(), tiny_model()
TEXTS = {
    "a cat, (dog:-1), bird": ("a cat, bird", {"dog": 1.0}),
    "a red (green:-0.5) circle": ("a red circle", {"green": 0.5}),
    "(dog:-1), a cat (big bird:-2)": ("a cat", {"dog": 1.0, "big bird": 2.0}),
    "cat(dog:-1)bird": ("cat bird", {"dog": 1.0}),
    "a (big (dog:-0.5) cat:1.2)": ("a (big cat:1.2)", {"dog": 0.5}),
    "((dog) bird:-1) (((cat)))": ("(((cat)))", {"dog": 1.1, "bird": 1.0}),
    "(a (cat:1.2):-1)": ("(cat:1.2)", {"a": 1.0}),
    r"(\(dog\):-1) \(cat:-1\)": (r"\(cat:-1\)", {r"\(dog\)": 1.0}),
    "(dog:-1) (dog:-1)": ("", {"dog": 2.0}),
    "(embedding:dog:-1)": ("", {"embedding:dog": 1.0}),
    "a ) (dog:-1) b,": ("a ) (dog:-1) b,", {}),
    "  (cat:1.3),, a :-) (:-0)": ("  (cat:1.3),, a :-) (:-0)", {}),
}


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_taken_apart(text):
    assert taken_apart(text) == TEXTS[text]


@pytest.mark.parametrize("text", TEXTS)
def test_weights_are_those_that_the_host_reads(text):
    def weights(text):
        return {(word, round(weight, 6)) for part, weight in comfy.sd1_clip.token_weights(comfy.sd1_clip.escape_important(text), 1.0)
                for word in part.replace(",", " ").split()}

    kept, away = taken_apart(text)
    found = weights(kept) | {(word, -weight) for words, weight in away.items()
                             for word in comfy.sd1_clip.escape_important(words).split()}
    assert found == weights(text) or text.startswith("(dog:-1) (dog")  # which is the one that adds up


@pytest.mark.parametrize("text, says", [
    ("(dog:-11)", "text gives 'dog' the weight -11; it has to be at least -10."),
    ("(dog:-inf)", "the weight -inf; it has to be at least -10."),
    ("(dog:-nan)", "the weight nan; it has to be at least -10."),
    ("".join(f"({i}:-1)" for i in range(65)), "more than 64 parts with a negative weight; it has to have at most 64."),
    ("(" * 500_000 + ":-1", "parentheses 500000 deep; they have to be at most 20 deep."),
])
def test_what_cannot_be_is_refused_in_one_sentence(text, says):
    with pytest.raises(ValueError) as error:
        taken_apart(text)
    assert str(error.value).endswith(says) and len(str(error.value)) < 120


@pytest.mark.parametrize("text", [" " * 500_000 + "(a:-1)" + "," * 500_000, "(" * 20 + "x " * 500_000 + ":-1)" + ")" * 19,
                                  "(a) b " * 170_000 + "(c:-1)", ")" * 10**6 + ":-1", "(a:-1)b" * 140_000])
def test_a_megabyte_takes_no_longer_than_its_length(text):
    started = time.process_time()
    with suppress(ValueError):
        taken_apart(text)
    assert time.process_time() - started < 10


def encode(model, text, clip=CLIP, **knobs):
    knobs = {"strength": 1.0, "start": 0.0, "end": 1.0, "unit": "percent", **knobs}
    return NODES["GuidanceTextEncode"].execute(model, clip=clip, text=text, **knobs).result


def core(text, clip=CLIP):
    return CLIPTextEncode().encode(clip, text)[0]


@pytest.mark.parametrize("text", ["a (cat:1.3) on ((grass)), (sky:0.2)", "", "long " * 100])
def test_without_a_negative_weight_it_is_clip_text_encode_and_the_model_is_the_very_same(text):
    model, made = encode(MODEL, text)
    [[tokens, values]], [[right, more]] = made, core(text)
    assert model is MODEL and torch.equal(tokens, right)
    assert values.keys() == more.keys() and torch.equal(values["pooled_output"], more["pooled_output"])


def words(text, weight, slot):
    conditioning = core(text)
    return {"away": [[conditioning[0][0][:, slot], conditioning[0][1]]], "weight": weight}


@pytest.mark.parametrize("cfg", [1.0, 5.0])
def test_the_push_is_that_of_the_words_alone_in_one_row_and_one_call(cfg):
    model, made = encode(MODEL, "a (cat:1.3), (big dog:-0.7), (bird:-2)", strength=0.5)
    torch.testing.assert_close(made[0][0], core("a (cat:1.3)")[0][0], rtol=0, atol=0)
    right = MODEL
    for given in (words("big dog", 0.35, slice(1, 3)), words("bird", 1.0, slice(1, 2))):
        right = node(NODES["GuidancePushAway"], right, **given)
    counter, negative = Counter(model), core("")
    answer = sample(counter.model, cfg=cfg, positive=made, negative=negative)
    assert torch.equal(answer, sample(right, cfg=cfg, positive=made, negative=negative))
    assert not torch.equal(answer, sample(MODEL, cfg=cfg, positive=made, negative=negative))
    assert (counter.calls, counter.rows) == (6, 6 if cfg == 1 else 12)


def test_a_prompt_of_negative_weights_alone_is_the_empty_prompt():
    model, made = encode(MODEL, "(dog:-1)")
    assert torch.equal(made[0][0], core("")[0][0])
    assert sample(model, positive=made).isfinite().all()


def test_words_are_found_in_every_chunk_and_in_none():
    assert words_alone(CLIP, "word " * 100)[0][0].shape[1] == 100
    assert words_alone(CLIP, "embedding:missing") is None
    assert encode(MODEL, "(embedding:missing:-1)")[0] is MODEL


TOKENIZERS = {  # what their text encoders make of the tokens: {encoder: its first token in the conditioning}, its length
    "SDXL": (comfy.sdxl_clip.SDXLTokenizer, lambda sizes: ({"l": 0, "g": 0}, sizes["l"])),
    "SD3": (sd3_clip.SD3Tokenizer, lambda sizes: ({"l": 0, "t5xxl": sizes["l"]}, sizes["l"] + sizes["t5xxl"])),
    "Flux": (flux.FluxTokenizer, lambda sizes: ({"t5xxl": 0}, sizes["t5xxl"])),
    "Z-Image": (z_image.ZImageTokenizer, lambda sizes: ({"qwen3_4b": 0}, sizes["qwen3_4b"])),
    "Qwen-Image": (qwen_image.QwenImageTokenizer, lambda sizes: ({"qwen25_7b": -34}, sizes["qwen25_7b"] - 34)),
}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_words_are_told_from_what_every_prompt_has(kind):
    """With the host's own tokenizers: nothing but the words' tokens is found, wherever they are in the conditioning."""
    tokenizer, arrangement = TOKENIZERS[kind][0](), TOKENIZERS[kind][1]
    clip = SimpleNamespace(tokenize=tokenizer.tokenize_with_weights)
    text = "very big dog"
    tokens = {name: [token for batch in batches for token, _ in batch] for name, batches in clip.tokenize(text).items()}
    first, count = arrangement({name: len(ids) for name, ids in tokens.items()})
    found = _places(clip, text, count)
    for name, start in first.items():
        own = getattr(tokenizer, name, None) or getattr(tokenizer, f"clip_{name}")
        read = own.decode([tokens[name][place - start] for place in found if 0 <= place - start < len(tokens[name])][:5])
        assert read.split() == text.split(), name
    assert len(found) == 3 * len({*first.values()})


def test_words_with_instructions_cut_off_at_both_ends_are_taken_whole():
    clip = SimpleNamespace(tokenize=hunyuan_video.HunyuanVideo15Tokenizer().tokenize_with_weights)
    [*_, tokens] = clip.tokenize("a dog").values()
    assert _places(clip, "a dog", 3) is None


# ------------------------------------------------------------------------------------------------ whose words they are

def guided(model, positive, negative, cfg=4.0):
    return guided_by(cfg_guider(model, cfg, positive, negative), steps=2, size=8)


def test_each_prompt_pushes_its_own_words_away_only():
    first, one = encode(MODEL, "a cat, (dog:-1)")
    both, other = encode(first, "a bird, (dog:-2)")
    for made, alone in ((one, (first, one)), (other, encode(MODEL, "a bird, (dog:-2)"))):
        assert torch.equal(guided(both, made, core("")), guided(*alone, core("")))
    late = [[tokens, {**values, "start_percent": 0.5}] for tokens, values in other]
    early = [[tokens, {**values, "end_percent": 0.5}] for tokens, values in one]
    assert torch.equal(guided(both, early, core("")), guided(first, early, core("")))
    assert not torch.equal(guided(both, early + late, core("")), guided(first, early + late, core("")))


def test_another_prompt_gets_the_push_where_the_words_own_is_not_used():
    """As where another node has made a new conditioning of it."""
    model, _ = encode(MODEL, "a cat, (dog:-1)")
    right = node(NODES["GuidancePushAway"], MODEL, **words("dog", 1.0, slice(1, 2)))
    assert torch.equal(guided(model, core("a bird"), core("")), guided(right, core("a bird"), core("")))


def test_the_zeroed_prompt_as_negative_is_pushed_nothing_away_from():
    model, made = encode(MODEL, "a cat, (dog:-1)")
    [[zeros, values]] = ConditioningZeroOut().zero_out(made)[0]
    bare = [[zeros, {name: value for name, value in values.items() if name != "guidance_words"}]]
    assert torch.equal(guided(model, made, [[zeros, values]]), guided(model, made, bare))


def test_in_a_negative_it_does_nothing_and_says_so(caplog):
    model, made = encode(MODEL, "(dog:-1) cat")
    assert torch.equal(guided(model, core("a bird"), made), guided(MODEL, core("a bird"), made))
    assert sum("negative weights do nothing" in record.message for record in caplog.records) == 1


def test_what_it_cannot_do_is_said_in_one_sentence():
    other = ARCHITECTURES["wan"].model()
    other.model.diffusion_model.__class__ = type("Unknown", (type(other.model.diffusion_model),), {})
    assert encode(other, "a cat")[0] is other
    with pytest.raises(ValueError, match="GuidanceTextEncode: this model, a Unknown, does not let attention be told apart"):
        encode(other, "a (cat:-1)")
    with pytest.raises(ValueError, match="GuidanceTextEncode: clip is missing"):
        encode(MODEL, "a cat", clip=None)
    with pytest.raises(ValueError, match="Prompt with negative weights: .* text encoders: their tokens are 16 and 20 wide"):
        sample(encode(MODEL, "a (cat:-1)")[0], positive=[[torch.randn(1, 4, 20), {}]], negative=prompt(2))


@pytest.mark.parametrize("name", ["sd15", "ltxv", "flux"])
def test_several_words_of_different_lengths_are_those_one_by_one(name):
    """Also with the attention mask that a text encoder gives; the softmax over all words is one, so order is all the same."""
    kind = ARCHITECTURES[name]
    model, parts = kind.model(), [kind.prompt(6, 3), kind.prompt(7, 5)]
    push = NODES["GuidancePushAway"]
    one = node(push, node(push, model, away=parts[0], weight=0.4), away=parts[1], weight=1.2)
    other = node(push, node(push, model, away=parts[1], weight=1.2), away=parts[0], weight=0.4)
    plain, first, second = (kind.predict(m)[0] for m in (model, one, other))
    assert (first - second).norm() < 1e-4 * (first - plain).norm()
