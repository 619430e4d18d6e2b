"""`wanedit models`: what is known, what a file or folder is, proof that it is known rightly, and downloads."""

from pathlib import Path

from jsonargparse import Namespace

from wanedit.commands.support import Parser, new_parser
from wanedit.errors import InputError, MissingWeightsError
from wanedit.files import at_home
from wanedit.runtime.events import wide_console

HELP = "list known models; check one, a file or a LoRA; download one"
ORDER = 8


def parser() -> Parser:
    """Its flags."""
    made = new_parser(
        "List the models that wanedit knows. `check` builds each on the meta device and compares its layout hash with "
        "the published one; `check X` says what a folder, file or LoRA is and what it lacks; `download NAME` fetches."
    )
    made.add_argument(
        "action",
        nargs="?",
        choices=["list", "check", "download"],
        default="list",
        help="list, check or download",
    )
    made.add_argument(
        "folder", nargs="?", default=None, help="a folder or file in any layout, a LoRA, or a known name"
    )
    made.add_argument(
        "--model", type=str, default="", help="of `check LORA`: the model that it is to be merged into"
    )
    made.add_argument(
        "--to", type=str, default="", help="the folder of a download; left out, the hub's cache"
    )
    return made


def run(settings: Namespace) -> int:
    """List, check or download. Returns the exit code."""
    for flag, value, action in ("to", settings.to, "download"), ("model", settings.model, "check"):
        if value and settings.action != action:
            raise InputError(
                f"--{flag} {value} is of `models {action}`; `models {settings.action}` takes none"
            )
    if settings.action == "download":
        return download(settings.folder, settings.to)
    return check_models(settings.folder, settings.model) if settings.action == "check" else list_models()


def list_models() -> int:
    """Print the known models and whether each is on this machine."""
    from rich.table import Table

    from wanedit.wan.catalog import KNOWN_MODELS, locate
    from wanedit.wan.load import open_wan

    table = Table(title="Known models", title_justify="left")
    for column in (
        "name",
        "kind",
        "keyframes",
        "sizes",
        "frames",
        "steps",
        "shift",
        "guidance",
        "published as",
        "here",
    ):
        table.add_column(column, overflow="fold")
    for model in KNOWN_MODELS:
        sampling = model.sampling if not model.bundled else open_wan(model.name).sampling
        config = model.config
        try:
            where = "bundled" if model.bundled else str(locate(model.name))
        except MissingWeightsError as error:
            # Of several files one has to be chosen; any other is not here.
            where = str(error) if "choose" in str(error) else "no"
        table.add_row(
            model.name,
            config.model_type + ("" if config.image_tokens or config.model_type == "t2v" else ", no CLIP"),
            model.shows.frames,
            (f"{model.experts} x " if model.experts > 1 else "") + f"{config.num_layers} x {config.dim}",
            f"{sampling.max_frames} at {sampling.fps:g}",
            str(sampling.num_inference_steps),
            f"{sampling.shift:g}",
            f"{sampling.guidance_scale:g}"
            + ("" if sampling.guidance_scale_low is None else f", then {sampling.guidance_scale_low:g}"),
            model.repository,
            where,
        )
    console = wide_console()
    console.print(table)
    console.print(
        "keyframes: the frames of a clip that a model can be shown; frames: as many as it is good for, and their rate\n"
        "what is not here comes by `wanedit models download NAME`",
        highlight=False,
    )
    return 0


def check_models(source: str | None, model: str = "") -> int:
    """Check a model or a LoRA or, without one, every known layout against its published hash.

    Args:
        model: that a LoRA is to be merged into.

    Returns:
        0 when everything fits, else the exit code of missing weights.
    """
    from rich.table import Table

    from wanedit.wan.catalog import KNOWN_MODELS, find_known, locate, locate_lora, require_weights

    lora = Path() if source is None or find_known(source) else locate_lora(Path(source))
    if source is not None:  # told before torch is imported
        require_weights(lora if lora != Path() and lora.exists() else locate(source))
    from wanedit.wan.layout import check_folder, check_known, check_lora

    console = wide_console()
    if lora != Path() and (told := check_lora(lora, model)):
        table = Table(title="LoRA", title_justify="left")
        columns = ("target", "layers", "rank", "alpha over rank", "holds", "such as")
        for column in (*columns, *([f"in {model}"] if model else [])):
            table.add_column(column, overflow="fold")
        for row in told.targets:
            table.add_row(*row)
        console.print(table)
        for heading, text in told.about.items():
            console.print(f"{heading:10} {text}", highlight=False, markup=False)
        if told.problem:
            raise MissingWeightsError(told.problem)
        return 0
    if model:
        raise InputError(f"--model {model} is what a LoRA is checked against; {source} is none")
    if source is not None:
        checks = check_folder(source)
    else:
        checks = [check for model in KNOWN_MODELS if not model.bundled for check in check_known(model)]
        checks += check_folder("tiny")
    table = Table(title=checks[0].format or None, title_justify="left")
    for column in ("model", "part", "files", "numbers", "size", "layout", "published", "result"):
        table.add_column(column, overflow="fold")
    for check in checks:
        size = f"{check.num_bytes / 1e6:.1f} MB" if check.num_bytes else "-"
        layout, published = check.layout[:12] or "-", (check.published or "-")[:12]
        row = (check.model, check.part, check.files or "-", check.numbers or "-", size, layout, published)
        fits = "ok" if check.num_bytes or check.published else "no hash is published"
        table.add_row(*row, check.problem or fits, style=None if check.ok else "red")
    console.print(table)
    failed = [check for check in checks if not check.ok]
    console.print(f"{len(checks) - len(failed)} of {len(checks)} parts fit")
    return MissingWeightsError.exit_code if failed else 0


def download(name: str | None, folder: str) -> int:
    """Bring a known model, or any repository of the hub, to this machine; a broken transfer goes on. Returns 0.

    Raises:
        InputError: no name, or one that is neither known nor "owner/name".
        ResourceError: it does not fit onto the disk.
        ServiceError: the hub cannot be reached or answers otherwise.
        MissingWeightsError: a file has another hash than the hub says; it is removed.
    """
    from wanedit.wan.catalog import find_known
    from wanedit.wan.hub import fetch

    known = find_known(name or "")
    if not name or (known is None and name.count("/") != 1):
        raise InputError(
            f"download {name!r}; expected a name of `wanedit models`, or owner/name of a repository"
        )
    if known is not None and known.bundled:
        print(f"{known.name} ships with wanedit")
        return 0
    place = fetch(known.repository if known else name, at_home(folder) if folder else None, print)
    print(f"{place}: complete, every hash as the hub says")
    return 0
