"""Tracking in Weights & Biases: online with a key in the environment and a server that answers, else offline."""

import netrc
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from wanedit.tracking.backends import (
    IMAGES,
    INDEX_NAMES,
    TRACKERS,
    Cell,
    RunInfo,
    Scalar,
    Tracker,
    as_rank_zero,
    index_name,
)

if TYPE_CHECKING:
    import wandb

# Seconds that a run may wait: for the server at the start, for its last upload at the end.
START_TIMEOUT = 20.0
FINISH_TIMEOUT = 20.0
KEYS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
OFFLINE = {"offline", "dryrun"}
# What its page plays.
VIDEOS: dict[str, Literal["mp4", "webm", "gif"]] = {".mp4": "mp4", ".webm": "webm", ".gif": "gif"}


@TRACKERS.register("wandb")
class WandbTracker(Tracker):
    """One W&B run, opened by Lightning's WandbLogger. Its files stand under `wandb/` in the run's folder."""

    package = "wandb"
    install = "pip install wandb"

    def __init__(self) -> None:
        self._run: wandb.Run | None = None
        self._row = 0
        self._environment: list[str] = []

    @property
    def run(self) -> "wandb.Run":
        """Once started."""
        assert self._run is not None
        return self._run

    def start(self, run: RunInfo) -> str:
        import wandb

        # Copies of artifacts stand beside the run, where `wandb sync` finds them, and W&B's own messages are kept away.
        wanted = {"WANDB_DATA_DIR": str((run.folder / "wandb" / "data").absolute()), "WANDB_SILENT": "true"}
        self._environment = [name for name in wanted if name not in os.environ]
        os.environ.update({name: wanted[name] for name in self._environment})
        try:
            mode, line = chosen_mode()
            try:
                self._run = _opened(run, mode)
            except Exception as error:
                if mode != "online":
                    raise
                # The service still holds the run that could not begin, and would refuse another of this id.
                wandb.teardown()
                reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
                line = f"tracking: W&B cannot be reached ({reason}); the run goes on offline"
                self._run = _opened(run, "offline")
            self._row = max(run.first_row, self._run.step)
            for series, name in INDEX_NAMES.items():
                self._run.define_metric(f"{series}/{name}")
                self._run.define_metric(f"{series}/*", step_metric=f"{series}/{name}")
        except BaseException:
            self.finish(1)
            raise
        return line

    def log(self, series: str, index: int, values: Mapping[str, Scalar]) -> None:
        row = {f"{series}/{name}": value for name, value in values.items()}
        self._commit({f"{series}/{index_name(series)}": index, **row})

    def summary(self, values: Mapping[str, Scalar]) -> None:
        self.run.summary.update(dict(values))

    def table(self, name: str, rows: Sequence[Mapping[str, Cell]]) -> None:
        import wandb

        def column(cells: list[Cell]) -> list[object]:
            """As W&B takes it: of one kind, so a reason among numbers makes words of all of them."""
            kinds = {type(cell) for cell in cells if cell is not None}
            if kinds & {str, bool} and len(kinds) > 1:
                return [None if cell is None else str(cell) for cell in cells]
            return [shown_in_table(cell) if isinstance(cell, Path) else cell for cell in cells]

        def shown_in_table(path: Path) -> object:
            return wandb.Image(str(path)) if path.suffix in IMAGES else path.name

        names = list(dict.fromkeys(key for row in rows for key in row))
        columns = [column([row.get(name) for row in rows]) for name in names]
        shown = wandb.Table(columns=[*names], data=[list(row) for row in zip(*columns, strict=True)])
        # A sheet also stands by itself: a table's images are small, and only shown once it is opened. So does a video,
        # which only there is played.
        media: dict[str, object] = {}
        for key, cell in ((key, cell) for row in rows for key, cell in row.items()):
            if isinstance(cell, Path) and cell.suffix in IMAGES:
                media[f"{name}/{key}"] = wandb.Image(str(cell))
            elif isinstance(cell, Path) and (kind := VIDEOS.get(cell.suffix.lower())):
                media[f"{name}/{key}"] = wandb.Video(str(cell), format=kind)
        self._commit({name: shown, **media})

    def artifact(self, name: str, files: Mapping[str, Path | str], digest: str) -> None:
        import wandb

        made = wandb.Artifact(artifact_name(name), type="result", metadata={"sha256": digest})
        for file, content in files.items():
            if isinstance(content, Path):
                made.add_file(str(content), name=file)
            else:
                with made.new_file(file, encoding="utf-8") as out:
                    out.write(content)
        self.run.log_artifact(made, aliases=[digest[:12]])

    def finish(self, exit_code: int) -> str:
        import wandb

        try:
            if self._run is None:
                return ""
            place, kept_back = self._run.settings.sync_dir, self._run.settings._offline
            self._run.finish(exit_code=exit_code)
            kept_back = kept_back or getattr(self._run, "_finish_timed_out", False)
        finally:
            # The service process would otherwise live as long as this one, which may make many runs.
            wandb.teardown()
            for name in self._environment:
                os.environ.pop(name, None)
            self._environment = []
        if kept_back:
            return f"tracking: send it to W&B with: wandb sync {shlex.quote(str(Path(place).absolute()))}"
        return ""

    def _commit(self, row: Mapping[str, object]) -> None:
        # The row's number is ours: WandbLogger.log_metrics gives none, an offline run that goes on under its id would
        # begin at 0 again, and syncing it would write over the rows of the first attempt.
        self.run.log(dict(row), step=self._row, commit=True)
        self._row += 1


def chosen_mode() -> tuple[str, str]:
    """The mode of W&B, and a line for the user where it is not what they may expect.

    WANDB_MODE is obeyed. Without it a run is online if the environment holds a key, or `wandb login` stored one: W&B
    would else ask for one, and a run must not wait at a prompt.
    """
    asked = os.environ.get("WANDB_MODE", "").strip().lower()
    if asked in OFFLINE | {"disabled"}:
        return "disabled" if asked == "disabled" else "offline", ""
    if key_place():
        return "online", ""
    return "offline", f"tracking: no {KEYS[0]} in the environment and no login; the run is logged offline"


def key_place() -> str:
    """Where W&B finds a key for its server: a variable, or what `wandb login` stored; "" for nowhere."""
    if found := next((name for name in KEYS if os.environ.get(name)), ""):
        return found
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname
    place = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    try:
        return "wandb login" if host in netrc.netrc(str(place)).hosts else ""
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return ""


def artifact_name(text: str) -> str:
    """A name that W&B takes: letters, digits, dashes, dots and underscores."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:128] or "result"


def _opened(run: RunInfo, mode: str) -> "wandb.Run":
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    settings = wandb.Settings(
        init_timeout=START_TIMEOUT,
        finish_timeout=FINISH_TIMEOUT,
        x_service_wait=START_TIMEOUT,
        # A resumed run may be told another crf or another number of processes.
        allow_val_change=True,
        silent=True,
        # Standard output stays ours; argv, the program's path and the git state say where things lie on this machine.
        console="off",
        disable_code=True,
        disable_git=True,
        save_code=False,
        x_disable_meta=True,
    )
    if wandb.run is not None:
        # One of another run in this process, which the logger would take for its own.
        wandb.finish()
    # Its `offline` would set WANDB_MODE for the rest of the process.
    logger = WandbLogger(
        name=run.name,
        tags=list(run.tags),
        save_dir=run.folder,
        version=run.run_id,
        project=run.project,
        group=run.group or None,
        job_type=run.job_type,
        config=dict(run.config),
        mode=mode,
        settings=settings,
    )
    # The logger passes one that W&B no longer knows, of which each run would warn.
    logger._wandb_init.pop("anonymous", None)
    with as_rank_zero():
        return logger.experiment  # pyright: ignore[reportReturnType]
