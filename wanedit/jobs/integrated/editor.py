"""IntegratedVideoEditor: from a video and a style to the edited video, step by step, as a Python object."""

import contextlib
import json
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wanedit import __version__
from wanedit.errors import InputError, MissingWeightsError
from wanedit.files import OnDisk, at_home, partials, system_errors, write_text
from wanedit.jobs.edit.config import EditConfig
from wanedit.jobs.edit.pipeline import (
    Number,
    StrPath,
    WanVideoEditorPipeline,
    frame_numbers,
    sound_beside,
)
from wanedit.jobs.integrated import STYLED
from wanedit.jobs.style.config import StyleConfig, StyleSource
from wanedit.jobs.style.run import StyleResult, style_async
from wanedit.lit.model import open_model
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.outputs import check_outputs, film_metadata
from wanedit.runtime.settings import FINAL_NAME, canonical, film_of, with_changes
from wanedit.stylists.extract import open_clip
from wanedit.stylists.protocol import Record, Stylist
from wanedit.timeline import MODEL_LIMIT, rate_of
from wanedit.video import write_png, write_video
from wanedit.video.arrays import AnyFrame, Frames, require_same_size
from wanedit.video.formats import format_of
from wanedit.video.sheets import comparison_sheet, contact_indices
from wanedit.video.sound import SoundOf, silent
from wanedit.video.source import read_source
from wanedit.video.tensors import Picture, pixels_of

FRAMES = "frames"
REFERENCE_KEYS = ("image_path", "description")
SHEET_FRAMES = 8
# Fields of EditConfig that every edit is given anew.
OF_ONE_EDIT = {"video", "keyframes", "prompt"}


@dataclass(frozen=True, repr=False)
class SavedResults(OnDisk):
    """Files of `save_results`; as a path, the video.

    Attributes:
        video, contact_sheet, metadata: the film, its sheet, and what is known of the run.
        keyframes: by frame.
        frames: one picture for each frame, where a folder was asked for.
    """

    video: Path
    contact_sheet: Path
    keyframes: dict[int, Path]
    metadata: Path
    frames: tuple[Path, ...] = ()

    def __fspath__(self) -> str:
        return str(self.video)


class IntegratedVideoEditor:
    """Restyles a video: keyframes by a stylist, all frames between by a Wan model.

    Args:
        wan_model_size: "tiny", "1.3B", "14B", another known name, a hub id, or a folder in the official layout.
        stylist: "palette", "gemini", or any object that is a `wanedit.stylists.protocol.Stylist`.
        output_dir: a folder to keep keyframes, answers and the edit in, so that a stopped run goes on.
        settings: further fields of EditConfig, by their names or aliases, for every method that has no value of its
            own: alpha, beta, cfg_scale (guidance_scale) and num_inference_steps are those of EditConfig unless given;
            fps, start, num_frames and decoder say how a source is read, crf how a result is written.

    The stretch of a video that is edited, `start` and `num_frames`, is the one it was styled or loaded with last, else
    the editor's own, else as many frames as the model is good for: so keyframes are frames that are edited too.

    Raises:
        InputError: `stylist` is neither text nor a stylist; a setting is no field, or belongs to one edit alone.

    Examples:
        >>> editor = IntegratedVideoEditor("tiny", output_dir="outputs/dusk")
        >>> keyframes, indices, metadata = await editor.generate_styled_keyframes(
        ...     "street.mp4", style_reference={"image_path": "dusk.png"}
        ... )
        >>> source = editor.load_source_video("street.mp4")
        >>> frames = editor.run_video_editing("a street at dusk", source, keyframes, indices)
        >>> editor.save_results(frames, "outputs/final", keyframes, indices, metadata)
    """

    def __init__(
        self,
        wan_model_size: StrPath = "tiny",
        stylist: str | Stylist = "palette",
        output_dir: StrPath = "outputs/integrated",
        **settings: object,
    ) -> None:
        if isinstance(stylist, type) or not isinstance(stylist, str | Stylist):
            raise InputError(
                f"stylist is {stylist!r}; expected palette, gemini, or an object that is a Stylist"
            )
        self.model = os.fspath(wan_model_size)
        self.stylist = stylist
        self.settings = canonical(settings)
        for name in OF_ONE_EDIT & self.settings.keys():
            raise InputError(f"{name} is no setting of the editor; expected it with each edit")
        if "model" in self.settings:
            raise InputError("model is given besides wan_model_size; expected one of them")
        self.output = at_home(str(self.settings.pop("output", output_dir)))
        self.config = with_changes(EditConfig(), **self.settings)
        self.pipeline: WanVideoEditorPipeline | None = None
        self.styled: StyleResult | None = None
        self.fps: Fraction | None = None
        self.sound_of: SoundOf = silent
        self.sources: set[Path] = set()
        # (start, num_frames) of each source that was styled or loaded.
        self.stretches: dict[Path, tuple[int, int]] = {}

    async def generate_styled_keyframes(
        self,
        video_path: StrPath,
        style_reference: Mapping[str, StrPath | None],
        target_fps: float = 1.0,
        max_frames: int = 10,
        indices: Sequence[Number] | np.ndarray | None = None,
        start: int | None = None,
        num_frames: int | None = None,
        verbose: bool = True,
        **settings: object,
    ) -> tuple[list[Image.Image], list[int], Record]:
        """Choose keyframes of a video and restyle them; what was answered before is not asked again.

        Args:
            style_reference: {"image_path": a picture, "description": words}, either or both.
            target_fps: keyframes a second of the source; max_frames: at most so many.
            indices: frames to take instead, in any order.
            start, num_frames: the stretch that keyframes are taken from and that is edited; None as the class says.
            settings: further fields of StyleConfig, such as retries; fps and decoder are the editor's own unless given.

        Returns:
            The keyframes, of the source's size, in the order of their frames; these frames, ascending, counted from
            `start`; and the record of how they were made (guide, verdicts, provenance).

        Raises:
            InputError, RejectedKeyframesError, ServiceError, ResourceError: as `wanedit.jobs.style.run.style`.
        """
        if not isinstance(style_reference, Mapping):
            raise InputError(
                f"style_reference is {style_reference!r}; expected a mapping with some of {', '.join(REFERENCE_KEYS)}"
            )
        if unknown := [name for name in style_reference if name not in REFERENCE_KEYS]:
            raise InputError(
                f"style_reference has {unknown[0]!r}; expected some of {', '.join(REFERENCE_KEYS)}"
            )
        image, words = style_reference.get("image_path"), style_reference.get("description")
        named = isinstance(self.stylist, str)
        given = self._own("fps", "decoder", "force_regenerate") | settings
        read = {name: given[name] for name in ("fps", "decoder") if name in given}
        config = with_changes(
            StyleConfig(
                video=os.fspath(video_path),
                style=StyleSource(None if image is None else os.fspath(image), str(words or "")),
                indices=None if indices is None else frame_numbers(indices, "indices"),
                target_fps=target_fps,
                max_frames=max_frames,
                output=str(self.output / STYLED),
            ),
            **({"stylist": self.stylist} if named else {}),
            **self._stretch(Path(video_path), start, num_frames, verbose, read),
            **given,
        )
        self._remember(video_path, image)
        own = None if isinstance(self.stylist, str) else self.stylist
        self.styled = await style_async(config, stylist=own, verbose=verbose)
        keyframes = [Image.fromarray(frame) for frame in self.styled.keyframes]
        return keyframes, list(self.styled.indices), self.styled.metadata

    def load_wan_pipeline(self) -> WanVideoEditorPipeline:
        """The editing pipeline, made once.

        Raises:
            InputError: neither a folder nor a known name, or an unknown setting.
            MissingWeightsError: the model is not on this machine.
        """
        if self.pipeline is None:
            self.pipeline = WanVideoEditorPipeline.from_pretrained(self.model, **self.settings)
        return self.pipeline

    @property
    def pipe(self) -> WanVideoEditorPipeline:
        """The editing pipeline, as `load_wan_pipeline` makes it."""
        return self.load_wan_pipeline()

    def load_source_video(
        self,
        video_path: StrPath,
        start: int | None = None,
        num_frames: int | None = None,
        verbose: bool = True,
        **settings: object,
    ) -> Frames:
        """Frames of a video, uint8 (T, H, W, 3), exactly `num_frames` of them from `start`; its rate and its
        sound are remembered.

        Args:
            start, num_frames: the stretch that is edited; None as the class says.
            verbose: print what was normalised, and where the stretch ends before the video does.
            settings: further arguments of `wanedit.video.source.read_source`; None for the editor's own.

        Raises:
            InputError: the video cannot be read, or has no such frames.
        """
        self._remember(video_path)
        arguments = self._own("fps", "decoder", "salvage")
        arguments |= {name: value for name, value in settings.items() if value is not None}
        read = {name: arguments[name] for name in ("fps", "decoder") if name in arguments}
        stretch = self._stretch(Path(video_path), start, num_frames, verbose, read)
        clip = read_source(Path(video_path), **stretch, **arguments)
        for note in clip.notes if verbose else ():
            print(f"note: {note}")
        self.fps, self.sound_of = clip.fps, clip.sound_of
        return clip.frames

    def run_video_editing(
        self,
        prompt: str,
        source_frames: StrPath | Sequence[Picture] | np.ndarray,
        styled_keyframes: Sequence[Picture],
        keyframe_indices: Sequence[int] | np.ndarray,
        alpha: Number | None = None,
        beta: Number | None = None,
        cfg_scale: Number | None = None,
        num_inference_steps: Number | None = None,
        seed: Number | None = None,
        verbose: bool = True,
        **settings: Any,
    ) -> list[Image.Image]:
        """Spread edited keyframes over the whole video; see `WanVideoEditorPipeline.__call__`.

        Args:
            source_frames: frames as `load_source_video` returns them; or a path, of which the stretch that was styled
                is edited.
            styled_keyframes, keyframe_indices: pictures, and the frame of the stretch that each is an edit of.
            alpha, beta, cfg_scale, num_inference_steps, seed: None for the editor's own.
            settings: further fields of EditConfig, for this edit alone.

        Returns:
            As many frames as the source has.

        Raises:
            InputError: as the pipeline; a keyframe of a frame that was not loaded.
        """
        if isinstance(source_frames, str | os.PathLike):
            read = {name: settings[name] for name in ("fps", "decoder") if name in settings}
            start, num_frames = settings.pop("start", None), settings.pop("num_frames", None)
            settings |= self._stretch(Path(source_frames), start, num_frames, verbose, read)
        else:
            # Frames in memory were chosen when they were loaded, and are not to be cut a second time.
            settings = {"start": 0, "num_frames": None, "fps": self.fps and float(self.fps)} | settings
            settings["sound_of"] = getattr(source_frames, "sound_of", self.sound_of)
            count, last = (
                len(source_frames),
                max(frame_numbers(keyframe_indices, "keyframe_indices"), default=0),
            )
            if last >= count:
                raise InputError(
                    f"keyframe {last} is none of the {count} frames that were loaded; expected the same num_frames "
                    "for generate_styled_keyframes and load_source_video"
                )
        return self.load_wan_pipeline()(
            prompt,
            source_frames,
            styled_keyframes,
            keyframe_indices,
            alpha=alpha,
            beta=beta,
            cfg_scale=cfg_scale,
            num_inference_steps=num_inference_steps,
            seed=seed,
            output=self.output,
            verbose=verbose,
            **settings,
        )

    @system_errors()
    def save_results(
        self,
        frames: Sequence[Picture] | np.ndarray,
        output_path: StrPath,
        keyframes: Sequence[Picture] = (),
        indices: Sequence[Number] = (),
        metadata: Mapping[str, object] | None = None,
        source_video: np.ndarray | None = None,
        fps: float | None = None,
        crf: int | None = None,
    ) -> SavedResults:
        """Write a video and, beside it, its contact sheet, keyframes and metadata; into a folder, every frame too.

        Everything is checked before anything is written, and no file of another origin is replaced. H.264 has no odd
        sides: there the last row or column is left out of the video, with a warning, and `written_size` in the metadata
        says what was written. The sound is that of the frames' source, or of the one that was loaded last; where it
        does not fit, a warning says so.

        Args:
            output_path: of the video, by the ending of its name (.mp4, .mov, .mkv, .webm or .gif), and the others take
                its name; or a folder for all of them, with frames/0000.png and so on, which `wanedit edit` reads as a
                source.
            keyframes, indices: pictures and the frames that they belong to.
            metadata: JSON values; what JSON does not have is written as text.
            source_video: frames of the source, for the sheet.
            fps: of the video; None for that of the source that was loaded last, else the editor's own.
            crf: quality of H.264, 0 (lossless) to 51; None for the editor's own, which is 16 unless given.

        Raises:
            InputError: no frames or unequal ones, another kind of file, no rate, keyframes without an index of their
                own each, metadata with NaN, a file that would overwrite a source, or a folder that holds a run or
                frames of somebody else.
            ResourceError: the disk is full.
        """
        film = film_of(output_path)
        folder = at_home(output_path) if film is None else None
        path = film or at_home(output_path) / FINAL_NAME
        kind = format_of(path)
        if not len(frames):
            raise InputError(f"no frames for {path}; expected some")
        pictures = np.stack([*require_same_size((pixels_of(f, "frames") for f in frames), "frames")])
        shown_at = next((f for f in (fps, self.fps, self.config.fps) if f is not None), None)
        if shown_at is None:
            raise InputError("fps is None and no source was loaded; expected frames a second")
        rate = rate_of(shown_at)
        shown = _keyframes(keyframes, indices, len(pictures))
        kind.require_rate(rate)
        height, width = kind.fitted(*pictures.shape[1:3])
        if not height or not width:
            raise InputError(
                f"frames are {pictures.shape[2]}x{pictures.shape[1]}; expected 2 pixels or more a side"
            )
        values = {"wanedit": __version__, **(metadata or {}), "written_size": [width, height]}
        try:
            text = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False, default=str) + "\n"
        except (TypeError, ValueError) as error:
            raise InputError(f"metadata: {error}; expected JSON values") from None
        rows = {"source": dict(enumerate(() if source_video is None else source_video))}
        rows |= {"keyframes": shown, "edited": dict(enumerate(pictures))}
        places = tuple(sorted(shown))
        at = contact_indices(len(pictures), places, max(SHEET_FRAMES, len(places)))
        drawn = comparison_sheet({name: row for name, row in rows.items() if row}, at, places, rate)
        name = "" if folder else f"{path.stem}_"
        saved = SavedResults(
            path,
            path.with_name(f"{name}contact_sheet.png"),
            {index: path.with_name(f"{name}keyframe_{index:04d}.png") for index in shown},
            path.with_name(f"{name}metadata.json"),
            tuple(folder / FRAMES / f"{i:04d}.png" for i in range(len(pictures))) if folder else (),
        )
        stale = _stale(folder, saved) if folder else []
        written = (
            path,
            saved.contact_sheet,
            saved.metadata,
            *saved.keyframes.values(),
            *saved.frames,
            *stale,
        )
        check_outputs(written, self.sources)
        self._require_outside(*written)
        if (height, width) != pictures.shape[1:3]:
            warnings.warn(
                f"{pictures.shape[2]}x{pictures.shape[1]} has an odd side, which H.264 cannot have: {width}x{height} "
                "are written",
                stacklevel=2,
            )
        for place in {path.parent, *(place.parent for place in saved.frames)}:
            place.mkdir(parents=True, exist_ok=True)
        for place in written:
            # Others may be writing into the same folder.
            for partial in partials(place.parent, place.name):
                partial.unlink(missing_ok=True)
        sound = sound_beside(getattr(frames, "sound_of", self.sound_of), len(pictures), rate, kind)
        write_video(
            path,
            pictures,
            rate,
            film_metadata(len(pictures)),
            self.config.crf if crf is None else crf,
            sound=sound,
        )
        for place in stale:
            place.unlink()
        for place, frame in zip(saved.frames, pictures, strict=bool(folder)):
            write_png(place, frame)
        for index, place in saved.keyframes.items():
            write_png(place, shown[index])
        write_text(saved.metadata, text)
        write_png(saved.contact_sheet, drawn)
        return saved

    def _own(self, *names: str) -> dict[str, Any]:
        """Those of these settings that were given to the editor."""
        return {name: self.settings[name] for name in names if name in self.settings}

    def _stretch(
        self, path: Path, start: int | None, num_frames: int | None, verbose: bool, read: dict[str, Any]
    ) -> dict[str, int]:
        """`start` and `num_frames` of the frames of a video that are edited, remembered for the next call."""
        path, own = at_home(path), self._own("start", "num_frames")
        if start is None and num_frames is None:
            start, num_frames = self.stretches.get(path, (None, None))
        first: int = own.get("start", 0) if start is None else start
        count: int | None = own.get("num_frames") if num_frames is None else num_frames
        if count is None:
            limit = MODEL_LIMIT
            with contextlib.suppress(MissingWeightsError):  # which only `load_wan_pipeline` needs
                limit = open_model(self.model).sampling.max_frames
            left = open_clip(path, first, **read).count
            count = min(left, limit)
            if verbose and left > count:
                print(
                    f"note: {path.name}: frames {first} to {first + count - 1} are edited, as many as {self.model} is "
                    f"good for; num_frames={left} edits all"
                )
        self.stretches[path] = (first, count)
        return {"start": first, "num_frames": count}

    def _remember(self, *sources: StrPath | None) -> None:
        self.sources |= {at_home(source) for source in sources if source is not None}

    def _require_outside(self, *written: Path) -> None:
        """Refuse to write among the images of a source."""
        for source in filter(Path.exists, self.sources):
            for place in written:
                if place.resolve().is_relative_to(source.resolve()):
                    raise InputError(f"output {place} is also an input, {source}; expected another place")


def _stale(folder: Path, saved: SavedResults) -> list[Path]:
    """Frames of an earlier call that this one does not write.

    Raises:
        InputError: the folder holds a run, or other files among its frames.
    """
    if (folder / RunDirectory(folder, saved.video).config.name).exists():
        raise InputError(f"{folder} holds a run; expected another folder for results")
    found = [*(folder / FRAMES).glob("[!.]*")]
    if foreign := [place for place in found if not re.fullmatch(r"\d{4,}\.png", place.name)]:
        raise InputError(f"{min(foreign)} was not written by save_results; expected another folder")
    return [place for place in found if place not in saved.frames]


def _keyframes(keyframes: Sequence[Picture], indices: Sequence[Number], count: int) -> dict[int, AnyFrame]:
    """Keyframes by their frames, of `count`."""
    numbers = frame_numbers(indices, "indices")
    if len(keyframes) != len(numbers):
        raise InputError(f"{len(keyframes)} keyframes and {len(numbers)} indices; expected one for each")
    wrong = [i for i in numbers if not 0 <= i < count or numbers.count(i) > 1]
    if wrong:
        raise InputError(f"indices hold {wrong[0]}; expected each once, of the frames 0 to {count - 1}")
    return {i: pixels_of(k, f"keyframe {i}") for i, k in zip(numbers, keyframes, strict=True)}
