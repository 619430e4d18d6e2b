"""The grid file of an experiment: what is varied, over which clips, and what is fixed.

    title: Which controller
    shows: One sentence or more on what the result should show.
    minutes: 12                        # on two cores, from nothing
    command: edit                      # or generate
    overlays: [../../configs/x.yaml]   # files of settings, merged left to right
    base: {guidance_scale: 1.0}             # settings over them
    seeds: [0]
    data: {kind: edited_sprites, scenes: 4}
    axes: {controller: [residual, covariance], data.spacing: [8, 16]}
    metrics: [lpips]                   # further groups of `wanedit evaluate`; their columns are "lpips/keyframes"
    baseline: {controller: residual}   # differences are given to the runs with these values
    measures: [psnr_off, seconds]      # columns of the table
    figures: [{x: spacing, y: psnr_off, lines: controller}]
    published: {"Others 2025": {psnr_off: 30.1}}  # rows of the table that nobody made here

An axis is a list of values for the setting of its name, dotted for one inside another; or a mapping from labels to
groups of settings. `data.` names a setting of the data. A list of mappings as `axes` is several grids, one after the
other, for settings that mean something to some values of another axis only.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from wanedit.errors import InputError
from wanedit.files import read_yaml
from wanedit.jobs.ablate.config import GRID_FILE
from wanedit.jobs.evaluate.metric import METRICS, find_metric
from wanedit.metrics.functional.junctions import MEASURES
from wanedit.runtime.settings import ALIASES, canonical, check_values
from wanedit.runtime.settingsfile import read_lines, told_where

# Values of JSON and YAML, which `check_values` holds against the fields of what they become.
Settings = dict[str, Any]

DISTANCES = (1, 2, 4, 8, 16)
# Column of the tables -> the group of `wanedit evaluate` that it is of, and the names that lead to it there.
COLUMNS = {
    "psnr_off": ("truth", "psnr_off_keyframes"),
    "ssim_off": ("truth", "ssim_off_keyframes"),
    "psnr_key": ("truth", "psnr_keyframes"),
    **{f"psnr_at_{d}": ("truth", "psnr_by_distance", str(d)) for d in DISTANCES},
    # Where there is a mask.
    **{
        name: ("truth", name) for name in ("psnr_changed", "ssim_changed", "psnr_unchanged", "ssim_unchanged")
    },
    **{name: ("truth", name) for name in ("centre_error", "centre_missing")},
    **{name: ("temporal", name) for name in ("dynamic_degree", "warp_error", "flicker", "consistency")},
}
# Those of joins.
JOIN_COLUMNS = {
    name: ("truth", name)
    for name in (
        *("psnr_near_joins", "psnr_far_from_joins", "centre_error_near_joins"),
        *("acceleration_error", "acceleration_ratio"),
    )
}
# What is measured of each command's runs without being asked for.
KNOWN_MEASURES = {
    "edit": (*COLUMNS, "seconds", "evaluations", "keyframe_error"),
    "generate": (
        *(*COLUMNS, *JOIN_COLUMNS, "seconds", "evaluations", "joins_shown"),
        *(f"junction_{name}" for name in MEASURES if name != "lpips"),
    ),
}


@dataclass(frozen=True)
class Figure:
    """One plot: `y` over `x`, a line for each value of `lines`, a panel for each of `panels`.

    Attributes:
        log: whether `x` is logarithmic.
        gain: draw the paired differences to the baseline, whose intervals are far narrower than those of means.
    """

    x: str
    y: str
    lines: str | None = None
    panels: str | None = None
    log: bool = False
    gain: bool = False
    title: str = ""

    @property
    def name(self) -> str:
        """Of its file, without ending."""
        others = "".join(f"_and_{name}" for name in (self.lines, self.panels) if name is not None)
        return f"{'gain_in_' if self.gain else ''}{self.y}_by_{self.x}{others}"


@dataclass(frozen=True)
class Grid:
    """A grid file, read. See the module for its fields."""

    title: str
    shows: str
    command: Literal["edit", "generate"]
    data: Settings
    axes: list[Settings]
    minutes: float | None = None
    overlays: list[str] = field(default_factory=list)
    base: Settings = field(default_factory=dict)
    seeds: list[int] = field(default_factory=lambda: [0])
    metrics: list[str] = field(default_factory=list)
    baseline: Settings = field(default_factory=dict)
    measures: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    published: dict[str, Settings] = field(default_factory=dict)


@dataclass(frozen=True)
class Point:
    """One place of the grid.

    Attributes:
        labels: column -> value, as tables show it.
        settings: of the command, over the grid's base.
        data: settings of the data, over the grid's.
    """

    labels: Settings
    settings: Settings
    data: Settings


def load_grid(folder: Path) -> Grid:
    """Read the grid of an experiment.

    Raises:
        InputError: no such file, no YAML, an unknown or missing key, or a value of another type.
    """
    path = folder / GRID_FILE
    if not path.exists():
        raise InputError(f"{folder} has no {GRID_FILE}; expected the folder of an experiment")
    lines = read_lines(path)
    with told_where([lines]):
        grid = _grid(_settings(path), path)
        check_grid(grid, path)
    return replace(grid, base=merge(read_overlays(folder, grid.overlays), canonical(grid.base)))


def read_overlays(folder: Path, names: Sequence[str]) -> Settings:
    """Files of settings, merged left to right; their paths count from the folder. Raises InputError."""
    merged: Settings = {}
    for overlay in (folder / name for name in names):
        read_lines(overlay)  # raises, with the line, for what is no mapping of settings
        settings = _settings(overlay)
        settings.pop("preset", None)  # its settings count like any here: what the command has not is told
        merged = merge(merged, canonical(settings))
    return merged


def _settings(path: Path) -> Settings:
    values = read_yaml(path, "settings")
    return values if isinstance(values, dict) else {}


def _grid(values: Settings, path: Path) -> Grid:
    """The grid of a file's mapping: every key known, every element of its lists of the type that it must have."""
    known = {f.name: f for f in fields(Grid)}
    if unknown := [name for name in values if name not in known]:
        raise InputError(f"{path}: unknown key {unknown[0]!r}; expected some of {', '.join(known)}")
    if missing := [n for n in ("title", "shows", "command", "data", "axes") if n not in values]:
        raise InputError(f"{path}: {missing[0]} is missing")
    if isinstance(values["axes"], dict):
        values = values | {"axes": [values["axes"]]}
    for name in ("axes", "seeds", "overlays", "measures", "metrics", "figures"):
        if not isinstance(values.get(name, []), list):
            raise InputError(f"{name} is {values[name]!r}; expected a list")
    seeds = values.get("seeds", [0])
    if any(type(seed) is not int for seed in seeds) or len(set(seeds)) < len(seeds):
        raise InputError(f"{path}: seeds are {seeds}; expected whole numbers, each once")
    for what in ("overlays", "measures", "metrics"):
        if any(not isinstance(name, str) for name in values.get(what, [])):
            raise InputError(f"{path}: {what} are {values[what]}; expected text")
    for axes in values["axes"]:
        if not isinstance(axes, dict) or any(not isinstance(name, str) for name in axes):
            raise InputError(f"{path}: axes hold {axes!r}; expected a mapping from names to values")
    figures, keys = [], [f.name for f in fields(Figure)]
    entry: Settings
    for entry in values.get("figures", []):
        if not isinstance(entry, dict) or not {"x", "y"} <= set(entry) <= set(keys):
            raise InputError(f"{path}: figure {entry!r}; expected some of {', '.join(keys)}, with x and y")
        check_values(Figure, entry)
        # A column bears its setting's own name, by whichever the file calls it.
        named = {key: ALIASES.get(entry[key], entry[key]) for key in ("x", "lines", "panels") if key in entry}
        figures.append(Figure(**{**entry, **named}))
    check_values(Grid, values | {"figures": figures})
    axes = [canonical(axes) for axes in values["axes"]]
    return Grid(
        **values | {"figures": figures, "axes": axes, "baseline": canonical(values.get("baseline", {}))}
    )


def check_grid(grid: Grid, path: Path) -> None:
    """Refuse a grid that makes no runs, or names columns that it has not.

    Raises:
        InputError: naming the key, what was got and what was expected.
    """
    if not grid.seeds or not grid.axes:
        raise InputError(
            f"{path}: seeds and axes are {grid.seeds} and {grid.axes}; expected at least one each"
        )
    for name, values in ((name, values) for axes in grid.axes for name, values in axes.items()):
        if not isinstance(values, list | dict) or not values:
            raise InputError(f"{path}: axis {name} is {values!r}; expected a list, or a mapping of labels")
        if isinstance(values, dict) and any(not isinstance(v, dict) for v in values.values()):
            raise InputError(f"{path}: axis {name} has labels; expected a group of settings for each")
        # Compared as tables show them: true and "true" would share a row.
        if len({label_text(value) for value in values}) < len(values):
            raise InputError(f"{path}: axis {name} is {values!r}; expected each value once")
    columns = column_names(grid)
    for name in grid.baseline:
        if name not in columns:
            raise InputError(f"{path}: baseline names {name!r}; expected some of {', '.join(columns)}")
    wanted = list(grid.baseline.items())
    if wanted and not any(same_point(point.labels, wanted) for point in points(grid)):
        raise InputError(f"{path}: baseline is {grid.baseline}; expected values that a point of the grid has")
    for name in grid.metrics:
        find_metric(name)
    known = KNOWN_MEASURES[grid.command]
    for label, values in grid.published.items():
        if not isinstance(values, dict) or any(type(value) not in (int, float) for value in values.values()):
            raise InputError(f"{path}: published {label} is {values!r}; expected a number for each measure")
    # Others may have measured what is not measured here, for want of weights.
    groups = {*grid.metrics, *METRICS} if grid.published else grid.metrics
    published = [name for values in grid.published.values() for name in values]
    for name in (*grid.measures, *(figure.y for figure in grid.figures), *published):
        if name not in known and name.split("/")[0] not in groups:
            raise InputError(
                f"{path}: unknown measure {name!r}; expected some of {', '.join(known)}, or group/row of `metrics`"
            )
    for figure in grid.figures:
        if figure.gain and not grid.baseline:
            raise InputError(f"{path}: a figure shows gains; expected a baseline")
        for name in (figure.x, figure.lines, figure.panels):
            if name is not None and name not in columns:
                raise InputError(f"{path}: a figure names {name!r}; expected some of {', '.join(columns)}")


def column(axis: str) -> str:
    """An axis as tables call it: without the group that it lies in."""
    return axis.rsplit(".", 1)[-1]


def column_names(grid: Grid) -> list[str]:
    """The axes of all grids, in order."""
    return list(dict.fromkeys(column(name) for axes in grid.axes for name in axes))


def points(grid: Grid) -> Iterator[Point]:
    """Every place of the grid, the last axis fastest."""

    def choices(name: str, values: list[object] | Settings) -> Iterator[Point]:
        if isinstance(values, dict):
            yield from (Point({column(name): label}, canonical(own), {}) for label, own in values.items())
        for value in values if isinstance(values, list) else ():
            own: object = value
            # "data.size" is {"size": value} of the data, "method_options.strength" {"method_options": {"strength": …}}.
            for part in reversed(name.removeprefix("data.").split(".")):
                own = {part: own}
            assert isinstance(own, dict)
            of_data = name.startswith("data.")
            yield Point({column(name): value}, {} if of_data else own, own if of_data else {})

    for axes in grid.axes:
        for choice in itertools.product(*(choices(name, values) for name, values in axes.items())):
            labels, settings, data = {}, {}, {}
            for one in choice:
                labels |= one.labels
                settings, data = merge(settings, one.settings), merge(data, one.data)
            yield Point(labels, settings, data)


def merge(under: Settings, over: Settings) -> Settings:
    """`over` wins; mappings inside are merged likewise."""
    both = dict(under)
    for name, value in over.items():
        old = both.get(name)
        both[name] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return both


def label_text(value: object) -> str:
    """A value of an axis in a table, as the grid file spells it."""
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def same_point(labels: Settings, wanted: Sequence[tuple[str, object]]) -> bool:
    """Whether labels have all wanted values."""
    return all(label_text(labels.get(name)) == label_text(value) for name, value in wanted)
