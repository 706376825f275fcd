"""The words of nodes in other languages: all of them, and none of what is no longer there.

English is in the nodes themselves, where the page finds it when a language lacks a word. The page does not translate the
choices of a list.
"""

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("comfy")

from pack.nodes import NODES  # noqa: E402

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "locales"
LANGUAGES = ("zh", "ja", "ko")
OWN_SCRIPT = {"zh": "一-鿿", "ja": "ぁ-ヿ一-鿿", "ko": "가-힣"}
SAME = {"CFG", "CFG++", "CFG-Zero*", "Perp-CFG", "Rectified-CFG++", "beta-CFG", "cfg", "clip", "vae", "CLIP Vision", "Latent",
        "Sigmas", "a", "b"}  # in every language
GENERAL = {"guidance"}  # categories that the page has a word for
SYNTAX = set("@{}|")  # which the page would take for more than letters


def words(language, file):
    return json.loads((FOLDER / language / f"{file}.json").read_text(encoding="utf-8"))


def told(node):
    """What a page shows of a node: {its inputs}, {the outputs that have a name of their own, by their places}."""
    groups = node.INPUT_TYPES()
    inputs = {name for group in ("required", "optional") for name in groups.get(group, {})}
    types = node.RETURN_TYPES
    return inputs, {str(i) for i, (name, type) in enumerate(zip(node.RETURN_NAMES or types, types)) if name != type}


def numbers(text):
    return set(re.findall(r"\d+(?:\.\d+)?", text or ""))


def texts(entry):
    """All texts in what was read from JSON."""
    return [text for value in entry.values() for text in texts(value)] if isinstance(entry, dict) else [entry]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_node_has_its_words_and_no_other_has(language):
    nodes = {node.GET_SCHEMA().node_id: node for node in NODES}
    found = words(language, "nodeDefs")
    assert found.keys() == nodes.keys(), f"locales/{language}/nodeDefs.json"
    for id, entry in found.items():
        inputs, outputs = told(nodes[id])
        assert (id, entry["inputs"].keys()) == (id, inputs)
        assert (id, {place for place, output in entry.get("outputs", {}).items() if "name" in output}) == (id, outputs)
        assert entry["display_name"] and all(given["name"] for given in entry["inputs"].values()), id
        assert re.search(f"[{OWN_SCRIPT[language]}]", entry["description"]), id
    assert len({entry["display_name"] for entry in found.values()}) == len(nodes)


@pytest.mark.parametrize("language", LANGUAGES)
def test_names_are_in_the_language(language):
    for id, entry in words(language, "nodeDefs").items():
        for name in [entry["display_name"], *(given["name"] for given in entry["inputs"].values())]:
            assert re.search(f"[{OWN_SCRIPT[language]}]", name) or name in SAME, f"{id}: {name}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_tooltips_have_the_numbers_of_the_english_ones(language):
    found = words(language, "nodeDefs")
    for node in NODES:
        info, entry = node.GET_NODE_INFO_V1(), found[node.GET_SCHEMA().node_id]
        given = [(entry["inputs"][name], options[0].get("tooltip")) for group in ("required", "optional")
                 for name, (_, *options) in info["input"].get(group, {}).items() if options]
        given += [(entry.get("outputs", {}).get(str(i), {}), said) for i, said in enumerate(info.get("output_tooltips") or [])]
        for words_of, english in given:
            text = words_of.get("tooltip")
            assert bool(text) == bool(english), (entry["display_name"], words_of, english)
            assert numbers(text) == numbers(english), (text, english)


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_no_node_has_its_words(language):
    assert words(language, "commands").keys() == words("en", "commands").keys()
    main, schemas = words(language, "main"), [node.GET_SCHEMA() for node in NODES]
    categories = {part for schema in schemas for part in schema.category.split("/")}
    assert main["nodeCategories"].keys() == categories - GENERAL
    types = {output.io_type for schema in schemas for output in schema.outputs}
    assert main["dataTypes"].keys() == {type for type in types if type.startswith("GUIDANCE_")}


@pytest.mark.parametrize("language", ["en", *LANGUAGES])
def test_no_word_is_taken_for_a_formula(language):
    for path in (FOLDER / language).iterdir():
        for text in texts(json.loads(path.read_text(encoding="utf-8"))):
            assert text.strip() == text != "" and not SYNTAX & set(text), text


# ---------------------------------------------------------------------------------------------- help pages

PAGES = ROOT / "web" / "docs"
TRANSLATED = sorted(PAGES.glob("*/*.md"))
LINK = re.compile(r"\]\(([^)]*)\)")


@pytest.mark.parametrize("page", TRANSLATED, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_a_translated_page_says_what_the_english_one_does(page):
    """The same links, pictures and numbers. ComfyUI's page asks for <node>/<language>.md first."""
    original = PAGES / f"{page.parent.name}.md"
    assert page.stem in LANGUAGES and original.is_file()
    english, text = (path.read_text(encoding="utf-8") for path in (original, page))
    assert set(LINK.findall(text)) == set(LINK.findall(english))
    assert numbers(text) == numbers(english)
    assert text.startswith(f"# {words(page.stem, 'nodeDefs')[page.parent.name]['display_name']}\n")


def test_the_most_used_nodes_have_their_page_in_chinese():
    used = ("CFG", "Negative", "NAG", "CFGPlusPlus", "PerpCFG", "PAG", "APG", "Rescale", "DynamicThreshold", "Schedule")
    assert {f"Guidance{name}" for name in used} <= {page.parent.name for page in TRANSLATED if page.stem == "zh"}
