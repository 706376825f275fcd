"""A real ComfyUI with its own page, in Debian's Chromium, once in each renderer.

GUIDANCE_FRONTEND=1.58.1 tests that release of the page instead, GUIDANCE_SCREENSHOTS=folder keeps the pictures.
"""

import os
import sys
from pathlib import Path

import pytest
from pack.tests.e2e.browser import CHROMIUM, Server, missing, ready


@pytest.fixture(scope="module")
def server():
    if missing():
        if os.environ.get("CI"):
            pytest.fail(missing())
        pytest.skip(missing())
    with Server(Path(os.environ["GUIDANCE_HOST"]), sys.executable) as running:
        yield running


@pytest.fixture(scope="module")
def browser(server):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


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
    page.goto(server.address)
    ready(page)
    assert page.evaluate("!!LiteGraph.vueNodesMode") is (page.renderer == "nodes2")
    yield page
    context.close()
