"""A real ComfyUI with its own page, in Debian's Chromium, once in each renderer.

GUIDANCE_FRONTEND=1.58.1 tests another frontend of that version, GUIDANCE_SCREENSHOTS=folder keeps the pictures.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

DEV = Path(__file__).parent.parent.parent / "dev.py"
spec = importlib.util.spec_from_file_location("dev", DEV)
dev = importlib.util.module_from_spec(spec)
spec.loader.exec_module(dev)

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FRONTEND = os.environ.get("GUIDANCE_FRONTEND")


def missing():
    if "GUIDANCE_HOST" not in os.environ:
        return "needs the host: run `python3 dev.py test`"
    if CHROMIUM is None:
        return "needs Chromium: apt-get install chromium"
    if importlib.util.find_spec("playwright") is None:
        return "needs playwright: run `python3 dev.py test`"
    return None


class Server(dev.Server):
    """The page's own settings and, if asked for, another version of the page."""

    def flags(self):
        return super().flags() + (["--front-end-root", str(frontend(FRONTEND))] if FRONTEND else [])


def frontend(version):
    folder = dev.cache() / f"frontend-{version}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=dev.cache()) as work:
            subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", work,
                            f"comfyui_frontend_package=={version}"], check=True)
            shutil.unpack_archive(next(Path(work).glob("*.whl")), Path(work, "unpacked"), "zip")
            Path(work, "unpacked").rename(folder)
    return folder / "comfyui_frontend_package" / "static"


@pytest.fixture(scope="session")
def server():
    if missing():
        if os.environ.get("CI"):
            pytest.fail(missing())
        pytest.skip(missing())
    with Server(Path(os.environ["GUIDANCE_HOST"]), sys.executable) as running:
        yield running


@pytest.fixture(scope="session")
def browser(server):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="session", params=["classic", "nodes2"])
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
    open_page(page, server)
    yield page
    context.close()


def open_page(page, server):
    page.goto(server.address)
    ready(page)
    assert page.evaluate("!!LiteGraph.vueNodesMode") is (page.renderer == "nodes2")


def ready(page):
    page.wait_for_function("""() => window.app?.extensionManager && window.LiteGraph?.registered_node_types?.GuidanceSchedule
        && window.app.extensions.some(e => e.name === 'guidance.schedule') && window.app.canvas?.graph""", timeout=60000)
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
