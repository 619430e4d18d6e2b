"""Generating a video through its keyframes."""


def __getattr__(name: str) -> object:
    # What `runtime.record` and `runtime.launchers` ask a job for; whoever reads settings of a command line passes by.
    if name in ("load_run", "work"):
        from wanedit.jobs.generate import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
