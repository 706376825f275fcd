"""A real ComfyUI with its own page, or with another release of it, and what it takes to look at it."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

DEV = Path(__file__).parent.parent.parent / "dev.py"
spec = importlib.util.spec_from_file_location("dev", DEV)
dev = importlib.util.module_from_spec(spec)
spec.loader.exec_module(dev)

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NEWER = "1.58.1"  # a page that the host does not pin yet, and that people may have
# The pages that every test sees, and those that only the tests marked with newer_page see as well.
PAGES, ALSO = ([os.environ["GUIDANCE_FRONTEND"]], []) if os.environ.get("GUIDANCE_FRONTEND") else ([None], [NEWER])


def missing():
    if "GUIDANCE_HOST" not in os.environ:
        return "needs the host: run `python3 dev.py test`"
    if CHROMIUM is None:
        return "needs Chromium: apt-get install chromium"
    if importlib.util.find_spec("playwright") is None:
        return "needs playwright: run `python3 dev.py test`"
    return None


class Server(dev.Server):
    """With the host's own page, or with the release of it that is named."""

    def __init__(self, *given, page=None, **named):
        super().__init__(*given, **named)
        self.page = page

    def flags(self):
        return super().flags() + (["--front-end-root", str(frontend(self.page))] if self.page else [])


def frontend(version):
    folder = dev.cache() / f"frontend-{version}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=dev.cache()) as work:
            subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", work,
                            f"comfyui_frontend_package=={version}"], check=True)
            shutil.unpack_archive(next(Path(work).glob("*.whl")), Path(work, "unpacked"), "zip")
            Path(work, "unpacked").rename(folder)
    return folder / "comfyui_frontend_package" / "static"


def ready(page):
    page.wait_for_function("""() => window.app?.extensionManager && window.LiteGraph?.registered_node_types?.GuidanceSchedule
        && window.app.extensions.some(e => e.name === 'guidance.schedule') && window.app.canvas?.graph""", timeout=60000)
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
