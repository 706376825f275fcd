"""What a Dask worker runs. It is sent as it stands, so it imports nothing of the pack before it has loaded it."""


def run(pack, path, job):
    """The result of a job given as plain tuples. pack: the pack's folder; path: where Python finds ComfyUI."""
    import runpy
    import sys
    if "pack" not in sys.modules:
        sys.path[:] = list(dict.fromkeys([*path, *sys.path]))
        tools = runpy.run_path(f"{pack}/lab/__main__.py")  # its way to host and pack
        tools["load_host"]()
        tools["load_pack"]()
        import comfy.utils
        comfy.utils.set_progress_bar_enabled(False)
    from pack.lab.pareto.grid import Point
    from pack.lab.pareto.jobs import Job, Setup, compute
    setup, point, first = job
    return compute(Job(Setup(*setup), Point(*point), first))
