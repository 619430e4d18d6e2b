"""The command line: typed functions of run/, `--config FILE` overlays, short errors, stable exit codes."""

import difflib
import itertools
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from wanedit.errors import InputError, WaneditError

USAGE_EXIT = 2
INTERRUPT_EXIT = 130
MAX_ERROR_LINES = 8


class _UsageError(Exception):
    pass


def build_parser() -> Any:
    """The parser of `wanedit`; needs jsonargparse and nothing heavier."""
    from jsonargparse import ArgumentParser

    from wanedit import __version__

    parser = ArgumentParser(
        prog="wanedit",
        description="Training-free long-video generation and editing on Wan video models.",
        version=__version__,
        exit_on_error=False,
        allow_abbrev=False,
    )
    commands = parser.add_subcommands(dest="command", required=True)
    commands.add_subcommand("generate", _generate_parser(), help="a long video through timed keyframes")
    commands.add_subcommand("edit", _edit_parser(), help="an edited video from edited keyframes")
    commands.add_subcommand("evaluate", _evaluate_parser(), help="measure a finished video")
    commands.add_subcommand(
        "models", _models_parser(), help="list known models; check their layout or a folder"
    )
    return parser


def _generate_parser() -> Any:
    from jsonargparse import ArgumentParser

    from wanedit.run.config import GenerationConfig

    parser = ArgumentParser(
        exit_on_error=False,
        allow_abbrev=False,
        description="Make one long video through timed keyframes. An interrupted run resumes by itself: run it again.",
    )
    parser.add_argument("--config", action="config", help="YAML file of settings; repeatable, later ones win")
    parser.add_class_arguments(GenerationConfig, as_group=False)
    _add_run_flags(parser)
    return parser


def _edit_parser() -> Any:
    from jsonargparse import ArgumentParser

    from wanedit.run.edit_config import EditConfig

    parser = ArgumentParser(
        exit_on_error=False,
        allow_abbrev=False,
        description="Edit a video: its edited keyframes are spread over all of it. Methods: residual_corrected, "
        "sdedit, flowedit, flowalign, rf_inversion, first_frame, flf2v, hard_replacement, copy_source, warp.",
    )
    parser.add_argument("--config", action="config", help="YAML file of settings; repeatable, later ones win")
    parser.add_argument(
        "source", nargs="?", type=str, default="", help="the same as --video, over which it wins"
    )
    parser.add_class_arguments(EditConfig, as_group=False)
    _add_run_flags(parser)
    return parser


def _evaluate_parser() -> Any:
    from jsonargparse import ArgumentParser

    from wanedit.run.evaluate_config import EvaluationConfig

    parser = ArgumentParser(
        exit_on_error=False,
        allow_abbrev=False,
        description="Measure a video: its joins, its consistency in time, and what it is to a reference, a mask and "
        "keyframes. What cannot be measured is named with the reason.",
    )
    parser.add_argument("--config", action="config", help="YAML file of settings; repeatable, later ones win")
    parser.add_argument(
        "source", nargs="?", type=str, default="", help="the same as --video, over which it wins"
    )
    parser.add_class_arguments(EvaluationConfig, as_group=False)
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    return parser


def _add_run_flags(parser: Any) -> None:
    _allow_bare_flags(parser)
    parser.add_argument("--dry_run", action="store_true", help="print the plan and stop")
    parser.add_argument("--verbose", action="store_true", help="print the plan, then run")
    parser.add_argument("--quiet", action="store_true", help="no messages, no progress bar")


def _allow_bare_flags(parser: Any) -> None:
    """`--t5_cpu` means `--t5_cpu true`, which jsonargparse alone does not offer for typed fields."""
    for action in parser._actions:
        if getattr(action, "_typehint", None) in (bool, bool | None):
            action.nargs, action.const = "?", True


def _models_parser() -> Any:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(
        exit_on_error=False,
        allow_abbrev=False,
        description="List the models that wanedit knows. `check` builds each on the meta device and compares its "
        "layout hash with the published one; `check FOLDER` compares the files of a folder with its own configs.",
    )
    parser.add_argument("action", nargs="?", choices=["list", "check"], default="list", help="list or check")
    parser.add_argument(
        "folder", nargs="?", default=None, help="a folder in the official layout, or a known name"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code (0 done, 2 usage or input, 3 weights, 4 resources, 5 service, 1 other)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(argv)
    except _UsageError as error:
        _complain(str(error))
        return USAGE_EXIT
    except WaneditError as error:
        _complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _complain("interrupted before anything was sampled")
        return INTERRUPT_EXIT
    except BrokenPipeError:
        # The reader of our output left (`wanedit models | head`): nothing to tell it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(argv: list[str]) -> int:
    settings = _parse(argv)
    command: Callable[[Any], int] = {
        "generate": _generate,
        "edit": _edit,
        "evaluate": _evaluate,
        "models": _models,
    }[settings.command]
    return command(settings[settings.command])


def _parse(argv: list[str]) -> Any:
    from jsonargparse import ArgumentError

    parser = build_parser()
    try:
        return parser.parse_args(_configs_first(argv) or ["--help"])
    except ArgumentError as error:
        raise _UsageError(_shortened(str(error), _valid_keys(argv))) from None
    except UnicodeDecodeError as error:
        raise _UsageError(f"a --config file is not UTF-8 text ({error.reason}); expected YAML") from None


def _configs_first(argv: list[str]) -> list[str]:
    """Flags win over files wherever they stand: `--config FILE` pairs are moved to the front, in their order."""
    files, rest, words = [], [], iter(argv[1:])
    for word in words:
        if word == "--config":
            files += [word, *itertools.islice(words, 1)]
        else:
            (files if word.startswith("--config=") else rest).append(word)
    return [*argv[:1], *files, *rest]


def _valid_keys(argv: list[str]) -> list[str]:
    from wanedit.run.config import GenerationConfig
    from wanedit.run.edit_config import EditConfig
    from wanedit.run.evaluate_config import EvaluationConfig

    kinds = {"generate": GenerationConfig, "edit": EditConfig, "evaluate": EvaluationConfig}
    kind = kinds.get(argv[0]) if argv else None
    if kind is not None:
        return [*kind.__dataclass_fields__, "config", "dry_run", "verbose", "quiet"]
    return ["generate", "edit", "evaluate", "models", "check"]


def _shortened(message: str, valid: Sequence[str]) -> str:
    """The cause in few lines, with the nearest valid key where a key is wrong."""
    union = re.search(r'key "([\w.]+)".*Subtypes: \[(.*?)\]\n.*Given value: (.*)', message, re.DOTALL)
    if union:
        kinds = " or ".join(_in_words(kind) for kind in re.split(r", (?=<class|typing)", union[2]))
        return f"{union[1]} is {union[3].strip()!r}; expected {kinds}"
    plain = re.search(r'key "([\w.]+)":\s*Expected an? (.*?)\. Got value: (.*)', message, re.DOTALL)
    if plain:
        return f"{plain[1]} is {plain[3].strip()!r}; expected {_in_words(plain[2])}"
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    text = "\n".join(lines[:MAX_ERROR_LINES])
    wrong = re.findall(
        r"--([A-Za-z_][\w.-]*)|option '([\w.-]+)'|[Kk]ey '([\w.-]+)'|choice: '([\w.-]+)'", message
    )
    for word in dict.fromkeys(next(filter(None, groups)) for groups in wrong):
        near = difflib.get_close_matches(word.replace("-", "_"), valid, n=1, cutoff=0.5)
        if word not in valid and near:
            return f"{text}\nDid you mean {near[0]!r}?"
    return text


def _in_words(kind: str) -> str:
    """A type as jsonargparse prints it."""
    names = {
        "float": "a number",
        "int": "an integer",
        "bool": "true or false",
        "dict": "a mapping",
        "str": "text",
        "NoneType": "null",
    }
    literal = re.search(r"Literal\[(.*)\]", kind)
    if literal:
        return "one of " + literal[1].replace("'", "")
    name = re.sub(r"<class '(\w+)'>", r"\1", kind)
    return names.get(name, name)


def _complain(message: str) -> None:
    print(f"wanedit: {message}", file=sys.stderr)


def _generate(settings: Any) -> int:
    from wanedit.run.config import GenerationConfig

    values = settings.as_dict()
    files = [Path(str(getattr(path, "relative", path))) for path in values.pop("config", None) or []]
    dry_run, verbose, quiet = (values.pop(name) for name in ("dry_run", "verbose", "quiet"))
    config = GenerationConfig(**values)
    if not config.keyframes:
        raise InputError(
            'no keyframes; expected --keyframes "a.png:0.0,b.png:3.0" or keyframes in a --config file'
        )
    folders = [file.parent for file in files]
    if dry_run:
        from wanedit.run.report_plan import print_plan

        print_plan(config, folders)
        return 0
    return run_generate(config, folders, "quiet" if quiet else "plan" if verbose else "progress")


def run_generate(config: Any, folders: list[Path], talk: str) -> int:
    """Generate; interrupted, print how to resume. Returns the exit code."""
    from wanedit.run import launch
    from wanedit.run.generate import generate

    try:
        result = generate(config, folders, verbose=talk != "quiet", full_plan=talk == "plan")
    except launch.Interrupted as signal:
        _complain(
            f"{signal}: finished segments are kept in {config.folder}. Resume with:\n  {_command_again()}"
        )
        return signal.exit_code
    if talk != "quiet" and launch.current_world().rank == 0:
        print(f"{result.video}: {result.num_frames} frames, keyframes at {list(result.keyframe_frames)}")
    return 0


def _edit(settings: Any) -> int:
    from wanedit.run.edit_config import EditConfig

    values = settings.as_dict()
    files = [Path(str(getattr(path, "relative", path))) for path in values.pop("config", None) or []]
    dry_run, verbose, quiet = (values.pop(name) for name in ("dry_run", "verbose", "quiet"))
    values["video"] = values.pop("source") or values["video"]
    config, folders = EditConfig(**values), [file.parent for file in files]
    if dry_run or verbose:
        from wanedit.run.report_edit import print_edit_plan

        print_edit_plan(config, folders)
    return 0 if dry_run else run_edit(config, folders, quiet)


def run_edit(config: Any, folders: list[Path], quiet: bool) -> int:
    """Edit; interrupted, print how to do it again. Returns the exit code."""
    from wanedit.run import launch
    from wanedit.run.edit import edit

    try:
        result = edit(config, folders, verbose=not quiet)
    except launch.Interrupted as signal:
        _complain(
            f"{signal}: nothing partial is left in {config.folder}. Edit again with:\n  {_command_again()}"
        )
        return signal.exit_code
    if not quiet:
        print(f"{result.video}: {result.num_frames} frames, keyframes at {list(result.keyframe_indices)}")
    return 0


def _evaluate(settings: Any) -> int:
    from wanedit.run.evaluate import evaluate, write
    from wanedit.run.evaluate_config import EvaluationConfig
    from wanedit.run.report_evaluation import print_evaluation

    values = settings.as_dict()
    files = [Path(str(getattr(path, "relative", path))) for path in values.pop("config", None) or []]
    quiet = values.pop("quiet")
    values["video"] = values.pop("source") or values["video"]
    config = EvaluationConfig(**values)
    result = evaluate(config, [file.parent for file in files])
    if not quiet:
        print_evaluation(result)
    if config.output is not None:
        write(result, Path(config.output).expanduser())
    return 0


def _command_again() -> str:
    import shlex

    started = Path(sys.argv[0])
    names = {"wanedit": "wanedit", "__main__": f"{shlex.quote(sys.executable)} -m wanedit"}
    program = names.get(started.stem, f"{shlex.quote(sys.executable)} {shlex.quote(str(started))}")
    return " ".join([program, *map(shlex.quote, sys.argv[1:])])


def _models(settings: Any) -> int:
    from wanedit.run.models import check_models, list_models

    if settings.action == "check":
        return check_models(settings.folder)
    return list_models()


def entry() -> NoReturn:
    """The console script."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
