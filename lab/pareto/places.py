"""Where jobs are run: in this process, on a Dask cluster, or on ComfyUI servers. Each yields (job, result) as they come, in
any order, and what is lost with a worker or a server is run again by another. A job that a node refuses has its ValueError
as its result."""
import queue
import runpy
import sys
import threading
from itertools import islice
from pathlib import Path

from .jobs import PACK, compute, judged
from .servers import Lost, Server


def here(jobs):
    for job in jobs:
        yield job, outcome(compute, job)


def outcome(run, *given):
    try:
        return run(*given)
    except ValueError as refusal:
        return refusal


# ---------------------------------------------------------------------------------------------- Dask

def on_dask(jobs, workers=2, scheduler=None):
    """On a cluster at an address, whose workers see this folder and ComfyUI where this process does; else on processes of
    this machine."""
    import dask
    import distributed

    # As the main program's, it is sent whole: before it has run, workers have no package "pack" to find it in.
    remote = runpy.run_path(str(Path(__file__).with_name("remote.py")), run_name="__main__")
    # Dask has its workers give memory back at every turn. A model takes it again at every layer, in half of all its time.
    kept = {f"distributed.nanny.pre-spawn-environ.MALLOC_{what}_THRESHOLD_": 1 << 30 for what in ("TRIM", "MMAP")}
    with dask.config.set(kept):
        cluster = scheduler or distributed.LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)
    with distributed.Client(cluster) as client:
        try:
            yield from followed(client, remote["run"], iter(jobs), distributed.as_completed)
        finally:
            if scheduler is None:
                cluster.close()


def followed(client, run, jobs, as_completed):
    """Results of jobs of which the cluster has two for each of its threads at a time, so that none waits for the next."""
    sent, futures = {}, as_completed()

    def send(count):
        for job in islice(jobs, count):
            plain = (tuple(job.setup), tuple(job.point), job.first)  # of types that a new worker knows
            future = client.submit(run, str(PACK), sys.path, plain, key=job.name, pure=False)
            sent[future.key] = job
            futures.add(future)

    send(2 * max(1, sum(client.nthreads().values())))
    for future in futures:
        yield sent.pop(future.key), outcome(future.result)
        send(1)


# ---------------------------------------------------------------------------------------------- servers

def on_servers(jobs, addresses):
    """On ComfyUI servers, each of which takes the next job when it is done with one. The pictures are judged here."""
    waiting, told = queue.SimpleQueue(), queue.SimpleQueue()
    for address in addresses:
        threading.Thread(target=serve, args=(Server(address), waiting, told), daemon=True).start()
    jobs, running = iter(jobs), len(addresses)
    sent = list(islice(jobs, 2 * running))  # so that none waits for the next
    left = len(sent)
    while left:
        for job in sent:
            waiting.put(job)
        job, result = told.get()
        if isinstance(result, Lost):
            sent, running = [job], running - 1
            print(f"{result}; {running} of {len(addresses)} servers are left.", file=sys.stderr)
            if not running:
                raise result
        elif isinstance(result, Exception) and not isinstance(result, ValueError):
            raise result
        else:
            yield job, result if isinstance(result, ValueError) else judged(job, result)
            sent = list(islice(jobs, 1))
            left += len(sent) - 1
    for _ in addresses:
        waiting.put(None)


def serve(server, waiting, told):
    """One server's jobs, until there are none or it is lost."""
    while (job := waiting.get()) is not None:
        try:
            told.put((job, outcome(server.draw, job)))
        except Lost as lost:
            told.put((job, lost))
            return
        except Exception as error:  # which the caller is to see
            told.put((job, error))
            return
