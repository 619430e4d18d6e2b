"""An item as files that the commands read: sprites are drawn once and kept by the hash of what decides them."""

import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from wanedit.errors import InputError
from wanedit.files import file_sha256
from wanedit.jobs.ablate.items import FPS, Item, drawn_scene
from wanedit.runtime.hashing import digest
from wanedit.runtime.settings import parse_size
from wanedit.sprites import Scene, apply_edit, caption, frame_times, render, sample_edit
from wanedit.video import read_frames, to_uint8, write_lossless, write_png
from wanedit.video.arrays import Frames

# Raised when a change to the renderer or to this file changes what is drawn for the same spec.
DRAWN = 1
SOURCE, TRUTH = "source.mkv", "truth.mkv"


@dataclass(frozen=True, eq=False)
class Material:
    """What a run works on.

    Attributes:
        settings: of the command: its inputs and prompts.
        truth: uint8 (T, H, W, 3), what the result should be; None where nobody knows.
    """

    settings: dict[str, Any]
    truth: Frames | None


def prepare(item: Item, folder: Path) -> Material:
    """The files of an item, drawn if they are not there.

    Args:
        folder: where drawn clips are kept.

    Raises:
        InputError: a file of a clip is not there.
    """
    if item.spec["kind"] == "clips":
        return _of_files(item.spec)
    spec = item.spec
    home = folder / digest({"drawn": DRAWN, **spec})[:16]
    if not home.is_dir():
        _atomically(home, lambda partial: DRAWERS[spec["kind"]](spec, partial))
    scene = drawn_scene(spec["seed"], spec["split"], spec["num_frames"])
    truth = read_frames(home / TRUTH)
    if spec["kind"] == "sprite_chains":
        keyframes = [[str(_keyframe(home, i)), i / FPS] for i in spec["keyframes"]]
        settings = {"keyframes": keyframes, "prompt": caption(scene), "size": spec["size"], "fps": float(FPS)}
        return Material(settings, truth)
    edited = apply_edit(scene, sample_edit(scene, spec["seed"], (spec["edit"],)))
    settings = {
        "video": str((home / SOURCE).absolute()),
        "keyframes": [[str(_keyframe(home, i)), i] for i in spec["keyframes"]],
        "prompt": edited.caption,
        "source_prompt": caption(scene),
    }
    return Material(settings, truth)


def fingerprint(item: Item) -> dict[str, Any]:
    """All that decides the pixels of an item: of files their contents."""
    if item.spec["kind"] != "clips":
        return {"drawn": DRAWN, **item.spec}
    given, folder = item.spec["settings"], Path(item.spec["folder"])
    named = [given[name] for name in ("video", "reference") if given.get(name) is not None]
    files = [_there(folder / name) for name in [*named, *(path for path, _ in given["keyframes"])]]
    return {**given, "files": [_contents(path) for path in files]}


def _contents(path: Path) -> list[Any]:
    """Hashes of a file, or of all files of a folder by name."""
    if path.is_file():
        return [file_sha256(path)]
    return [[each.name, file_sha256(each)] for each in sorted(path.iterdir()) if each.is_file()]


def _keyframe(home: Path, index: int) -> Path:
    return (home / f"{index:04d}.png").absolute()


def _atomically(home: Path, draw: Callable[[Path], None]) -> None:
    """Two processes may draw the same clip: whoever is later finds the folder there and drops its own."""
    partial = home.with_name(f".{home.name}.{uuid.uuid4().hex[:8]}")
    partial.mkdir(parents=True)
    try:
        draw(partial)
        os.rename(partial, home)
    except OSError:
        if not home.is_dir():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _draw_edited(spec: dict[str, Any], folder: Path) -> None:
    scene = drawn_scene(spec["seed"], spec["split"], spec["num_frames"])
    edited = apply_edit(scene, sample_edit(scene, spec["seed"], (spec["edit"],)))
    write_lossless(folder / SOURCE, _drawn(scene, spec), Fraction(FPS))
    _write_truth(_drawn(edited.scene, spec, edited.style), spec, folder)


def _draw_chain(spec: dict[str, Any], folder: Path) -> None:
    scene = drawn_scene(spec["seed"], spec["split"], spec["num_frames"])
    _write_truth(_drawn(scene, spec), spec, folder)


def _drawn(scene: Scene, spec: dict[str, Any], style: str = "plain") -> Frames:
    size = parse_size(spec["size"])
    return to_uint8(render(scene, frame_times(spec["num_frames"], FPS), size, style).video)


def _write_truth(truth: Frames, spec: dict[str, Any], folder: Path) -> None:
    write_lossless(folder / TRUTH, truth, Fraction(FPS))
    for index in spec["keyframes"]:
        write_png(folder / f"{index:04d}.png", truth[index])


DRAWERS: dict[str, Callable[[dict[str, Any], Path], None]] = {
    "edited_sprites": _draw_edited,
    "sprite_chains": _draw_chain,
}


def _of_files(spec: dict[str, Any]) -> Material:
    from wanedit.video.source import read_source

    folder, settings = Path(spec["folder"]), dict(spec["settings"])
    reference = settings.pop("reference", None)
    if "video" in settings:
        settings["video"] = str(_there(folder / settings["video"]))
    settings["keyframes"] = [[str(_there(folder / path)), at] for path, at in settings["keyframes"]]
    truth = None if reference is None else np.asarray(read_source(_there(folder / reference)).frames)
    return Material(settings, truth)


def _there(path: Path) -> Path:
    if not path.exists():
        raise InputError(f"data: no file or folder {path.absolute()}")
    return path.absolute()
