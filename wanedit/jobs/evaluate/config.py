"""What an evaluation can be told, and the checks that read no video: nothing heavy, for the command line reads it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from wanedit.errors import InputError, nearest
from wanedit.files import at_home, read_json
from wanedit.jobs.evaluate import METRICS
from wanedit.runtime.inputs import EditedFrame, find_path, parse_edited, run_folder
from wanedit.runtime.outputs import check_outputs, require_writable
from wanedit.runtime.settings import Everyday, FileName, Index, TrackingSettings, check_settings

if TYPE_CHECKING:
    from wanedit.video.images import LoadedImage
    from wanedit.video.source import OpenedSource

# Of the table of results.
HEADER = "group,place,name,value"


@dataclass(frozen=True)
class EvaluationConfig(TrackingSettings):
    """What to measure, and against what. Tracked, the measures of a run join those that it logged as it was made.

    Attributes:
        video: a video file or a folder of images.
        run: the folder of a run instead: its frames before lossy encoding, with its joins, keyframes and source.
        junctions: the frames at which pieces are joined, "24,48": the first of each later piece, or the one that both
            share.
        reference: a video of the same size and length: the truth, or the source of an edit.
        scene: a JSON file that says which sprite scene the video should show: its exact truth is drawn; see
            docs/evaluation.md.
        mask: a picture, a video or a folder of them: white where the edit may change the reference.
        keyframes: pictures that the video should show, as for `wanedit edit`; where they are transparent, nothing is
            measured.
        first_number: of the video's first frame, as for `wanedit edit`.
        metrics: "auto" for all that what is given allows; "none"; or groups of measures, "a,b", of which each must then
            be possible: those of docs/evaluation.md, of installed packages, and your own as package.module:Group.
        vbench: a folder to which the video is added as VBench reads it.
        prompt: what the video shows, by which VBench names it and CLIP judges it; null for that of the run.
        output: a file for the results, JSON; a table as CSV is written beside it. Null to print only.
    """

    video: str | os.PathLike[str] = ""
    run: Annotated[FileName | None, Everyday("what goes in")] = None
    junctions: Annotated[str, Everyday("what goes in")] = ""
    reference: Annotated[FileName | None, Everyday("what goes in")] = None
    scene: FileName | None = None
    mask: Annotated[FileName | None, Everyday("what goes in")] = None
    keyframes: Annotated[str | os.PathLike[str] | Sequence[Any], Everyday("what goes in")] = ""
    first_number: Index | None = None
    metrics: Annotated[str, Everyday("how")] = "auto"
    vbench: FileName | None = None
    prompt: str | None = None
    output: Annotated[FileName | None, Everyday("what comes out")] = None


def check_evaluation(config: EvaluationConfig) -> list[str] | None:
    """Refuse what no video makes sense of. Returns the groups that are named; None for "auto".

    Raises:
        InputError: a value of another type, no video, an unknown metric or none at all, an output that is not .json.
    """
    # Brings NumPy, which help does without.
    from wanedit.tracking import check_tracking

    check_settings(config)
    check_tracking(config)
    if bool(config.video) == bool(config.run):
        raise InputError("expected a video file, a folder of images, or the folder of a run, and one of them")
    if config.run and (config.junctions or config.reference or config.keyframes):
        raise InputError("a run has junctions, reference and keyframes of its own; expected none to be given")
    if config.vbench is not None and not (config.run or (config.prompt or "").strip()):
        raise InputError("vbench names videos by their prompt; expected one")
    # A table is written beside it, and what bears another name may be the user's own video.
    if config.output is not None and Path(config.output).suffix.lower() != ".json":
        raise InputError(f"output is {config.output!r}; expected the name of a .json file")
    if config.tracking != "none" and not config.run and config.output is None:
        raise InputError("tracking keeps its files beside the results; expected an output, too")
    if config.metrics in ("auto", "none"):
        return None if config.metrics == "auto" else []
    names = [name.strip() for name in config.metrics.split(",") if name.strip()]
    known = f"expected auto, none, or some of {', '.join(METRICS)}, or package.module:Group"
    if not names:
        raise InputError(f"metrics is {config.metrics!r}; {known}")
    for name in names:
        if ":" not in name and name not in METRICS:
            near = nearest(name, METRICS)
            hint = f"\nDid you mean {near!r}?" if near else ""
            raise InputError(f"metrics names {name!r}; {known}{hint}")
    return names


def find_files(config: EvaluationConfig, folders: Sequence[Path] = ()) -> list[str] | None:
    """`check_evaluation`, that every file is there and fits the video, and that the results may be written.

    Nothing heavy is imported, so that mistakes are told at once.

    Raises:
        InputError: a value, a file that is not there, cannot be read or does not fit, or results that would replace an
            input or somebody's file.
    """
    names, read = check_evaluation(config), list[Path]()
    for what in ("video", "reference", "mask", "scene"):
        if name := getattr(config, what):
            read.append(find_path(name, folders, what=what, folder=True))
    if config.run:
        run_folder(find_path(config.run, folders, what="run", folder=True))
    else:
        shape = _opened(config.video, "video", folders).frames.shape
        if outside := [join for join in junctions_of(config) if not 1 <= join <= shape[0] - 2]:
            raise InputError(f"junctions are {outside}; expected frames 1 … {shape[0] - 2}")
        if config.reference is not None:
            open_like(config.reference, "reference", shape, folders)
        if config.mask is not None:
            open_mask(config.mask, shape, folders)
        for entry in find_keyframes(config, folders) if config.keyframes else ():
            load_keyframe(entry, shape)
    if config.vbench is not None:
        require_writable(at_home(config.vbench) / "prompt_file.json")
    if config.output is not None:
        _check_output(at_home(config.output), read)
    return names


def junctions_of(config: EvaluationConfig) -> tuple[int, ...]:
    """The frames of the joins that are given. Raises InputError."""
    words = [word.strip() for word in config.junctions.split(",") if word.strip()]
    if any(not word.isdecimal() for word in words):
        raise InputError(f"junctions is {config.junctions!r}; expected frame numbers such as 24,48")
    return tuple(map(int, words))


def _opened(name: FileName, what: str, folders: Sequence[Path]) -> "OpenedSource":
    from wanedit.video.source import open_source

    return open_source(find_path(name, folders, what=what, folder=True))


def open_like(name: FileName, what: str, shape: tuple[int, ...], folders: Sequence[Path]) -> "OpenedSource":
    """A clip of the video's shape (T, H, W, 3). Raises InputError for one of another."""
    found = _opened(name, what, folders)
    if found.frames.shape != shape:
        sizes = [
            f"{frames} frames of {width}x{height}" for frames, height, width, _ in (found.frames.shape, shape)
        ]
        raise InputError(f"{what} has {sizes[0]}; expected the video's {sizes[1]}")
    return found


def open_mask(
    name: FileName, shape: tuple[int, ...], folders: Sequence[Path]
) -> "LoadedImage | OpenedSource":
    """One picture of the video's size, or a clip of its shape (T, H, W, 3). Raises InputError for neither."""
    from wanedit.video.images import count_pictures, load_image

    path = find_path(name, folders, what="mask", folder=True)
    if path.is_dir() or count_pictures(path) != 1:
        return open_like(name, "mask", shape, folders)
    picture = load_image(path)
    if (said := _other_size(picture, shape)) is not None:
        raise InputError(f"mask is {said}")
    return picture


def load_keyframe(entry: EditedFrame, shape: tuple[int, ...]) -> "LoadedImage":
    """A picture that a video of shape (T, H, W, 3) should show. Raises InputError where it cannot."""
    from wanedit.video.images import load_image

    if not 0 <= entry.index < shape[0]:
        raise InputError(f"keyframe {entry.index} lies outside the video's frames 0 … {shape[0] - 1}")
    image = load_image(entry.path)
    if (said := _other_size(image, shape)) is not None:
        raise InputError(f"keyframe {entry.index} is {said}")
    return image


def _other_size(picture: "LoadedImage", shape: tuple[int, ...]) -> str | None:
    height, width = picture.pixels.shape[:2]
    if (height, width) == shape[1:3]:
        return None
    return f"{width}x{height}; expected {shape[2]}x{shape[1]}"


def _check_output(path: Path, read: Sequence[Path]) -> None:
    """See that the results replace nothing but results. Raises InputError."""
    table = path.with_suffix(".csv")
    check_outputs([path], read)
    # Records of other jobs are wanedit's too.
    if path.exists() and path.stat().st_size and "metrics" not in read_json(path, "results of an evaluation"):
        raise InputError(f"output {path} is no result of an evaluation; expected one, or another output")
    ours = False
    if table.is_file():
        with table.open("rb") as file:
            ours = file.readline().rstrip() == HEADER.encode()
    check_outputs([table], read, ours)


def find_keyframes(config: EvaluationConfig, folders: Sequence[Path] = ()) -> list[EditedFrame]:
    """The keyframes and their frames. Raises InputError as `parse_edited`."""

    return parse_edited(
        config.keyframes,
        folders,
        source=lambda: _opened(config.video, "video", folders),
        first_number=config.first_number,
    )
