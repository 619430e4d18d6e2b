"""One command of `wanedit`, one file: HELP, KEYS, `parser()` and `run(settings)`; nothing heavy before `run`.

A command is listed once, in COMMANDS, in the order in which `wanedit --help` shows it.
"""

from types import ModuleType

from wanedit.commands import edit, evaluate, generate, models

COMMANDS: dict[str, ModuleType] = {
    "generate": generate,
    "edit": edit,
    "evaluate": evaluate,
    "models": models,
}
