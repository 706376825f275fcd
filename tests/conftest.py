"""Load the pack as ComfyUI does: by file, under a name of its own, and never through sys.path."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

spec = importlib.util.spec_from_file_location("pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
sys.modules["pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["pack"])

if "GUIDANCE_HOST" in os.environ:  # set by dev.py; without it only the pure tests can run
    from comfy.cli_args import args

    args.cpu = True
    args.disable_api_nodes = True


def pytest_collection_modifyitems(items):
    """A skipped host test proves nothing: in CI it is a failure."""
    if os.environ.get("CI"):
        for item in items:
            item.own_markers = [mark for mark in item.own_markers if mark.name not in ("skip", "skipif")]


@pytest.fixture(autouse=True)
def same_randomness():
    import torch

    torch.manual_seed(0)
