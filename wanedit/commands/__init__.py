"""One command of `wanedit`, one file: HELP, KEYS, `parser()` and `run(settings)`; nothing heavy before `run`.

A command is listed once, in COMMANDS, in the order in which `wanedit --help` shows it.
"""

from types import ModuleType

from wanedit.commands import ablate, doctor, edit, evaluate, generate, models, report, style

COMMANDS: dict[str, ModuleType] = {
    "generate": generate,
    "style": style,
    "edit": edit,
    "evaluate": evaluate,
    "ablate": ablate,
    "report": report,
    "models": models,
    "doctor": doctor,
}
