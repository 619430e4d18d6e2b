"""One of the processes that `run_workers` starts: samples its share of a recorded run, and no more."""

import sys
from pathlib import Path

from wanedit.errors import WaneditError
from wanedit.files import system_errors
from wanedit.interrupts import Interrupted, interruptible
from wanedit.jobs.generate.config import GenerationConfig
from wanedit.jobs.generate.plan import make_plan, remaining
from wanedit.jobs.generate.run import sample
from wanedit.runtime import launch
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.events import progress_bars
from wanedit.runtime.record import read_settings, recorded_config
from wanedit.runtime.settings import canonical
from wanedit.runtime.workers import report_error


def main(config_path: str, talk: str = "--verbose", takes: str = "", bridge_takes: str = "") -> int:
    """Sample what the run at `config_path`, with these takes, still lacks, together with the other ranks."""
    path = Path(config_path)
    record = canonical(read_settings(path))
    config = recorded_config(
        GenerationConfig, record | {"takes": takes, "bridge_takes": bridge_takes}, path.parent
    )
    directory = RunDirectory(config.folder, config.final_path)
    world = launch.current_world()
    launch.join(world)
    try:
        with (
            system_errors(),
            interruptible(),
            progress_bars(talk == "--verbose" and world.rank == 0),
            directory.queue.working(),
        ):
            plan = make_plan(config)
            # They meet at every stage in Lightning's set-up: all have the same ones.
            todo = launch.on_rank_zero(world, lambda: remaining(plan, directory))
            sample(plan, todo, directory, world, verbose=False)
    except WaneditError as error:
        # That another rank was lost is told by torchrun, which knows how.
        if not error.told:
            report_error(path, world.rank, error)
        return error.exit_code
    except Interrupted as signal:
        return signal.exit_code
    finally:
        launch.leave(world)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
