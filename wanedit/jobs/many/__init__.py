"""Many videos by one command: each is a run of its own, which any mix of processes pulls."""


def __getattr__(name: str) -> object:
    # What `runtime.launchers` asks a job for; whoever reads the settings of a command line passes by.
    if name == "work":
        from wanedit.jobs.many import run

        return run.work
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
