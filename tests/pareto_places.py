"""lab pareto at every place, as a check: python dev.py lab pareto --minutes 0; python dev.py test -s tests/pareto_places.py

A small grid is run in this process, on two Dask processes of which one is killed half-way, and on two ComfyUI servers of
which one is killed half-way. All have to find the same numbers, bit for bit, and draw the same picture. The first command
above is there to install what the second needs.
"""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from pack.lab.pareto import places, run
from pack.tests.test_dev import dev
from pack.tests.test_pareto import settings, small

HOST = Path(os.environ["GUIDANCE_HOST"])
SMALL = dict(strategies=["rescale", "autoguidance"], prompts="36")  # three jobs a point


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("here")
    with pytest.MonkeyPatch.context() as patch:
        small(patch, pictures=True)
        run.report(settings(folder, **SMALL))
    return numbers(folder)


def numbers(folder):
    return {name: (folder / name).read_bytes() for name in ("points.csv", "pareto.svg")}


def test_two_processes_of_a_cluster_of_which_one_is_killed(expected, tmp_path, monkeypatch):
    small(monkeypatch, pictures=True)
    on_dask, killed = places.on_dask, []

    def one_killed(*given):
        for done, found in enumerate(on_dask(*given)):
            if done == 3:
                from distributed import default_client
                processes = default_client().run(os.getpid)
                killed.append(next(iter(processes.values())))
                os.kill(killed[0], signal.SIGKILL)
            yield found

    monkeypatch.setattr(places, "on_dask", one_killed)
    run.report(settings(tmp_path, **SMALL, workers=2))
    assert killed and numbers(tmp_path) == expected


def test_two_servers_of_which_one_is_killed(expected, tmp_path, monkeypatch):
    small(monkeypatch, pictures=True)
    on_servers, killed = places.on_servers, []
    with dev.Server(HOST, sys.executable) as first, dev.Server(HOST, sys.executable) as second:

        def one_killed(*given):
            for done, found in enumerate(on_servers(*given)):
                if done == 3:
                    killed.append(time.monotonic())
                    second.process.kill()
                yield found

        monkeypatch.setattr(places, "on_servers", one_killed)
        run.report(settings(tmp_path, **SMALL, server=[first.address, second.address]))
    assert killed and numbers(tmp_path) == expected
