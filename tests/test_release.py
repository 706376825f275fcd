"""What is published: the archive as the registry makes it, installed in a ComfyUI that has nothing else, and run."""

import ast
import importlib.util
import os
import re
import shutil
import sys
from pathlib import Path, PurePosixPath

import pytest
from pack.lab.demo import classes
from pack.nodes import NODES
from pack.tests.test_example_workflows import EXTRAS, quick
from pathspec import PathSpec

ROOT = Path(__file__).parent.parent
spec = importlib.util.spec_from_file_location("dev", ROOT / "dev.py")
dev = importlib.util.module_from_spec(spec)
spec.loader.exec_module(dev)

NAME = dev.setting("name")
FOLDERS = {"guidance", "nodes", "migration", "web", "locales", "example_workflows"}
BESIDE = {"__init__.py", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"}


@pytest.fixture(scope="module")
def shipped():
    if not (ROOT / ".git").exists():
        pytest.skip("git has to say what belongs to the pack, and this is no checkout")
    return dev.shipped()


def test_what_ships_is_what_runs_and_nothing_else(shipped):
    assert {PurePosixPath(file).parts[0] for file in shipped} == FOLDERS | BESIDE
    pictures = [PurePosixPath(file) for file in shipped if file.endswith((".png", ".jpg"))]
    # Those of help pages and the templates' thumbnails; not those that only the readme shows.
    assert {(str(file.parent), file.suffix) for file in pictures} <= {("web/docs/pictures", ".png"), ("example_workflows", ".jpg")}


def test_the_registrys_own_reading_of_the_list_is_the_same(shipped):
    """comfy-cli asks git what is tracked, and pathspec what is left out."""
    lines = [line for line in (ROOT / ".comfyignore").read_text().splitlines() if line and not line.startswith("#")]
    tracked = dev.subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    left_out = PathSpec.from_lines("gitignore", lines)
    assert [file for file in sorted(tracked) if not left_out.match_file(file)] == shipped


def relative_imports(file):
    """The places that a module takes from the pack, as paths without an ending."""
    for node in ast.walk(ast.parse((ROOT / file).read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            home = PurePosixPath(file).parents[node.level - 1].joinpath(*(node.module or "").split("."))
            yield from [home] if node.module else [home / name.name for name in node.names]


def test_nothing_that_ships_imports_what_does_not(shipped):
    modules = {PurePosixPath(file).with_suffix("") for file in shipped if file.endswith(".py")}
    modules |= {module.parent for module in modules if module.name == "__init__"}
    for file in filter(re.compile(r".*\.py$").match, shipped):
        assert modules.issuperset(relative_imports(file)), file


def test_versions_have_three_numbers_or_the_registry_throws_them_away():
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    asked = [dev.setting("requires-comfyui"), re.search(r'"comfyui-frontend-package(.*?)"', text)[1], dev.setting("version")]
    assert all(re.fullmatch(r"(>=)?\d+\.\d+\.\d+", version) for version in asked), asked


class Installed(dev.Server):
    """A ComfyUI with the archive unpacked into the folder that it has when it comes from the registry."""

    packs = {NAME: ROOT}

    def place_pack(self, place, folder):
        archive = self.base / "pack.zip"
        dev.write_archive(archive)
        shutil.unpack_archive(archive, place)


def test_installed_alone_it_has_every_node_with_its_help_and_runs_a_template(shipped):
    with Installed(Path(os.environ["GUIDANCE_HOST"]), sys.executable) as server:
        ids = {node.GET_SCHEMA().node_id for node in NODES}
        assert ids <= server.get("/object_info")[1].keys()
        assert all(server.get(f"/extensions/{NAME}/docs/{id}.md")[0] == 200 for id in ids)
        assert f"/extensions/{NAME}/js/schedule.js" in server.get("/extensions")[1]
        assert "draw_a_curve" in server.get("/workflow_templates")[1][NAME]
        template = server.base / "custom_nodes" / NAME / "example_workflows" / "draw_a_curve.json"
        outputs = server.run(quick(template, {**classes(), **EXTRAS}))
        assert any(shown.get("images") for shown in outputs.values())


FILLED_IN = dict.fromkeys(dev.OWNERS, "x").get
CHANGES = "# Changes\n\n## 1.2.0 (2026-12-01)\n\n- A new node.\n\n## 1.1.0\n\n- An old one.\n"


def test_a_release_is_told_what_changed_in_it():
    assert dev.changes("v1.2.0", "1.2.0", FILLED_IN, CHANGES) == "- A new node.\n"


@pytest.mark.parametrize("tag, version, known, changes, says", [
    ("v1.2.1", "1.2.0", FILLED_IN, CHANGES, "needs the tag 'v1.2.0'"),
    ("v1.2.0", "1.2.0", dict.fromkeys(dev.OWNERS[1:], "x").get, CHANGES, "before pyproject.toml has PublisherId"),
    ("v1.3.0", "1.3.0", FILLED_IN, CHANGES, "which has to be '1.3.0'"),
    ("v1.3.0", "1.3.0", FILLED_IN, "# Changes\n", "begins with 'no section'"),
], ids=["tag", "owner", "changelog", "empty"])
def test_what_must_not_be_published_is_refused(tag, version, known, changes, says):
    with pytest.raises(dev.Failure, match=re.escape(says)) as failure:
        dev.changes(tag, version, known, changes)
    assert "\n" not in str(failure.value)
