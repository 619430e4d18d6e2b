"""`wanedit calibrate`: measure a model for the cache magcache."""

from pathlib import Path

from jsonargparse import Namespace

from wanedit.commands.support import Parser, new_parser, unpack
from wanedit.errors import InputError
from wanedit.jobs.generate.config import GenerationConfig, find_keyframes

HELP = "measure a model for the cache magcache"
ORDER = 10


def parser() -> Parser:
    """Its flags."""
    made = new_parser(
        "Sample the first segment of a generation once, with every step computed, and write how large the network's "
        "residual was at every noise level: the table that --cache magcache reads. One is enough for a model, whatever "
        "the keyframes, the number of steps and the shift. What comes after sampling is neither done nor written.",
        GenerationConfig,
    )
    made.add_argument(
        "--table", type=str, default="", help="where it is written; else beside the model's files"
    )
    made.add_argument("--quiet", action="store_true", help="no messages, no progress bar")
    return made


def run(settings: Namespace) -> int:
    """Measure. Returns the exit code."""
    values, folders = unpack(settings)
    table, quiet = values.pop("table"), values.pop("quiet")
    config = GenerationConfig(**values)
    if not config.keyframes:
        raise InputError(
            'no keyframes; expected --keyframes "a.png:0.0,b.png:3.0" or keyframes in a --config file'
        )
    if table and not (Path(table).suffix == ".json" and Path(table).parent.is_dir()):
        raise InputError(f"table is {table}; expected a .json file in a folder that is there")
    find_keyframes(config, folders)
    from wanedit.jobs.generate.calibrate import calibrate

    made = calibrate(config, Path(table) if table else None, folders, verbose=not quiet)
    if not quiet:
        print(f"{made}: read by --cache magcache" + f" --cache_options.table {made}" * bool(table))
    return 0
