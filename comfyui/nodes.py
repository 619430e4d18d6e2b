"""wanedit in ComfyUI: keyframes, generate, edit, evaluate joins, as nodes of the V3 schema.

A node's inputs are settings of wanedit by their names; 0 or an empty text leaves one to the model. What a node makes is
a run's folder in ComfyUI's output folder, so that a workflow that was stopped goes on, and one of whose keyframes
changed samples only what is around it.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import comfy.model_management
import comfy.utils
import folder_paths
import numpy as np
import torch
from comfy_api.latest import ComfyExtension, InputImpl, io

CATEGORY = "wanedit"
OWN = "of the model"  # in lists of files: none of ComfyUI's
# Settings that name a file, and where ComfyUI keeps such.
FILES = {
    "transformer": "diffusion_models", "transformer_low": "diffusion_models", "vae": "vae",
    "text_encoder": "text_encoders", "image_encoder": "clip_vision",
}  # fmt: skip
MAX_SIDE, MAX_SEED = 8192, 2**63 - 1
Keyframes = io.Custom("WANEDIT_KEYFRAMES")
Model = io.Custom("WANEDIT_MODEL")


@dataclass(frozen=True)
class Timed:
    """Keyframes: pictures (H, W, 3) uint8, the seconds of each, and what happens between each and the next."""

    pictures: tuple[np.ndarray, ...]
    seconds: tuple[float, ...]
    prompts: tuple[str, ...]


def pixels(image: torch.Tensor) -> np.ndarray:
    """An IMAGE, float (B, H, W, C) in [0, 1], as uint8 (B, H, W, 3)."""
    return (image[..., :3].detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def image(frames: np.ndarray) -> torch.Tensor:
    """The other way round."""
    return torch.from_numpy(np.ascontiguousarray(frames)).float() / 255


def numbers(text: str, name: str) -> list[float]:
    """Numbers apart by commas, spaces or lines. Raises InputError for other words."""
    from wanedit.errors import InputError

    words = re.split(r"[\s,;]+", text.strip())
    try:
        return [float(word) for word in words if word]
    except ValueError:
        raise InputError(f"{name} is {text!r}; expected numbers such as 0, 1.5, 4") from None


def run_folder(name: str) -> Path:
    """A folder in ComfyUI's output folder. Raises InputError for a name that leads out of it."""
    from wanedit.errors import InputError

    root = Path(folder_paths.get_output_directory()).resolve()
    found = (root / name.strip()).resolve()
    if not name.strip() or found == root or not found.is_relative_to(root):
        raise InputError(f"folder is {name!r}; expected a name inside ComfyUI's output folder")
    return found


@contextmanager
def counted_by_comfy() -> Iterator[None]:
    """Work inside is ComfyUI's: its bar shows the outermost count, and its cancel ends the work at the next step."""
    from wanedit.progress import listening

    depth = 0

    @contextmanager
    def listener(label: str, unit: str, total: int | None) -> Iterator[Callable[..., None]]:
        nonlocal depth
        depth += 1
        bar = comfy.utils.ProgressBar(total) if depth == 1 and total else None

        def advance(units: int = 1, /) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            if bar is not None:
                bar.update(units)

        try:
            yield advance
        finally:
            depth -= 1

    # ComfyUI runs nodes in inference mode, whose tensors know no derivative, which covariance control asks for.
    with torch.inference_mode(False), torch.no_grad(), listening(listener):
        yield


def given(**settings: Any) -> dict[str, Any]:
    """Those settings that are not left to the model: not 0, not empty."""
    return {name: value for name, value in settings.items() if value not in (0, 0.0, "", None)}


def choices(kind: type, name: str) -> tuple[str, ...]:
    """What a setting may be."""
    return get_args(get_type_hints(kind)[name])


def of_sampling() -> list[io.Input]:
    """Inputs of whatever samples."""
    return [
        Model.Input(
            "model", optional=True, tooltip="wan-tiny, which comes with wanedit, where none is given"
        ),
        io.Int.Input("width", default=0, min=0, max=MAX_SIDE, step=16, tooltip="0: the model's own size"),
        io.Int.Input("height", default=0, min=0, max=MAX_SIDE, step=16),
        io.Int.Input("steps", default=0, min=0, max=1000, tooltip="0: the model's own"),
        io.Float.Input(
            "guidance_scale", default=0.0, min=0.0, max=100.0, step=0.1, tooltip="0: the model's own"
        ),
        io.Int.Input("seed", default=0, min=0, max=MAX_SEED, control_after_generate=True),
    ]


def sampling(width: int, height: int, steps: int, guidance_scale: float) -> dict[str, Any]:
    """The settings that these inputs stand for."""
    from wanedit.errors import InputError

    if bool(width) != bool(height):
        raise InputError(f"width is {width} and height {height}; expected both, or both 0")
    size = f"{width}*{height}" if width else ""
    return given(size=size, num_inference_steps=steps, guidance_scale=guidance_scale)


class WaneditModel(io.ComfyNode):
    """Which model: a name, a folder, or files that ComfyUI has."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Its inputs and outputs."""
        files = [
            io.Combo.Input(
                name, options=[OWN, *folder_paths.get_filename_list(kind)], default=OWN, advanced=True
            )
            for name, kind in FILES.items()
        ]
        name = io.String.Input(
            "name", default="tiny", tooltip="a name of `wanedit models`, or a model's folder"
        )
        return io.Schema(
            node_id="WaneditModel",
            display_name="wanedit model",
            category=CATEGORY,
            description="A Wan model by name or folder; its parts may be ComfyUI's own files.",
            inputs=[name, *files],
            outputs=[Model.Output(display_name="model")],
        )

    @classmethod
    def execute(cls, name: str, **files: str) -> io.NodeOutput:
        """Settings of wanedit, by their names."""
        paths = {
            part: folder_paths.get_full_path_or_raise(FILES[part], file)
            for part, file in files.items()
            if file != OWN
        }
        return io.NodeOutput({"model": name.strip() or "tiny"} | paths)


class WaneditKeyframes(io.ComfyNode):
    """Pictures, when each is seen, and what happens in between."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Its inputs and outputs."""
        pictures = io.Autogrow.TemplatePrefix(io.Image.Input("image"), prefix="image", min=1, max=100)
        return io.Schema(
            node_id="WaneditKeyframes",
            display_name="wanedit keyframes",
            category=CATEGORY,
            description="Pictures on a time line. A batch counts as so many pictures.",
            inputs=[
                io.Autogrow.Input("images", template=pictures),
                io.String.Input(
                    "seconds", default="", tooltip="of each picture: 0, 1.5, 4; empty for even ones"
                ),
                io.Float.Input(
                    "every", default=1.0, min=0.01, max=60.0, step=0.01, tooltip="seconds between even ones"
                ),
                io.String.Input(
                    "prompts",
                    default="",
                    multiline=True,
                    tooltip="a line for each step from one picture to the next, or none",
                ),
            ],
            outputs=[Keyframes.Output(display_name="keyframes")],
        )

    @classmethod
    def execute(
        cls, images: dict[str, torch.Tensor], seconds: str, every: float, prompts: str
    ) -> io.NodeOutput:
        """The pictures, timed."""
        from wanedit.errors import InputError

        pictures = [one for batch in images.values() if batch is not None for one in pixels(batch)]
        times = numbers(seconds, "seconds") or [k * every for k in range(len(pictures))]
        if len(times) != len(pictures):
            raise InputError(
                f"seconds has {len(times)} numbers for {len(pictures)} pictures; expected one for each"
            )
        lines = [line.strip() for line in prompts.splitlines()] if prompts.strip() else []
        if lines and len(lines) != len(pictures) - 1:
            raise InputError(
                f"prompts has {len(lines)} lines for {len(pictures) - 1} steps; expected one for each, or none"
            )
        return io.NodeOutput(Timed(tuple(pictures), tuple(times), tuple(lines)))


class WaneditGenerate(io.ComfyNode):
    """A film through keyframes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Its inputs and outputs."""
        from wanedit import GenerationConfig

        return io.Schema(
            node_id="WaneditGenerate",
            display_name="wanedit generate",
            category=CATEGORY,
            description="A film that shows each keyframe at its time. Run again, it samples only what changed.",
            inputs=[
                Keyframes.Input("keyframes"),
                io.String.Input("prompt", default="", multiline=True),
                *of_sampling(),
                io.Float.Input("fps", default=0.0, min=0.0, max=240.0, tooltip="0: the model's own"),
                io.Combo.Input("joins", options=list(choices(GenerationConfig, "joins")), default="none"),
                io.String.Input(
                    "folder", default="wanedit/film", tooltip="of the run, in ComfyUI's output folder"
                ),
            ],
            outputs=[
                io.Image.Output(display_name="frames"),
                io.Video.Output(display_name="video"),
                io.String.Output(display_name="joins"),
            ],
        )

    @classmethod
    def execute(
        cls, keyframes: Timed, prompt: str, width: int, height: int, steps: int, guidance_scale: float, seed: int,
        fps: float, joins: str, folder: str, model: dict[str, Any] | None = None,
    ) -> io.NodeOutput:  # fmt: skip
        """Frames, the film, and the measures of its joins as JSON, by frame."""
        from wanedit import GenerationConfig, generate
        from wanedit.errors import InputError
        from wanedit.video import read_frames, write_png

        root = run_folder(folder)
        (root / "keyframes").mkdir(parents=True, exist_ok=True)
        pairs = []
        for picture, at in zip(keyframes.pictures, keyframes.seconds, strict=True):
            path = (
                root
                / "keyframes"
                / f"{hashlib.sha256(picture.tobytes()).hexdigest()[:16]}_{picture.shape[1]}.png"
            )
            if not path.exists():
                write_png(path, picture)
            pairs.append([str(path), at])
        config = GenerationConfig(
            keyframes=pairs,
            prompt=prompt,
            sub_prompts=list(keyframes.prompts),
            joins=joins,
            output=str(root),
            base_seed=seed,
            **sampling(width, height, steps, guidance_scale),
            **given(fps=fps),
            **(model or {}),
        )
        with counted_by_comfy():
            made = generate(config, verbose=False)
            frames = read_frames(made.video)
        try:
            measures: object = scores_of(frames, list(made.keyframe_frames[1:-1]))
        except InputError as error:  # of a film without joins, or too short to compare with
            measures = {"note": str(error)}
        video = InputImpl.VideoFromFile(str(made.video))
        return io.NodeOutput(image(frames), video, json.dumps(measures, indent=1))


class WaneditEdit(io.ComfyNode):
    """A video that follows edited frames of it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Its inputs and outputs."""
        from wanedit import EditConfig
        from wanedit.flow import CONTROLLERS

        return io.Schema(
            node_id="WaneditEdit",
            display_name="wanedit edit",
            category=CATEGORY,
            description="Put edited frames back into their video: all of it follows.",
            inputs=[
                io.Image.Input("images", tooltip="the source's frames"),
                Keyframes.Input(
                    "keyframes", tooltip="edited frames; their seconds count from the first frame"
                ),
                io.String.Input("prompt", default="", multiline=True, tooltip="what the edited video shows"),
                io.String.Input(
                    "source_prompt",
                    default="",
                    multiline=True,
                    tooltip="what the source shows; empty for the same",
                ),
                *of_sampling(),
                io.Float.Input(
                    "fps",
                    default=16.0,
                    min=0.01,
                    max=240.0,
                    tooltip="of the source, by which seconds become frames",
                ),
                io.Combo.Input("controller", options=sorted(CONTROLLERS), default="exponential"),
                io.Combo.Input("restore", options=list(choices(EditConfig, "restore")), default="auto"),
                io.String.Input(
                    "folder", default="wanedit/edit", tooltip="of the run, in ComfyUI's output folder"
                ),
            ],
            outputs=[io.Image.Output(display_name="frames")],
        )

    @classmethod
    def execute(
        cls, images: torch.Tensor, keyframes: Timed, prompt: str, source_prompt: str, width: int, height: int,
        steps: int, guidance_scale: float, seed: int, fps: float, controller: str, restore: str, folder: str,
        model: dict[str, Any] | None = None,
    ) -> io.NodeOutput:  # fmt: skip
        """The edited frames."""
        from wanedit import WanVideoEditorPipeline

        root = run_folder(folder)
        with counted_by_comfy():
            parts = dict(model or {"model": "tiny"})
            pipeline = WanVideoEditorPipeline.from_pretrained(parts.pop("model"), **parts)
            edited = pipeline(
                prompt=prompt,
                source_video=pixels(images),
                edited_keyframes=list(keyframes.pictures),
                keyframe_indices=[round(at * fps) for at in keyframes.seconds],
                output=root,
                seed=seed,
                verbose=False,
                fps=fps,
                controller=controller,
                restore=restore,
                **sampling(width, height, steps, guidance_scale),
                **given(source_prompt=source_prompt),
            )
        return io.NodeOutput(image(np.stack([np.asarray(frame) for frame in edited])))


class WaneditEvaluateJoins(io.ComfyNode):
    """Whether a film's joins show."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Its inputs and outputs."""
        return io.Schema(
            node_id="WaneditEvaluateJoins",
            display_name="wanedit evaluate joins",
            category=CATEGORY,
            description="Measures each join of a film against the rest of it.",
            inputs=[
                io.Image.Input("images"),
                io.String.Input("frames", default="", tooltip="at which parts were joined: 24, 64"),
            ],
            outputs=[io.String.Output(display_name="joins"), io.Boolean.Output(display_name="any_shows")],
        )

    @classmethod
    def execute(cls, images: torch.Tensor, frames: str) -> io.NodeOutput:
        """Measures as JSON, by frame; and whether one of the joins shows."""
        found = scores_of(pixels(images), [int(at) for at in numbers(frames, "frames")])
        shows = any(one["shows"] for join in found.values() for one in join.values())
        return io.NodeOutput(json.dumps(found, indent=1), shows)


def scores_of(frames: np.ndarray, joins: list[int]) -> dict[int, dict[str, Any]]:
    """The measures of every join, by frame. Raises InputError for joins that cannot be measured."""
    from wanedit.metrics.functional.junctions import junction_scores

    found = junction_scores(frames, joins)
    return {at: {name: asdict(one) for name, one in join.items()} for at, join in found.items()}


class WaneditExtension(ComfyExtension):
    """What ComfyUI loads."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """All nodes."""
        return [WaneditModel, WaneditKeyframes, WaneditGenerate, WaneditEdit, WaneditEvaluateJoins]


async def comfy_entrypoint() -> WaneditExtension:
    """What ComfyUI calls."""
    return WaneditExtension()
