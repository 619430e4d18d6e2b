"""`wanedit board`: a page in the browser to make and watch runs with."""

import importlib.util
import sys

from jsonargparse import Namespace

from wanedit.commands.support import Parser, new_parser
from wanedit.errors import InputError
from wanedit.files import at_home

HELP = "a page in the browser: keyframes on a time line, what it costs, the film"
ORDER = 6


def parser() -> Parser:
    """Its flags."""
    made = new_parser(
        "Open a page in the browser that makes films from pictures and edits videos: drop them, drag pictures along "
        "the time line, see what a run will cost, start it, watch it, change one part. Its runs are those of the "
        "command line."
    )
    made.add_argument(
        "run",
        nargs="?",
        type=str,
        default="outputs",
        help="a run's folder, there or not yet; or the folder of several",
    )
    made.add_argument(
        "--host",
        type=str,
        default="127.0.0.1",
        help="address to listen at; of another machine's, with a token",
    )
    made.add_argument("--port", type=int, default=7860, help="port to listen at; 0 for a free one")
    made.add_argument("--open", action="store_true", help="open the page in this machine's browser")
    made.add_argument("--quiet", action="store_true", help="print the address alone")
    return made


def run(settings: Namespace) -> int:
    """Serve the page until Ctrl-C. Returns the exit code."""
    if not 0 <= settings.port < 65536:
        raise InputError(f"port is {settings.port}; expected 0 to 65535")
    if importlib.util.find_spec("gradio") is None:
        raise InputError("the board needs Gradio: pip install 'wanedit[board]'")
    root = at_home(settings.run).absolute()
    if root.exists() and not root.is_dir():
        raise InputError(f"run: {root} is a file; expected the folder of a run, or of several")
    if not settings.quiet:
        print("the board is starting …", file=sys.stderr, flush=True)
    from wanedit.board.server import serve
    from wanedit.board.session import Session, is_run

    # One run, if it is one, or is named and not yet there.
    several = (root.is_dir() and not is_run(root)) or root.name == "outputs"
    session = Session(root) if several else Session(root.parent, root.name)

    def opened(address: str) -> None:
        print(address, flush=True)
        if not settings.quiet:
            print("Ctrl-C ends the board; a run that it started goes on.", flush=True)
        if settings.open:
            import webbrowser

            webbrowser.open(address)

    serve(session, settings.host, settings.port, opened)
    return 0
