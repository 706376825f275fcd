"""Guidance for this model: every family of the table is recognised, and what is set up is the same nodes chained by hand."""

import json
from pathlib import Path

import comfy.supported_models
import pytest
import torch
from comfyui_version import __version__
from pack.lab import preset as lab_preset
from pack.nodes.families import PUBLISHED, candidates, families
from pack.nodes.model_preset import AUTO, CHAINED, with_defaults
from pack.nodes.negative_texts import TEXTS
from pack.tests.architectures import ARCHITECTURES
from pack.tests.host import NODES, one_level, short

FAMILIES = list(families().values())
HOSTED = [(family, name) for family in FAMILIES for name in family.classes if hasattr(comfy.supported_models, name)]
SIZES = {"in_channels": 4, "hidden_size": 64, "dim": 64, "model_channels": 64}  # which some classes ask for
OLDER = tuple(map(int, __version__.split("."))) < (0, 30)
by_name = lambda value: getattr(value, "name", value)


def config_of(family, name):
    """The host's own config for a network that this family's weights would have."""
    kind = getattr(comfy.supported_models, name)
    return kind({**SIZES, **kind.unet_config, **family.tells})


def made(model, style=PUBLISHED, variant=AUTO, **links):
    return NODES["GuidanceModelPreset"].execute(model, variant=variant, style=style, **links).result




# ---------------------------------------------------------------------------------------------- recognition

def test_the_table_covers_the_newest_host():
    assert len(FAMILIES) >= 75
    assert [name for family in FAMILIES for name in family.classes if not hasattr(comfy.supported_models, name)] == [] or OLDER


@pytest.mark.parametrize("family, name", HOSTED, ids=by_name)
def test_a_family_is_recognised_by_its_config(family, name):
    config = config_of(family, name)
    assert family in candidates(config)
    assert all(name in other.classes for other in candidates(config))


@pytest.mark.parametrize("family, name, first", [
    ("Flux.2 dev", "Flux2", "Flux.2 dev"), ("Flux.2 Klein 4B/9B distilled", "Flux2", "Flux.2 Klein base 4B"),
    ("Wan 2.1 T2V 1.3B", "WAN21_T2V", "Wan 2.1 T2V 1.3B"), ("SD3.5 Medium", "SD3", "SD3.5 Medium"),
    ("NewBie-Image", "Lumina2", "NewBie-Image"), ("Z-Image Turbo", "ZImage", "Z-Image"), ("SDXL Turbo", "SDXL", "SDXL base"),
    ("Ovis Image", "FluxSchnell", "Ovis Image"), ("Flux.1 schnell", "FluxSchnell", "Flux.1 schnell"),
])
def test_auto_takes_the_likeliest_that_fits(family, name, first):
    assert candidates(config_of(families()[family], name))[0].name == first


def test_a_relative_of_a_known_class_is_not_taken_for_it():
    for kind in (comfy.supported_models.SSD1B, comfy.supported_models.SD15_instructpix2pix, comfy.supported_models.HunyuanImage21):
        assert candidates(kind({**SIZES, **kind.unet_config})) == []


def test_an_unknown_model_stays_as_it_is_and_one_sentence_says_so():
    model = one_level()
    same, text = made(model)
    assert same is model and text == "This model, a OneLevelUNet, is of no family in the table, so it is left as it is."


def test_a_style_without_a_source_is_not_offered_and_one_sentence_says_so():
    model = one_level()
    same, text = made(model, "natural", "Z-Image Turbo")
    assert same is model and text.startswith("natural is not offered for Z-Image Turbo") and text.count(".") == 1


# ---------------------------------------------------------------------------------------------- chains

def test_every_knob_of_the_table_is_one_and_in_its_range():
    for family in FAMILIES:
        for style in family.offered:
            setup = family.setup(style)
            assert setup.sources and all(setup.sources)
            for kind, given, source in setup.nodes:
                assert CHAINED[kind].check(given).keys() == given.keys() <= {knob.id for knob in CHAINED[kind].inputs}, family.name
                assert 1 <= source <= len(setup.sources)
                for knob in CHAINED[kind].inputs:
                    step = getattr(getattr(knob, "input_override", None) or knob, "step", None)
                    if knob.id in given and step:  # the page rounds to it
                        assert round(given[knob.id] / step) * step == pytest.approx(given[knob.id]), (kind, knob.id)
            assert {setting.source for setting in setup.settings} <= set(range(1, len(setup.sources) + 1))


def test_no_cfg_is_set_where_guidance_is_distilled():
    for family in FAMILIES:
        if family.is_distilled:
            kinds = {node.name for style in family.offered for node in family.setup(style).nodes}
            assert kinds <= {"GuidanceDistilled", "GuidanceNAG"}, family.name


# A tiny model of its architecture, for families that have all chains between them.
TINY = {
    "SD1.5": "sd15", "SDXL base": "sdxl", "SD3.5 Large": "sd3", "Flux.1 dev": "flux", "Qwen-Image": "qwen", "Qwen-Image-Edit 2511": "qwen_edit",
    "Z-Image Turbo": "z_image", "Lumina 2 (NetaYume)": "lumina2", "Wan 2.1 I2V 14B": "wan_i2v", "LTX-2 19B dev": "ltxav",
}
LAYERS = {"LTX-2 19B dev": {"num_layers": 29}}  # enough for the one that is named
CHAINS = [(name, tiny, style) for name, tiny in TINY.items() if tiny in ARCHITECTURES for style in families()[name].offered]


@pytest.mark.parametrize("name, tiny, style", CHAINS, ids=by_name)
def test_a_style_is_the_same_nodes_chained_by_hand(name, tiny, style):
    architecture = ARCHITECTURES[tiny]
    model, negative = architecture.model(**LAYERS.get(name, {})), architecture.prompt(7)
    by_hand = model
    for entry in lab_preset.chain(families()[name], style).values():
        kind = NODES[entry["class_type"]]
        given = {key: value for key, value in entry["inputs"].items() if key not in ("model", "negative")}
        links = {"negative": negative} if "negative" in entry["inputs"] else {}
        by_hand = kind.execute(by_hand, **given, **links).result[0]
    guided, text = made(model, style, name, negative=negative)
    distilled = families()[name].is_distilled
    cfg = 1.0 if distilled else 3.0
    answer = architecture.sample(guided, cfg)
    assert torch.equal(answer, architecture.sample(by_hand, cfg))
    if style != PUBLISHED or not distilled:  # whose published scale is the host's default too
        assert torch.equal(answer, architecture.sample(model, cfg)) is (by_hand is model)
    assert text.startswith(f"Set up for {name}, as chosen.\n")


def test_every_chain_is_tried_on_some_model():
    """But for SD3.5 medium's, which names layers that a tiny model has not."""
    kinds = lambda name, style: tuple(node.name for node in families()[name].setup(style).nodes)
    tried = {kinds(name, style) for name in TINY for style in families()[name].offered}
    left = {(family.name, style) for family in FAMILIES for style in family.offered if kinds(family.name, style) not in tried}
    assert left == {("SD3.5 Medium", "natural")}


def test_the_cfg_of_the_table_takes_the_place_of_the_samplers():
    guided = made(one_level(), variant="Qwen-Image")[0]
    assert torch.equal(short(guided, cfg=1.0), short(guided, cfg=9.0))


# ---------------------------------------------------------------------------------------------- words

def test_each_number_is_told_with_its_source():
    text = made(one_level(), "natural", "SDXL base")[1].splitlines()
    assert text == [
        "Set up for SDXL base, as chosen.",
        "",
        "Style natural, on the MODEL wire:",
        "1. CFG: scale 16, start 5.42, end 0.28, unit sigma [2]",
        "",
        "Sampler: steps 25 [1], sampler dpmpp_2m [1], scheduler karras [1], cfg any, as CFG sets it",
        "Also: negative: text (quality words) [1]",
        "",
        "[1] templates/image_sdxl_simple.json in comfyui-workflow-templates-json 0.1.123",
        "[2] Kynkäänniemi et al. 2024, arXiv 2404.07724: their example for SDXL",
    ]


def test_auto_says_what_the_weights_do_not_tell(monkeypatch):
    model = one_level()
    monkeypatch.setattr(model.model, "model_config", config_of(families()["Z-Image"], "ZImage"))
    text = made(model)[1]
    assert text.startswith("Taken for Z-Image, by its class ZImage. Its weights do not tell it from Z-Image Turbo: choose the ")


def test_a_variant_that_the_model_cannot_be_is_refused_with_those_that_it_can(monkeypatch):
    model = one_level()
    monkeypatch.setattr(model.model, "model_config", config_of(families()["Z-Image"], "ZImage"))
    with pytest.raises(ValueError, match="^variant is Qwen-Image, and this model is a ZImage; it has to be auto or one of Z-Image, Z-Image Turbo\\.$"):
        made(model, variant="Qwen-Image")


def test_without_a_negative_the_text_says_what_it_would_add():
    flux = ARCHITECTURES["flux"].model()
    guided, text = made(flux, "faithful", "Flux.1 schnell")
    assert guided is flux
    assert "With a negative linked: Negative in attention (NAG): scale 4, tau 2.5, alpha 0.25 [2]" in text
    assert "At cfg 1 the sampler's negative is ignored." in text


@pytest.mark.parametrize("wrong", [{"variant": "x" * 10**6}, {"variant": None}, {"style": "best"}, {"style": float("nan")}])
def test_a_wrong_choice_is_one_sentence(wrong):
    with pytest.raises(ValueError) as error:
        NODES["GuidanceModelPreset"].execute(one_level(), **{"variant": AUTO, "style": PUBLISHED, **wrong})
    assert str(error.value).endswith(".") and len(str(error.value)) < 200 and next(iter(wrong)) in str(error.value)


def test_the_lab_prints_the_chain_as_api_json(capsys):
    lab_preset.report("Flux.1 dev", "faithful")
    graph = json.loads(capsys.readouterr().out)
    assert [entry["class_type"] for entry in graph.values()] == ["GuidanceDistilled", "GuidanceNAG"]
    assert graph["guidance 2"]["inputs"]["model"] == ["guidance 1", 0] and graph["guidance 2"]["inputs"]["negative"] == ["negative", 0]
    for entry in graph.values():
        assert with_defaults(NODES[entry["class_type"]], {}).keys() < entry["inputs"].keys()
    for wrong in (("No such", PUBLISHED), ("Z-Image Turbo", "fast")):
        with pytest.raises(SystemExit, match="there is"):
            lab_preset.report(*wrong)


# ---------------------------------------------------------------------------------------------- negative texts

def negative_text(subject="universal", text="", more=""):
    return NODES["GuidanceNegativeTexts"].execute(subject=subject, text=text, more=more).result[0]


def test_a_negative_text_is_the_subjects_or_ones_own_with_words_added():
    assert negative_text("anime") == TEXTS["anime"]
    assert negative_text("anime", more=" a hat ") == f"{TEXTS['anime']}, a hat"
    assert negative_text("anime", " a cat ") == "a cat" and negative_text("anime", " ", "\n") == TEXTS["anime"]
    assert len(negative_text(text="a" * 10**6)) == 10**6
    with pytest.raises(ValueError, match="subject is 'dogs'; it has to be"):
        negative_text("dogs")


def test_the_help_page_lists_the_texts():
    page = (Path(__file__).parent.parent / "web" / "docs" / "GuidanceNegativeTexts.md").read_text(encoding="utf-8")
    assert all(f"| {subject} | {text} |\n" in page for subject, text in TEXTS.items())


def test_the_texts_are_plain_lists_without_abstractions_or_negations():
    for subject, text in TEXTS.items():
        words = text.split(", ")
        assert len(words) == len(set(words)) <= 30, subject
        assert not {"no", "not", "without", "ugly", "bad quality", "worst quality", "masterpiece"} & {*words, *text.split()}
