"""Tracking in Weights & Biases: online with a key in the environment and a server that answers, else offline."""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wanedit.tracking.tracker import INDEX_NAMES, Cell, RunInfo, Scalar, index_name

# Seconds that a run may wait: for the server at the start, for its last upload at the end.
START_TIMEOUT = 20.0
FINISH_TIMEOUT = 20.0
KEYS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
OFFLINE = {"offline", "dryrun"}


class WandbTracker:
    """One W&B run. Its files stand under `wandb/` in the run's folder."""

    def __init__(self) -> None:
        self._run: Any = None
        self._row = 0
        self._offline = True
        self._environment: dict[str, str | None] = {}

    def start(self, run: RunInfo) -> str:
        self._set_environment(run.folder)
        try:
            self._run, line = _begin(run)
            self._offline = bool(self._run.settings._offline)
            self._row = max(run.first_row, self._run.step)
            _define(self._run, INDEX_NAMES)
        except BaseException:
            self.finish(1)
            raise
        return line

    def log(self, series: str, index: int, values: Mapping[str, Scalar]) -> None:
        row = {f"{series}/{name}": value for name, value in values.items()}
        self._commit({f"{series}/{index_name(series)}": index, **row})

    def summary(self, values: Mapping[str, Scalar]) -> None:
        self._run.summary.update(dict(values))

    def table(self, name: str, rows: Sequence[Mapping[str, Cell]]) -> None:
        import wandb

        columns: list[Any] = list(dict.fromkeys(key for row in rows for key in row))
        cells = [_column([row.get(column) for row in rows]) for column in columns]
        table = wandb.Table(columns=columns, data=[list(row) for row in zip(*cells, strict=True)])
        # A sheet also stands by itself: a table's images are small, and only shown once it is opened.
        sheets = {
            f"{name}/{k}": _image(cell) for row in rows for k, cell in row.items() if isinstance(cell, Path)
        }
        self._commit({name: table, **sheets})

    def artifact(self, name: str, files: Mapping[str, Path | str], digest: str) -> None:
        import wandb

        made = wandb.Artifact(artifact_name(name), type="result", metadata={"sha256": digest})
        for file, content in files.items():
            if isinstance(content, Path):
                made.add_file(str(content), name=file)
            else:
                with made.new_file(file, encoding="utf-8") as out:
                    out.write(content)
        self._run.log_artifact(made, aliases=[digest[:12]])

    def finish(self, exit_code: int) -> str:
        import wandb

        try:
            if self._run is None:
                return ""
            place, timed_out = self._run.settings.sync_dir, False
            self._run.finish(exit_code=exit_code)
            timed_out = bool(getattr(self._run, "_finish_timed_out", False))
        finally:
            # The service process would otherwise live as long as this one, which may make many runs.
            wandb.teardown()
            self._restore_environment()
        if self._offline or timed_out:
            return f"tracking: send it to W&B with: wandb sync {shlex.quote(str(Path(place).absolute()))}"
        return ""

    def _commit(self, row: Mapping[str, Any]) -> None:
        # The row's number is ours: an offline run that goes on under its id would begin at 0 again, and syncing it
        # would write over the rows of the first attempt.
        self._run.log(dict(row), step=self._row, commit=True)
        self._row += 1

    def _set_environment(self, folder: Path) -> None:
        """Keep copies of artifacts beside the run, where `wandb sync` finds them, and W&B's own messages away."""
        wanted = {"WANDB_DATA_DIR": str((folder / "wandb" / "data").absolute()), "WANDB_SILENT": "true"}
        for name, value in wanted.items():
            if name not in os.environ:
                self._environment[name] = None
                os.environ[name] = value

    def _restore_environment(self) -> None:
        for name in self._environment:
            os.environ.pop(name, None)
        self._environment.clear()


def chosen_mode() -> tuple[str, str]:
    """The mode of W&B, and a line for the user where it is not what they may expect.

    WANDB_MODE is obeyed. Without it a run is online if the environment holds a key: W&B would ask for one, and a run
    must not wait at a prompt.
    """
    asked = os.environ.get("WANDB_MODE", "").strip().lower()
    if asked in OFFLINE | {"disabled"}:
        return "disabled" if asked == "disabled" else "offline", ""
    if any(os.environ.get(name) for name in KEYS):
        return "online", ""
    return "offline", f"tracking: no {KEYS[0]} in the environment; the run is logged offline"


def artifact_name(text: str) -> str:
    """A name that W&B takes: letters, digits, dashes, dots and underscores."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:128] or "result"


def _begin(run: RunInfo) -> tuple[Any, str]:
    """A W&B run, offline where it cannot be online, and a line for the user."""
    import wandb

    mode, line = chosen_mode()
    try:
        return _init(run, mode), line
    except Exception as error:
        if mode != "online":
            raise
        # The service still holds the run that could not begin, and would refuse another of this id.
        wandb.teardown()
        line = f"tracking: W&B cannot be reached ({_reason(error)}); the run goes on offline"
        return _init(run, "offline"), line


def _init(run: RunInfo, mode: str) -> Any:
    import wandb

    return wandb.init(
        project=run.project,
        group=run.group or None,
        job_type=run.job_type,
        id=run.run_id,
        name=run.folder.resolve().name,
        resume="allow",
        config=dict(run.config),
        dir=str(run.folder),
        mode=mode,  # pyright: ignore[reportArgumentType]
        reinit="finish_previous",
        settings=_settings(wandb),
    )


def _settings(wandb: Any) -> Any:
    return wandb.Settings(
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


def _define(run: Any, indices: Mapping[str, str]) -> None:
    for series, name in indices.items():
        run.define_metric(f"{series}/{name}")
        run.define_metric(f"{series}/*", step_metric=f"{series}/{name}")


def _column(cells: Sequence[Cell]) -> list[Any]:
    """A column as W&B takes it: of one kind, so a reason among numbers makes words of all of them."""
    kinds = {type(cell) for cell in cells if cell is not None}
    if kinds & {str, bool} and len(kinds) > 1:
        return [None if cell is None else str(cell) for cell in cells]
    return [_image(cell) if isinstance(cell, Path) else cell for cell in cells]


def _image(path: Path) -> Any:
    import wandb

    return wandb.Image(str(path))


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
