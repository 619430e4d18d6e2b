"""What the settings of an edit come to, and its pictures: the source, and what keyframes and result change of it."""

import threading
from pathlib import Path
from typing import Any, get_args

import numpy as np

from wanedit.board.runs import BESIDE, Run, film_of, named, pairs, picture_id
from wanedit.errors import InputError
from wanedit.files import Json, digest, is_there
from wanedit.flow import CONTROLLERS
from wanedit.flow.methods import METHODS
from wanedit.jobs.edit.config import EditConfig, check_edit, check_output
from wanedit.jobs.edit.pictures import PlacedKeyframe
from wanedit.jobs.edit.plan import is_complete, make_edit_plan, resolve_edit
from wanedit.jobs.integrated import OF_THE_SOURCE, STYLED
from wanedit.jobs.style.config import StyleConfig, StyleSource
from wanedit.jobs.style.run import style
from wanedit.report.clips import fitted, painted
from wanedit.report.record import listing
from wanedit.runtime.cost import forward_flops
from wanedit.runtime.inputs import find_path
from wanedit.runtime.record import read_settings, recorded_config
from wanedit.runtime.settings import field_hints
from wanedit.video import load_image, read_frames, write_video
from wanedit.video.arrays import AnyFrame
from wanedit.video.images import fit
from wanedit.video.source import OpenedSource, open_source, register

# As those of `films`.
OPEN_FIELDS = (
    "prompt", "source_prompt", "negative_prompt", "model", "size", "start", "num_frames", "method", "controller",
    "alpha", "beta", "restore", "keyframe_encoding", "keyframe_fit", "keyframe_align", "resize_policy", "output_size",
    "long_source",
    "condition_keyframes", "num_inference_steps", "shift", "guidance_scale", "source_guidance_scale", "base_seed",
)  # fmt: skip
SAMPLES = "editing"
OF_ANY_MODEL = (
    "video", "keyframes", "prompt", "source_prompt", "base_seed", "start", "num_frames", "fps", "decoder", "salvage",
    "method", "controller", "restore", "keyframe_fit", "keyframe_align", "output_size", "output", "job", "crf",
)  # fmt: skip
# Ways to edit, for whoever does not know the methods: words, and the settings that they stand for.
WAYS: tuple[tuple[str, Json], ...] = (
    ("Follows the motion of the source", {}),
    ("Moves by itself: snow, fire, water", {"restore": "residual"}),
    ("As the model makes it, nothing restored", {"restore": "none"}),
    ("Keyframes pull their surroundings along (dearer)", {"controller": "covariance"}),
    ("Freely from the source, keyframes as a hint", {"method": "sdedit"}),
    ("No model: keyframes carried by the motion", {"method": "warp"}),
)
OF_A_WAY = ("method", "controller", "restore")
PREVIEW, WIDEST = ".board-source-{}.mp4", 960
GREY, FACTOR = 0.35, 4  # of the picture under its changes, and by how much these are amplified

_encoding = threading.Lock()


def ways() -> list[Json]:
    """The ways to edit, each with all the settings that it stands for, and what else these may be."""
    own = {name: getattr(EditConfig, name) for name in OF_A_WAY}
    return [{"words": words, "settings": own | settings} for words, settings in WAYS]


def choices() -> Json:
    """What the settings of a way may be besides."""
    restores = get_args(field_hints(EditConfig)["restore"])
    return {
        "ways": ways(), "methods": sorted(METHODS), "controllers": sorted(CONTROLLERS), "restores": restores,
    }  # fmt: skip


def keyframes_of(values: Json) -> list[list[Any]]:
    """Pairs of what the page calls a picture, and its frame."""
    return [[picture_id(path), frame] for path, frame in pairs(values)]


def source(run: Run, values: Json) -> OpenedSource:
    """The stretch that is edited; its frames are read as they are asked for. Raises InputError for none."""
    config = recorded_config(EditConfig, values, run.root)
    check_edit(config)
    return open_source(
        find_path(config.video, what="video", folder=True),
        decoder=config.decoder,
        fps=config.fps,
        start=config.start,
        num_frames=config.num_frames,
        salvage=config.salvage,
    )


def shown_source(run: Run, values: Json) -> Json:
    """What the page must know of it. Raises InputError where it cannot be read."""
    clip = source(run, values)
    count, height, width, _ = clip.frames.shape
    # Of the stretch, which the preview shows.
    changed = [str(values["video"]), clip.path.stat().st_mtime_ns, clip.start, count, str(clip.fps)]
    return {
        "id": digest({"source": changed})[:16],
        "frames": count,
        "start": clip.start,
        "total": clip.total,
        "size": [width, height],
        "fps": float(clip.fps),
    }


def planned(run: Run, values: Json) -> Json:
    """What the settings come to.

    Raises:
        WaneditError: what stands in the way.
    """
    plan = make_edit_plan(resolve_edit(run.config(EditConfig, values), run.directory))
    check_output(plan.config, plan.source.path, plan.keyframes)
    complete, passes = is_complete(plan, run.directory), plan.rehearsal.evaluations
    flops = seconds = peak = None
    if plan.wan and (needed := plan.memory):
        flops = forward_flops(plan.wan.config, plan.tokens) * passes
        speed = run.speed(plan.wan.config, plan.wan.name, "edited")
        seconds = flops / speed if speed else None
        peak = max(needed.encoders, needed.sampling) + BESIDE
    (height, width), frames = plan.task.pictures.frames.shape[1:3], len(plan.task.frames)
    return {
        "num_frames": frames,
        "keyframe_frames": list(plan.task.keyframe_indices),
        "size": [width, height],
        "warnings": [named(run, values, note) for note in plan.warnings],
        "resolved": {name: getattr(plan.config, name) for name in OPEN_FIELDS},
        "about": plan.about,
        "made_by": plan.model.name,
        "digest": plan.task.digest,
        "cost": {
            "segments": 0 if complete else 1,
            "of": 1,
            "bridges": 0,
            "pieces": 0,
            "passes": passes,
            "flops": flops,
            "seconds": seconds,
            "memory": peak,
        },
    }


def restyled(
    run: Run, values: Json, frame: int, stylist: str, words: str, image: str | None
) -> dict[int, AnyFrame]:
    """A frame of the source in a look, and those of the run that have it already, made to agree; by frame.

    Raises:
        InputError: no such frame, or no look.
        RejectedKeyframesError, ServiceError, ResourceError: of `wanedit.jobs.style.run.style`.
    """
    folder, indices = run.root / STYLED, {frame}
    look = {"stylist": stylist, "style": {"image": image, "description": words}}
    if is_there(folder / "config.yaml"):
        earlier = read_settings(folder / "config.yaml")
        if all(earlier.get(name) == look[name] for name in look):
            indices |= {one for one in listing(earlier.get("indices")) if isinstance(one, int)}
    stretch = {name: values[name] for name in (*OF_THE_SOURCE, "video") if values.get(name) is not None}
    config = StyleConfig(
        stylist=stylist,
        style=StyleSource(image, words),
        indices=sorted(indices),
        output=str(folder),
        **stretch,
    )
    made = style(config, verbose=False)
    return dict(zip(made.indices, made.keyframes, strict=True))


def preview(run: Run, values: Json) -> Path:
    """The source as a film that every browser plays, its frame n at n / fps seconds; made once for a stretch.

    Raises:
        InputError: the source cannot be read.
        ResourceError: the disk is full.
    """
    clip = source(run, values)
    path = run.root / PREVIEW.format(shown_source(run, values)["id"])
    with _encoding:
        if not is_there(path):
            for earlier in run.root.glob(PREVIEW.format("*")):
                earlier.unlink(missing_ok=True)
            write_video(
                path, (fitted(frame, WIDEST) for frame in clip.frames), clip.fps, crf=20, preset="veryfast"
            )
    return path


def changes(run: Run, values: Json, of: str, index: int) -> AnyFrame:
    """What is changed of a frame of the source: grey where nothing is, the brighter the more.

    Args:
        of: `film`, the result, or `keyframe`, the picture that was put there.

    Raises:
        InputError: there is none, or it shows another stretch.
    """
    clip = source(run, values)
    if not 0 <= index < len(clip.frames):
        raise InputError(f"frame {index} asked for, the source has frames 0 to {len(clip.frames) - 1}")
    before = clip.frames[index]
    if of == "film":
        film = film_of(run)
        if film is None or film["start"] != clip.start or index >= film["frames"]:
            raise InputError("there is no result of this frame")
        after = fit(read_frames(run.directory.final, [index])[0], before.shape[:2], "stretch")[0]
    else:
        at = next((path for path, frame in pairs(values) if frame == index), None)
        if at is None:
            raise InputError(f"there is no picture at frame {index}")
        image, fitting = load_image(at), values.get("keyframe_fit", EditConfig.keyframe_fit)
        laid = register(image.pixels, before, before.shape[:2], "stretch", fitting)
        placed = PlacedKeyframe(index, image.pixels, laid, image.alpha)
        after = placed.shown(before, "stretch")
        if values.get("keyframe_align", EditConfig.keyframe_align) == "auto":
            after = placed.alignment(after, before).undone(after, before)
    levels = np.abs(after.astype(np.int16) - before).max(axis=-1).astype(np.uint8)
    grey = before.mean(axis=-1, keepdims=True).repeat(3, axis=-1) * GREY
    return np.maximum(grey.astype(np.uint8), painted(levels, FACTOR))
