"""Editing a video through its edited keyframes."""


def __getattr__(name: str) -> object:
    # What `runtime.record.read_run` asks for; whoever reads the settings of a command line passes by.
    if name == "load_run":
        from wanedit.jobs.edit.run import load_run

        return load_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
