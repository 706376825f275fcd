"""A real ComfyUI with its own page, in Debian's Chromium, once in each renderer.

Tests marked with newer_page run on a newer page as well: what depends on how the page works, and not only on the editor.
GUIDANCE_FRONTEND=1.58.1 runs all of them on that release of the page, GUIDANCE_SCREENSHOTS=folder keeps the pictures.
"""

import os
import sys
from pathlib import Path

import pytest
from pack.tests.e2e.browser import ALSO, CHROMIUM, PAGES, Server, missing, ready


def pytest_configure(config):
    config.addinivalue_line("markers", "newer_page: also on a newer page than the host's own")


def pytest_generate_tests(metafunc):
    if "server" in metafunc.fixturenames:
        pages = PAGES + (ALSO if metafunc.definition.get_closest_marker("newer_page") else [])
        metafunc.parametrize("server", pages, indirect=True, scope="module", ids=lambda page: page or "own")


@pytest.fixture(scope="module")
def server(request):
    if missing():
        if os.environ.get("CI"):
            pytest.fail(missing())
        pytest.skip(missing())
    with Server(Path(os.environ["GUIDANCE_HOST"]), sys.executable, page=request.param) as running:
        yield running


@pytest.fixture(scope="module")
def browser(server):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


def ours(said):
    """A warning or an error that comes from the pack's scripts or speaks of them."""
    return said.type in ("warning", "error") and "guidance" in f"{said.text} {said.location}".lower()


@pytest.fixture(scope="module", params=["classic", "nodes2"])
def page(request, server, browser):
    """The page in one renderer; the same one for all tests of that renderer."""
    settings = {"Comfy.VueNodes.Enabled": request.param == "nodes2", "Comfy.TutorialCompleted": True,
                "Comfy.Workflow.WarnUnsavedOnClose": False, "Comfy.ColorPalette": "dark"}
    server.post("/api/settings", settings)
    context = browser.new_context(viewport={"width": 1400, "height": 900}, permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.renderer = request.param
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda said: page.errors.append(said.text) if ours(said) else None)
    page.goto(server.address)
    ready(page)
    assert page.evaluate("!!LiteGraph.vueNodesMode") is (page.renderer == "nodes2")
    yield page
    context.close()
