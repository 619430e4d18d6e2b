"""EditConfig: everything an editing run can be told, the checks that need no model, and its keyframes."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from wanedit import timeline
from wanedit.errors import InputError
from wanedit.flow import CONTROLLERS
from wanedit.flow.methods import METHODS
from wanedit.lit import require_model
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.inputs import EditedFrame, find_path, parse_edited
from wanedit.runtime.settings import (
    Count,
    Everyday,
    FileName,
    Index,
    NotNegative,
    Positive,
    Registered,
    SampledSettings,
    Share,
    check_run,
)

if TYPE_CHECKING:
    from wanedit.video.source import OpenedSource


@dataclass(frozen=True, kw_only=True)
class EditConfig(SampledSettings):
    """One editing run. Fields that are null take the value that the model was made for.

    Attributes:
        video: the source, a video file or a folder of images.
        keyframes: edited frames: pairs [path, frame], frames increasing; "a.png:0,b.png:20"; with a decimal point the
            number is seconds; or a folder with a keyframes.json (as `wanedit style` writes it), with images named by
            their frame, such as 0020.png, or, of a source that is a folder too, as its images. Where a keyframe is
            transparent, the source stays.
        first_number: the number of the source's first frame in the names of a folder of keyframes: 0, or 1 as FFmpeg
            counts; null for 0, and to be asked where the names begin with 1.
        prompt: what the edited video shows.
        source_prompt: what the source shows; null for `prompt`, so that the keyframes alone make the difference.
        start: the first frame of the source to edit; keyframe indices count from it.
        num_frames: how many frames; null for all to the end. The model works on the next 4n+1 of them, the last frame
            held, and the output is cut back to exactly this many.
        fps: frames a second of a folder of images; null for 16.
        decoder: pyav, or decord (an extra).
        salvage: take what can be decoded of a damaged video.
        size: "width*height", both even; null for the source's shape at most as large as the model's own size, in
            multiples of 16, for TI2V-5B of 32. Others are worked on at the next ones and cut back to exactly this size.
        resize_policy: how the source comes to `size`: crop, pad (with black) or stretch. auto: stretch where the result
            has the source's own size, which undoes it; else crop.
        keyframe_fit: how a keyframe of another shape than the source is brought to that first: stretch; crop; inside:
            it is the middle of the frame, and the source stays around it. auto: whichever lays its edges nearest.
        keyframe_align: lay a keyframe exactly over its frame where it is off by pixels or a few levels of colour, as
            image models return them. auto: where what the two have in common shows it, with a note; off.
        long_source: what to do with a source beyond the model's limit. windows: average the velocities of overlapping
            windows of that length; whole: show it to the model at once; error: refuse it.
        method: how to edit.
        method_options: further fields of the method, such as {"strength": 0.7}; they win over the fields below.
        controller: what ties the keyframes in, for methods that have one. exponential is stable with any alpha and
            steps; residual, the seed method, is replaced by it at steps where it would diverge.
        controller_options: further fields of the controller, such as {"solve": "full"}.
        alpha: how hard keyframes pull, 1 to 20 is usual.
        beta: how hard the clip pulls on its keyframes, 0 to 1 is usual.
        guidance_scale: classifier-free guidance of the edited clip, 1 to 10 is usual; 1.0 skips the unconditional pass.
        source_guidance_scale: of the source; null for `guidance_scale`, which an exact identity needs.
        num_inference_steps: sampler steps, 20 to 100 is usual of published models.
        shift: schedule shift.
        keyframe_encoding: how a keyframe becomes the latent of its slot's four frames. single: as a video of one frame;
            group: held for all of them; warped: moved to each of them by the source's optical flow; anchored: the
            source's latent and what the warped edit changes in it.
        restore: what the edit gets back in pixels. source: what the VAE lost of the source. residual: that, and what is
            missing at the keyframes, carried along the source's motion; for edits that move by themselves, such as
            falling snow. keyframes: that, and the keyframes themselves wherever the source's motion can be followed
            to them. fused: that in each frame's light; elsewhere, and where two keyframes show one moving thing in two
            places, the model's picture so far as it is right beside what the keyframes show. auto: what the method says
            of itself (`restored_by`).
        output_size: of the result. model: what the model works at. source: the source's own, which `restore` fills with
            the source's and the keyframes' detail. auto: source where the edit is restored and no `size` is given.
        condition_keyframes: also show the keyframes to the model where it can be shown them.
        middle_strength: how firmly a keyframe that is shown in the middle of the clip is held, 0 (left out) to 1; one
            number, or one for each expert, high noise first. Null for the model's own.
        gpu_id: which device; null for the first.
    """

    job: Literal["edit"] = "edit"
    video: str | os.PathLike[str] = ""
    keyframes: Annotated[FileName | Sequence[Any], Everyday("what goes in")] = field(default_factory=list)
    first_number: Index | None = None
    prompt: Annotated[str, Everyday("what goes in")] = ""
    source_prompt: str | None = None
    start: Index = 0
    num_frames: Count | None = None
    decoder: Literal["pyav", "decord"] = "pyav"
    salvage: bool = False
    resize_policy: Literal["auto", "crop", "pad", "stretch"] = "auto"
    keyframe_fit: Literal["auto", "stretch", "crop", "inside"] = "auto"
    keyframe_align: Literal["auto", "off"] = "auto"
    long_source: Literal["windows", "whole", "error"] = "windows"
    method: Annotated[str, Registered("wanedit.flow.methods:METHODS"), Everyday("how")] = "residual_corrected"
    method_options: dict[str, Any] = field(default_factory=dict)
    controller: Annotated[str, Registered("wanedit.flow:CONTROLLERS"), Everyday("how")] = "exponential"
    controller_options: dict[str, Any] = field(default_factory=dict)
    alpha: NotNegative = 10.0
    beta: NotNegative = 0.0
    guidance_scale: NotNegative | None = None
    source_guidance_scale: NotNegative | None = None
    num_inference_steps: Annotated[Count | None, Everyday("how")] = None
    shift: Positive | None = None
    keyframe_encoding: Literal["single", "group", "warped", "anchored"] = "anchored"
    restore: Literal["auto", "none", "source", "residual", "keyframes", "fused"] = "auto"
    output_size: Literal["auto", "model", "source"] = "auto"
    condition_keyframes: bool = True
    middle_strength: Share | Sequence[Share] | None = None
    gpu_id: Index | None = None
    output: Annotated[FileName, Everyday("what comes out")] = "outputs/edit"

    @property
    def devices(self) -> list[int]:
        """Device indices."""
        return [] if self.gpu_id is None else [self.gpu_id]


def check_edit(config: EditConfig) -> None:
    """Refuse values that no model can make sense of.

    Raises:
        InputError: naming the field, what was got and what was expected.
    """
    check_run(config)
    if not config.video:
        raise InputError("video is empty; expected a video file or a folder of images")


@dataclass(frozen=True)
class EditInputs:
    """What a configuration names outside of itself, found.

    Attributes:
        total: frames of the source. sides: (height, width) of them as they are stored.
    """

    video: Path
    total: int
    sides: tuple[int, int]
    keyframes: tuple[EditedFrame, ...]

    def frames(self, config: EditConfig) -> int | None:
        """How many of the source are edited; None for a stretch beyond it, of which its reader says more."""
        left = self.total - config.start
        asked = left if config.num_frames is None else config.num_frames
        return asked if 0 < asked <= left else None


def find_inputs(config: EditConfig, folders: Sequence[Path] = (), styled: bool = False) -> EditInputs:
    """Check the settings, then files, frames and names; nothing heavy is imported, so that mistakes are told at once.

    Args:
        folders: where relative paths are looked up after the current folder.
        styled: the keyframes are still to be made.

    Raises:
        InputError: a value, a name, or a file that is not there; keyframes out of order or beyond the source.
        MissingWeightsError: the model is not on this machine.
    """
    check_edit(config)
    METHODS.check_options(config.method, config.method_options)
    CONTROLLERS.check_options(config.controller, config.controller_options)
    path = find_path(config.video, folders, what="video", folder=True)

    def opened() -> "OpenedSource":
        from wanedit.video.source import open_source

        stretch = {"start": config.start, "num_frames": config.num_frames}
        return open_source(path, decoder=config.decoder, fps=config.fps, salvage=config.salvage, **stretch)

    keyframes = (
        [] if styled else parse_edited(config.keyframes, folders, config.start, opened, config.first_number)
    )
    indices = [keyframe.index for keyframe in keyframes]
    if not styled:
        timeline.check_keyframes(len(indices), indices)
    require_model(config.source, config.parts)
    total, sides = _look(path, config.salvage)
    found = EditInputs(path, total, sides, tuple(keyframes))
    if found.frames(config) is None:
        opened()  # which refuses the stretch
    if indices and (frames := found.frames(config)) is not None:
        timeline.check_keyframes(len(indices), indices, frames)
        if path.is_dir():
            found = replace(found, keyframes=_landed(keyframes, path, config.start))
    from wanedit.video.images import require_image  # brings NumPy, which other mistakes do without

    for keyframe in keyframes:
        require_image(keyframe.path)
    return found


def _landed(keyframes: Sequence[EditedFrame], folder: Path, start: int) -> tuple[EditedFrame, ...]:
    """Keyframes of a folder whose numbering has gaps say on which image they land, unless it bears their name."""
    from wanedit.video.images import list_images, numbering_gaps

    images = list_images(folder)
    if not numbering_gaps(images):
        return tuple(keyframes)
    landed = [(k, images[start + k.index]) for k in keyframes]
    return tuple(
        k
        if k.path.stem == image.stem
        else replace(k, note=f"{k.note}; " * bool(k.note) + f"frame {k.index} is {image.name}")
        for k, image in landed
    )


def check_output(config: EditConfig, video: Path, keyframes: Sequence[EditedFrame]) -> None:
    """See that the run's files may be written.

    Raises:
        InputError: one was not written by wanedit, or is one of the inputs; or the run would lie among the images that
            it is made from.
    """
    directory = RunDirectory(config.folder, config.final_path)
    directory.check([video, *(keyframe.path for keyframe in keyframes)])
    folder = video.resolve()
    if folder.is_dir() and folder in (directory.root.resolve(), *directory.root.resolve().parents):
        raise InputError(f"output {directory.root} lies in the source's folder, which holds images only")


def _look(path: Path, salvage: bool) -> tuple[int, tuple[int, int]]:
    """How many frames a source has, and (height, width) of them as they are stored."""
    from wanedit.video.decode import describe, scanned
    from wanedit.video.images import list_images, load_image

    if path.is_dir():
        images = list_images(path)
        height, width, _ = load_image(images[0]).pixels.shape
        return len(images), (height, width)
    info = describe(path, scanned(path, salvage))
    return info.frames, (info.height, info.width)
