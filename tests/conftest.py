"""Load the pack as ComfyUI does: by file, under a name of its own, and never through sys.path."""

import gc
import importlib.util
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parent.parent

spec = importlib.util.spec_from_file_location("pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
sys.modules["pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["pack"])

if "GUIDANCE_HOST" in os.environ:  # set by dev.py; without it only the pure tests can run
    from comfy.cli_args import args

    args.cpu = True
    args.disable_api_nodes = True


@pytest.fixture(scope="module", autouse=True)
def little_to_look_through():
    """The host collects garbage whenever a model is gone, and each time looks through all that was ever imported,
    which takes ten times as long as a test once torch.compile is among it. What is there already stays out of that."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session):
    """A skipped test proves nothing: in CI it fails the run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")  # parallel workers have none
    if os.environ.get("CI") and reporter and reporter.stats.get("skipped") and session.exitstatus == 0:
        session.exitstatus = 1
        reporter.write_line("Skipped tests fail this run, because CI is set.", red=True)


@pytest.fixture(autouse=True)
def same_randomness():
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def server():
    """A ComfyUI with this pack, and with the nodes of the hard tests: one for all tests of the group "server"."""
    from pack.lab.hard.host import Host

    with Host() as server:
        yield server


@pytest.fixture(scope="session")
def demo():
    """The bundled model, and what tests ask of it."""
    import torch
    from pack.nodes.demo.model import load

    model, clip, vae = load()
    return SimpleNamespace(
        model=model, clip=clip, vae=vae,
        encode=lambda text: clip.encode_from_tokens_scheduled(clip.tokenize(text)),
        noise=lambda n: torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(4)),
    )
