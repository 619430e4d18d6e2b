"""`wanedit doctor`: what works on this machine."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jsonargparse import Namespace

from wanedit.commands.support import Parser, allow_bare_flags, new_parser
from wanedit.errors import (
    InputError,
    MissingWeightsError,
    ResourceError,
    ServiceError,
    WaneditError,
)
from wanedit.runtime.events import wide_console
from wanedit.stylists.gemini.settings import GeminiSettings, find_key

HELP = "what works on this machine, and which Gemini models your key can use"
ORDER = 9
OK, MISSING, WRONG = "ok", "not here", "wrong"
STYLES = {OK: "green", MISSING: "yellow", WRONG: "red"}
GEMINI_TIMEOUT_S = 8.0
LEAST_PYTHON = (3, 11)
LEAST_DISK_GB = 2
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, how it stands, and what that means.

    Attributes:
        state: ok; not here (optional, so no failure); wrong.
        exit_code: what `wanedit doctor` returns for it, if it is wrong.
    """

    name: str
    state: str
    detail: str
    exit_code: int = 1


def parser() -> Parser:
    """Its flags."""
    made = new_parser(
        "Check Python, devices, codecs, models, metric weights, W&B, the browser and, with GOOGLE_API_KEY or "
        "GEMINI_API_KEY set, Gemini. Exit code 0: all that the default needs works. No key is ever printed."
    )
    defaults = GeminiSettings()
    made.add_argument("--gemini", type=bool, default=False, help="fail (exit 5) if Gemini cannot be used")
    flags = (
        ("image_model", str, defaults.image_model, "the id to look for"),
        ("text_model", str, defaults.text_model, "the id to look for"),
        ("base_url", str | None, None, "another endpoint than Google's"),
        ("api_version", str | None, None, "v1 or v1beta"),
    )
    for name, kind, default, words in flags:
        # Also as `wanedit style` spells them, so that its flags can be copied.
        made.add_argument(f"--{name}", f"--gemini.{name}", type=kind, default=default, help=words)
    allow_bare_flags(made)
    return made


def run(settings: Namespace) -> int:
    """Print the checks. Returns the exit code."""
    chosen = GeminiSettings(
        image_model=settings.image_model,
        text_model=settings.text_model,
        base_url=settings.base_url,
        api_version=settings.api_version,
    )
    return doctor(chosen, require_gemini=settings.gemini)


def doctor(settings: GeminiSettings | None = None, require_gemini: bool = False) -> int:
    """Print every check. Never prints a key.

    Args:
        settings: whose model ids are looked for; the defaults if None.
        require_gemini: whether a Gemini that cannot be used is a failure. Without it, Gemini is asked only if there
            is a key, and only told about.

    Returns:
        0 when all that the default needs works (and Gemini, if required), else the exit code of the first failure.
    """
    from rich.table import Table
    from rich.text import Text

    settings = settings or GeminiSettings()
    settings.check()
    checks = [check for look in LOCAL for check in _safely(look)]
    checks += check_gemini(settings, require_gemini)
    table = Table(title="wanedit doctor", title_justify="left")
    table.add_column("what", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("detail", overflow="fold")
    for check in checks:
        table.add_row(check.name, Text(check.state, STYLES[check.state]), check.detail)
    console = wide_console()
    console.print(table)
    wrong = [check for check in checks if check.state == WRONG]
    console.print(
        f"wrong: {', '.join(check.name for check in wrong)}" if wrong else "all that the default needs works"
    )
    return wrong[0].exit_code if wrong else 0


def _safely(look: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """A check that breaks is a finding too, and must not hide the others."""
    try:
        yield from look()
    except WaneditError as error:
        yield Check(look.__name__.removeprefix("check_"), WRONG, str(error), error.exit_code)
    except Exception as error:
        yield Check(look.__name__.removeprefix("check_"), WRONG, f"{type(error).__name__}: {error}")


def check_python() -> Iterator[Check]:
    """Interpreter and the libraries whose versions matter most."""
    version = platform.python_version()
    fits = sys.version_info[:2] >= LEAST_PYTHON
    yield Check("python", OK if fits else WRONG, f"{version}, {sys.executable}")
    for name in ("torch", "diffsynth", "lightning", "google-genai"):
        try:
            yield Check(name, OK, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Check(name, WRONG, "not installed; run pip install -e . again")


def check_devices() -> Iterator[Check]:
    """What torch can compute on, and with how much memory."""
    import psutil
    import torch

    memory = psutil.virtual_memory()
    threads = torch.get_num_threads()
    yield Check("cpu", OK, f"{os.cpu_count()} cores, {threads} threads, {memory.available / 1e9:.0f} GB free")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            yield Check(f"cuda:{index}", OK, f"{properties.name}, {properties.total_memory / 1e9:.0f} GB")
    elif torch.backends.mps.is_available():
        yield Check("mps", OK, "Apple GPU")
    else:
        yield Check("gpu", MISSING, "none that torch sees; wan-tiny needs none, a 14B model does")


def check_video() -> Iterator[Check]:
    """The codecs that wanedit writes and reads, inside PyAV."""
    import av

    needed = {"h264 writer": ("libx264", "w"), "ffv1 writer": ("ffv1", "w"), "ffv1 reader": ("ffv1", "r")}
    needed |= {"h264 reader": ("h264", "r"), "hevc reader": ("hevc", "r")}
    absent = [label for label, (name, mode) in needed.items() if not _has_codec(name, mode)]
    libraries = ", ".join(f"{name} {version[0]}" for name, version in sorted(av.library_versions.items()))
    state, detail = (WRONG, f"no {', '.join(absent)} in PyAV {av.__version__}") if absent else (OK, "")
    yield Check("video", state, detail or f"PyAV {av.__version__}: {', '.join(needed)} ({libraries})")
    av1 = any(_has_codec(name, "r") for name in ("libdav1d", "av1"))
    yield Check("av1", OK if av1 else MISSING, "reader" if av1 else "AV1 files cannot be read")
    heif = importlib.util.find_spec("pillow_heif") is not None
    yield Check("heic", OK if heif else MISSING, "pictures" if heif else "pip install wanedit[heif]")
    decord = importlib.util.find_spec("decord") is not None
    yield Check(
        "decord", OK if decord else MISSING, "decoder: decord" if decord else "pip install wanedit[decord]"
    )


def _has_codec(name: str, mode: str) -> bool:
    import av

    try:
        return av.Codec(name, "w" if mode == "w" else "r") is not None
    except ValueError:  # av.codec.UnknownCodecError is one
        return False


def check_disk() -> Iterator[Check]:
    """Room where runs are written by default, and whether it may be written to."""
    folder = Path.cwd()
    free = shutil.disk_usage(folder).free / 1e9
    if not os.access(folder, os.W_OK):
        yield Check("disk", WRONG, f"{folder} may not be written to", ResourceError.exit_code)
    else:
        state = OK if free >= LEAST_DISK_GB else WRONG
        yield Check("disk", state, f"{free:.1f} GB free in {folder}", ResourceError.exit_code)


def check_models() -> Iterator[Check]:
    """The bundled model, which is the default of every command, and the known ones that are here."""
    from wanedit.wan.catalog import KNOWN_MODELS, MODELS_VARIABLE, locate
    from wanedit.wan.layout import check_folder

    parts = check_folder("tiny")
    broken = [f"{part.part}: {part.problem or 'layout'}" for part in parts if not part.ok]
    detail = "; ".join(broken) or f"bundled, {len(parts)} parts fit"
    yield Check("wan-tiny", WRONG if broken else OK, detail, MissingWeightsError.exit_code)
    absent = []
    for model in KNOWN_MODELS:
        if model.bundled:
            continue
        try:
            yield Check(model.name, OK, str(locate(model.name)))
        except MissingWeightsError:
            absent.append(model.name)
    if absent:
        yield Check(
            "other models",
            MISSING,
            f"{', '.join(absent)}; looked in ., models and ${MODELS_VARIABLE}; see wanedit models",
        )


def check_metric_weights() -> Iterator[Check]:
    """Weights that metrics say they need, those of other packages too, and where they belong; their hash is checked
    when they are used."""
    from wanedit.jobs.evaluate.metric import METRICS, find_metric
    from wanedit.metrics.weights import HubFile, HubModel

    needed: dict[HubFile | HubModel, list[str]] = {}
    for name in METRICS:
        for file in find_metric(name).weights:
            needed.setdefault(file, []).append(name)
    for file, names in needed.items():
        place = file.path if isinstance(file, HubFile) else file.folder
        here = place.exists()
        detail = str(place) if here else f"for {place}: {file.address} ({file.megabytes} MB)"
        yield Check(f"weights of {', '.join(names)}", OK if here else MISSING, detail)


def check_tracking() -> Iterator[Check]:
    """In which mode a run would log to Weights & Biases; its key is neither read out nor shown."""
    from wanedit.tracking.weights_and_biases import chosen_mode, key_place

    if importlib.util.find_spec("wandb") is None:
        yield Check("wandb", MISSING, "not installed")
        return
    mode, why = chosen_mode()
    if why:
        yield Check("wandb", MISSING, f"{mode}; wandb login, or WANDB_API_KEY, for online")
    else:
        yield Check(
            "wandb", OK, f"{mode}, key from {key_place()}" if mode == "online" else f"{mode}, WANDB_MODE"
        )


def check_browser() -> Iterator[Check]:
    """Chromium, for the tests of the report alone."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    # Playwright keeps a browser of its own, on no PATH.
    own = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or "~/.cache/ms-playwright").expanduser()
    if found is None and own.is_dir():
        found = next((str(path) for path in sorted(own.glob("chromium*"))), None)
    yield Check("chromium", OK if found else MISSING, found or "only the browser tests need it")


LOCAL = (
    check_python,
    check_devices,
    check_video,
    check_disk,
    check_models,
    check_metric_weights,
    check_tracking,
    check_browser,
)


def check_gemini(settings: GeminiSettings, required: bool) -> list[Check]:
    """The key and the models that it can use; a failure only if Gemini is required."""
    bad = WRONG if required else MISSING
    code = ServiceError.exit_code
    try:
        key = find_key()
    except InputError as error:
        detail = str(error) if required else f"{error}. The palette stylist needs none"
        return [Check("gemini key", bad, detail, code)]
    checks = [Check("gemini key", OK, key.note)]
    try:
        # Imported only with a key: the SDK takes a second or two.
        import asyncio

        from wanedit.stylists.gemini.client import find_models

        found = asyncio.run(find_models(settings, key, GEMINI_TIMEOUT_S))
    except WaneditError as error:
        from wanedit.stylists.gemini.faults import RESUME

        # There is no run here to go on with.
        return [*checks, Check("gemini", bad, str(error).partition(RESUME)[0].rstrip(". "), code)]
    checks.append(Check("gemini", OK, f"{len(found.usable)} models: {', '.join(found.usable)}"))
    for name, model in (("image_model", settings.image_model), ("text_model", settings.text_model)):
        near = found.gone.get(model)
        if near is None:
            checks.append(Check(name, OK, model))
        else:
            advice = f"nearest: {', '.join(near)}" if near else "none is like it"
            checks.append(Check(name, bad, f"{model} is gone; {advice}. Set gemini.{name}", code))
    return checks
