"""Experiments: every run of a grid, and what it shows."""


def __getattr__(name: str) -> object:
    # What `runtime.launchers` asks a job for; whoever reads the settings of a command line passes by.
    if name == "work":
        from wanedit.jobs.ablate import run

        return run.work
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
