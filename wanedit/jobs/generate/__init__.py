"""Generating a video through its keyframes."""


def __getattr__(name: str) -> object:
    # What `runtime.record.read_run` asks for; whoever reads the settings of a command line passes by.
    if name == "load_run":
        from wanedit.jobs.generate.run import load_run

        return load_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
