"""What model families run with: families.json, a row for each, and which rows a model may be.

The numbers are those of ComfyUI's templates, of papers and of published code. Every row and every style names its source;
a style without a source is not in the table.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

PUBLISHED = "as published"
STYLES = [PUBLISHED, "faithful", "natural", "fast"]
OWN = "own"  # in a style's nodes: those of the family itself

FILE = Path(__file__).with_name("families.json")


class Sourced(NamedTuple):
    """A node with its knobs, or a setting with its value, and the number of its source, from 1 on."""

    name: str
    value: dict | str
    source: int


class Setup(NamedTuple):
    """What a style comes to for a family: nodes in the order of the wire, what the sampler gets, and who says so."""

    nodes: list[Sourced]
    settings: list[Sourced]
    sources: list[str]


class Family(NamedTuple):
    """One row.

    classes: of comfy.supported_models, by name. tells: what the config of its network has; True and False are for
        anything and nothing. distilled: "no", or "yes" and of what. settings: what the sampler gets.
    """

    name: str
    classes: list[str]
    distilled: str
    settings: Mapping[str, str]
    nodes: list
    source: str
    tells: Mapping = {}
    styles: Mapping[str, dict] = {}

    @property
    def is_distilled(self):
        return self.distilled.startswith("yes")

    @property
    def offered(self):
        return [style for style in STYLES if style == PUBLISHED or style in self.styles]

    def may_be(self, config):
        """Whether a model with this config of the host may be of this family."""
        has = getattr(config, "unet_config", {})
        return type(config).__name__ in self.classes and all(
            bool(has.get(key)) == value if isinstance(value, bool) else has.get(key) == value
            for key, value in self.tells.items())

    def setup(self, style):
        """What an offered style comes to."""
        more = self.styles.get(style, {"nodes": [OWN]})
        nodes = []
        for entry in more["nodes"]:
            found, source = (self.nodes, 1) if entry == OWN else ([entry], 2)
            nodes += [Sourced(kind, knobs, source) for kind, knobs in found]
        changed = more.get("settings", {})
        settings = [Sourced(name, value, 1) for name, value in self.settings.items() if name not in changed]
        settings += [Sourced(name, value, 2) for name, value in changed.items()]
        return Setup(nodes, settings, [self.source, *([more["source"]] if "source" in more else [])])


@cache
def families():
    """All rows by name, in the order of the table: of those that a model may be, the first is the likeliest."""
    table = json.loads(FILE.read_text(encoding="utf-8"))
    rows = {}
    for row in table["families"]:
        styles = {style: table["styles"][key] for style, key in row.pop("styles", {}).items()}
        source = row.pop("source")
        if source.endswith(".json"):
            source = f"templates/{source} in {table['templates']}"
        rows[row["name"]] = Family(**row, styles=styles, source=source)
    return rows


def candidates(config):
    """The families that a model with this config of the host may be."""
    return [family for family in families().values() if family.may_be(config)]
