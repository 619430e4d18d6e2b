"""`wanedit models`: what is known, and proof that it is known rightly."""

from typing import Any

from wanedit.commands.support import new_parser

HELP = "list known models; check their layout or a folder"
KEYS = ["list", "check"]


def parser() -> Any:
    """Its flags."""
    made = new_parser(
        "List the models that wanedit knows. `check` builds each on the meta device and compares its "
        "layout hash with the published one; `check FOLDER` compares the files of a folder with its own configs."
    )
    made.add_argument("action", nargs="?", choices=["list", "check"], default="list", help="list or check")
    made.add_argument(
        "folder", nargs="?", default=None, help="a folder in the official layout, or a known name"
    )
    return made


def run(settings: Any) -> int:
    """List or check. Returns the exit code."""
    from wanedit.commands.list_models import check_models, list_models

    return check_models(settings.folder) if settings.action == "check" else list_models()
