"""IntegratedVideoEditor: from a video and a style to the edited video, step by step, as a Python object."""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wanedit.errors import InputError
from wanedit.files import write_text
from wanedit.jobs.edit.config import EditConfig
from wanedit.jobs.edit.pipeline import Number, Picture, WanVideoEditorPipeline, frame_numbers, pixels_of
from wanedit.jobs.integrated import OF_THE_SOURCE, STYLED
from wanedit.jobs.style.config import StyleConfig, StyleSource
from wanedit.jobs.style.run import StyleResult, style_async
from wanedit.runtime.settings import VIDEO_SUFFIXES, canonical, with_changes
from wanedit.stylists.protocol import Record, Stylist
from wanedit.video import write_mp4, write_png
from wanedit.video.arrays import AnyFrame, Frames, require_same_size
from wanedit.video.encode import as_rate
from wanedit.video.sheets import comparison_sheet, contact_indices
from wanedit.video.source import read_source

# The sizes that the models come in. Inpainting models: they can be shown any keyframe.
MODEL_SIZES = {"tiny": "tiny", "1.3B": "Wan2.1-Fun-1.3B-InP", "14B": "Wan2.1-Fun-14B-InP"}
REFERENCE_KEYS = ("image_path", "description")
SHEET_FRAMES = 8
# Fields of EditConfig that every edit is given anew.
OF_ONE_EDIT = {"video", "keyframes", "prompt"}


@dataclass(frozen=True)
class SavedResults:
    """Files of `save_results`: the video, its sheet, the keyframes by frame, and what is known of the run."""

    video: Path
    contact_sheet: Path
    keyframes: dict[int, Path]
    metadata: Path


class IntegratedVideoEditor:
    """Restyles a video: keyframes by a stylist, all frames between by a Wan model.

    Args:
        wan_model_size: "tiny", "1.3B", "14B", another known name, or a folder in the official layout.
        stylist: "palette", "gemini", or any object that is a `wanedit.stylists.protocol.Stylist`.
        output: a folder to keep keyframes, answers and the edit in, so that a stopped run goes on.
        settings: further fields of EditConfig, by their names or aliases, for every method that has no value of its
            own: alpha, beta, cfg_scale (guidance_scale) and num_inference_steps are 10, 0, 5 and 50 unless given; fps,
            start, num_frames and decoder say how a source is read, crf how a result is written.

    Raises:
        InputError: `stylist` is neither text nor a stylist; a setting is no field, or belongs to one edit alone.

    Example:
        >>> editor = IntegratedVideoEditor("tiny", output="outputs/dusk")
        >>> keyframes, indices, metadata = await editor.generate_styled_keyframes(
        ...     "street.mp4", style_reference={"image_path": "dusk.png"}
        ... )
        >>> source = editor.load_source_video("street.mp4")
        >>> frames = editor.run_video_editing("a street at dusk", source, keyframes, indices)
        >>> editor.save_results(frames, "dusk.mp4", keyframes, indices, metadata)
    """

    def __init__(
        self,
        wan_model_size: str | Path = "tiny",
        stylist: str | Stylist = "palette",
        output: str | Path = "outputs/integrated",
        **settings: object,
    ) -> None:
        if isinstance(stylist, type) or not isinstance(stylist, str | Stylist):
            raise InputError(
                f"stylist is {stylist!r}; expected palette, gemini, or an object that is a Stylist"
            )
        self.model = MODEL_SIZES.get(str(wan_model_size), str(wan_model_size))
        self.stylist = stylist
        self.output = Path(output).expanduser()
        self.settings = canonical(settings)
        for name in OF_ONE_EDIT & self.settings.keys():
            raise InputError(f"{name} is no setting of the editor; expected it with each edit")
        self.config = with_changes(EditConfig(), **self.settings)
        self.pipeline: WanVideoEditorPipeline | None = None
        self.styled: StyleResult | None = None
        self.fps: Fraction | None = None
        self.sources: set[Path] = set()

    async def generate_styled_keyframes(
        self,
        video_path: str | Path,
        style_reference: Mapping[str, str | Path | None],
        target_fps: float = 1.0,
        max_frames: int = 10,
        indices: Sequence[Number] | np.ndarray | None = None,
        verbose: bool = False,
        **settings: object,
    ) -> tuple[list[Image.Image], list[int], Record]:
        """Choose keyframes of a video and restyle them; what was answered before is not asked again.

        Args:
            style_reference: {"image_path": a picture, "description": words}, either or both.
            target_fps: keyframes a second of the source; max_frames: at most so many.
            indices: frames to take instead, in any order.
            settings: further fields of StyleConfig, such as retries; start, num_frames, fps and decoder are the
                editor's own unless given.

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
        config = with_changes(
            StyleConfig(
                video=str(video_path),
                style=StyleSource(None if image is None else str(image), str(words or "")),
                indices=None if indices is None else frame_numbers(indices, "indices"),
                target_fps=target_fps,
                max_frames=max_frames,
                output=str(self.output / STYLED),
            ),
            **({"stylist": self.stylist} if named else {}),
            **self._own(*OF_THE_SOURCE, "force_regenerate"),
            **settings,
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

    def load_source_video(
        self,
        video_path: str | Path,
        start: int | None = None,
        num_frames: int | None = None,
        **settings: object,
    ) -> Frames:
        """Frames of a video, uint8 (T, H, W, 3), exactly `num_frames` of them from `start`; its rate is remembered.

        Args:
            start, num_frames: None for the editor's own, else from the first frame to the last.
            settings: further arguments of `wanedit.video.source.read_source`; None likewise.

        Raises:
            InputError: the video cannot be read, or has no such frames.
        """
        self._remember(video_path)
        given = {"start": start, "num_frames": num_frames, **settings}
        arguments = self._own(*OF_THE_SOURCE, "salvage")
        arguments |= {name: value for name, value in given.items() if value is not None}
        clip = read_source(Path(video_path), **arguments)
        self.fps = clip.fps
        return clip.frames

    def run_video_editing(
        self,
        prompt: str,
        source_video: str | Path | Sequence[Picture] | np.ndarray,
        edited_keyframes: Sequence[Picture],
        keyframe_indices: Sequence[int] | np.ndarray,
        alpha: Number | None = None,
        beta: Number | None = None,
        cfg_scale: Number | None = None,
        num_inference_steps: Number | None = None,
        seed: Number | None = None,
        verbose: bool = False,
        **settings: Any,
    ) -> list[Image.Image]:
        """Spread edited keyframes over the whole video; see `WanVideoEditorPipeline.__call__`.

        Args:
            source_video: a path, of which the editor's `start` and `num_frames` choose the frames; or all frames.
            alpha, beta, cfg_scale, num_inference_steps, seed: None for the editor's own.
            settings: further fields of EditConfig, for this edit alone.

        Returns:
            As many frames as the source has.
        """
        if not isinstance(source_video, str | Path):
            # Frames in memory were chosen when they were loaded, and are not to be cut a second time.
            settings = {"start": 0, "num_frames": None} | settings
        return self.load_wan_pipeline()(
            prompt,
            source_video,
            edited_keyframes,
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

    def save_results(
        self,
        frames: Sequence[Picture] | np.ndarray,
        output_path: str | Path,
        keyframes: Sequence[Picture] = (),
        indices: Sequence[Number] = (),
        metadata: Mapping[str, object] | None = None,
        source_video: np.ndarray | None = None,
        fps: float | None = None,
        crf: int | None = None,
    ) -> SavedResults:
        """Write a video and, beside it, its contact sheet, keyframes and metadata.

        Everything is checked before anything is written. H.264 has no odd sides: there the last row or column is left
        out of the video, with a warning, and `written_size` in the metadata says what was written.

        Args:
            output_path: of the video, .mp4 or .mov; the others take its name.
            keyframes, indices: pictures and the frames that they belong to.
            metadata: JSON values; what JSON does not have is written as text.
            source_video: frames of the source, for the sheet.
            fps: of the video; None for that of the source that was loaded last, else the editor's own.
            crf: quality of H.264, 0 (lossless) to 51; None for the editor's own, which is 16 unless given.

        Raises:
            InputError: no frames or unequal ones, another kind of file, no rate, keyframes without an index of their
                own each, metadata with NaN, or a file that would overwrite a source.
            ResourceError: the disk is full.
        """
        path = Path(output_path).expanduser()
        if not len(frames) or path.suffix.lower() not in VIDEO_SUFFIXES:
            raise InputError(
                f"{len(frames)} frames for {path}; expected some, and a file in {VIDEO_SUFFIXES}"
            )
        pictures = np.stack([*require_same_size((pixels_of(f, "frames") for f in frames), "frames")])
        shown_at = next((f for f in (fps, self.fps, self.config.fps) if f is not None), None)
        if shown_at is None:
            raise InputError("fps is None and no source was loaded; expected frames a second")
        rate = as_rate(shown_at)
        shown = _keyframes(keyframes, indices, len(pictures))
        height, width = (side // 2 * 2 for side in pictures.shape[1:3])
        if not height or not width:
            raise InputError(
                f"frames are {pictures.shape[2]}x{pictures.shape[1]}; expected 2 pixels or more a side"
            )
        values = {**(metadata or {}), "written_size": [width, height]}
        try:
            text = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False, default=str) + "\n"
        except (TypeError, ValueError) as error:
            raise InputError(f"metadata: {error}; expected JSON values") from None
        rows = {"source": dict(enumerate(() if source_video is None else source_video))}
        rows |= {"keyframes": shown, "edited": dict(enumerate(pictures))}
        places = tuple(sorted(shown))
        at = contact_indices(len(pictures), places, max(SHEET_FRAMES, len(places)))
        drawn = comparison_sheet({name: row for name, row in rows.items() if row}, at, places, rate)
        saved = SavedResults(
            path,
            path.with_name(f"{path.stem}_contact_sheet.png"),
            {index: path.with_name(f"{path.stem}_keyframe_{index:04d}.png") for index in shown},
            path.with_name(f"{path.stem}_metadata.json"),
        )
        self._require_no_source(path, saved.contact_sheet, saved.metadata, *saved.keyframes.values())
        if (height, width) != pictures.shape[1:3]:
            warnings.warn(
                f"{pictures.shape[2]}x{pictures.shape[1]} has an odd side, which H.264 cannot have: {width}x{height} "
                "are written",
                stacklevel=2,
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_mp4(path, pictures[:, :height, :width], rate, {}, self.config.crf if crf is None else crf)
        for index, place in saved.keyframes.items():
            write_png(place, shown[index])
        write_text(saved.metadata, text)
        write_png(saved.contact_sheet, drawn)
        return saved

    def _own(self, *names: str) -> dict[str, Any]:
        """Those of these settings that were given to the editor."""
        return {name: self.settings[name] for name in names if name in self.settings}

    def _remember(self, *sources: str | Path | None) -> None:
        self.sources |= {Path(source).expanduser() for source in sources if source is not None}

    def _require_no_source(self, *written: Path) -> None:
        """Refuse to overwrite a source, or to write among the images of one."""
        for source in filter(Path.exists, self.sources):
            for place in written:
                inside = place.resolve().is_relative_to(source.resolve())
                if inside or (place.exists() and place.samefile(source)):
                    raise InputError(f"output {place} is also an input, {source}; expected another place")


def _keyframes(keyframes: Sequence[Picture], indices: Sequence[Number], count: int) -> dict[int, AnyFrame]:
    """Keyframes by their frames, of `count`."""
    numbers = frame_numbers(indices, "indices")
    if len(keyframes) != len(numbers):
        raise InputError(f"{len(keyframes)} keyframes and {len(numbers)} indices; expected one for each")
    wrong = [i for i in numbers if not 0 <= i < count or numbers.count(i) > 1]
    if wrong:
        raise InputError(f"indices hold {wrong[0]}; expected each once, of the frames 0 to {count - 1}")
    return {i: pixels_of(k, f"keyframe {i}") for i, k in zip(numbers, keyframes, strict=True)}
