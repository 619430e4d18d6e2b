"""`wanedit models`: what is known, and proof that it is known rightly."""

from jsonargparse import Namespace

from wanedit.commands.support import Parser, new_parser
from wanedit.errors import MissingWeightsError
from wanedit.runtime.events import wide_console

HELP = "list known models; check their layout or a folder"
ORDER = 8


def parser() -> Parser:
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


def run(settings: Namespace) -> int:
    """List or check. Returns the exit code."""
    return check_models(settings.folder) if settings.action == "check" else list_models()


def list_models() -> int:
    """Print the known models and whether each is on this machine."""
    from rich.table import Table

    from wanedit.wan.catalog import KNOWN_MODELS, locate
    from wanedit.wan.load import open_wan

    table = Table(title="Known models", title_justify="left")
    for column in ("name", "kind", "sizes", "steps", "shift", "guidance", "published as", "here"):
        table.add_column(column, overflow="fold")
    for model in KNOWN_MODELS:
        sampling = model.sampling if not model.bundled else open_wan(model.name).sampling
        config = model.config
        try:
            where = "bundled" if model.bundled else str(locate(model.name))
        except MissingWeightsError:
            where = "no"
        table.add_row(
            model.name,
            config.model_type + ("" if config.image_tokens or config.model_type == "t2v" else ", no CLIP"),
            f"{config.num_layers} x {config.dim}",
            str(sampling.num_inference_steps),
            f"{sampling.shift:g}",
            f"{sampling.guidance_scale:g}",
            model.repository,
            where,
        )
    wide_console().print(table)
    return 0


def check_models(folder: str | None) -> int:
    """Check a folder against its own configs or, without one, every known layout against its published hash.

    Returns:
        0 when everything fits, else the exit code of missing weights.
    """
    from rich.table import Table

    from wanedit.wan.catalog import KNOWN_MODELS, locate

    if folder is not None:
        locate(folder)  # before torch is imported
    from wanedit.wan.layout import check_folder, check_known

    if folder is not None:
        checks = check_folder(folder)
    else:
        checks = [check for model in KNOWN_MODELS if not model.bundled for check in check_known(model)]
        checks += check_folder("tiny")
    table = Table()
    for column in ("model", "part", "layout", "published", "result"):
        table.add_column(column, overflow="fold")
    for check in checks:
        result = "ok" if check.ok else check.problem or ""
        if check.num_bytes:
            result += f" ({check.num_bytes / 1e6:.1f} MB)"
        row = (check.model, check.part, check.layout[:12], (check.published or "-")[:12], result)
        table.add_row(*row, style=None if check.ok else "red")
    console = wide_console()
    console.print(table)
    failed = [check for check in checks if not check.ok]
    console.print(f"{len(checks) - len(failed)} of {len(checks)} parts fit")
    return MissingWeightsError.exit_code if failed else 0
