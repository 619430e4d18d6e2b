"""From a configuration to tasks: every decision made, every input read, no weight loaded."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from wanedit import timeline
from wanedit.errors import InputError, MissingWeightsError
from wanedit.jobs.generate.config import GenerationConfig, check, ordered, prompts
from wanedit.lit.chain import ChainSettings, SegmentTask
from wanedit.runtime.hashing import compute_kind, digest, hash_files, pixels_sha256
from wanedit.runtime.inputs import parse_keyframes
from wanedit.runtime.settings import parse_size
from wanedit.types import Keyframe, Timeline
from wanedit.video import FitRecord, fit, from_uint8, load_image
from wanedit.wan import load
from wanedit.wan.catalog import fitting
from wanedit.wan.condition import prompt_doubts
from wanedit.wan.load import WanFolder, open_wan

# Raised when a change to the code changes the pixels of a segment for the same inputs.
ALGORITHM = 3
Say = Callable[[str], None]


@dataclass(frozen=True)
class KeyframeImage:
    """A keyframe at the size of the run.

    Attributes:
        pixels: uint8 (H, W, 3).
        notes: what was normalised when it was read.
        fit: how it came to its size.
    """

    keyframe: Keyframe
    pixels: np.ndarray
    notes: tuple[str, ...]
    fit: FitRecord

    @property
    def sha256(self) -> str:
        return pixels_sha256(self.pixels)


@dataclass(frozen=True)
class Plan:
    """A run, decided. `config` holds no null that a model's default could fill."""

    config: GenerationConfig
    folder: WanFolder
    timeline: Timeline
    keyframes: tuple[KeyframeImage, ...]
    settings: ChainSettings
    tasks: tuple[SegmentTask, ...]
    warnings: tuple[str, ...]
    model_files: dict[str, str]
    """SHA-256 of every file that decides what the model computes, by its path inside the model's folder."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return parse_size(self.config.size or "")


def make_plan(config: GenerationConfig, folders: Sequence[Path] = (), say: Say = lambda text: None) -> Plan:
    """Check everything and decide everything.

    Args:
        config: `base_seed` must be set and not negative.
        folders: where relative keyframe paths are looked up after the current folder.
        say: told before something that takes long.

    Raises:
        InputError: a value, a keyframe image or their times cannot be used.
        MissingWeightsError: the model is not there.
    """
    check(config)
    keyframes = ordered(parse_keyframes(config.keyframes, folders), config.sort_keyframes)
    # Times are judged once with a provisional rate, before the model's folder is even looked for.
    timeline.plan([k.seconds for k in keyframes], config.fps or 16, timeline.round_up(10**9), stretch=True)
    if config.ckpt_dir is not None and not Path(config.ckpt_dir).expanduser().is_dir():
        raise MissingWeightsError(
            f"ckpt_dir {config.ckpt_dir} is not a folder; expected one in the official layout"
        )
    folder = open_wan(config.source)
    load.require_parts(folder)
    config = fill_defaults(config, folder)
    seconds = [k.seconds for k in keyframes]
    stretch = config.long_segments == "stretch"
    chain = timeline.plan(seconds, config.fps or 0, folder.sampling.max_frames, stretch)
    images, notes = _load_keyframes(keyframes, config)
    settings = ChainSettings(
        config.num_inference_steps or 0,
        config.shift or 0,
        1.0 if config.guidance_scale is None else config.guidance_scale,
        config.solver,
        bool(config.offload_model),
        config.t5_cpu,
        config.tile,
    )
    notes += _doubts(folder, prompts(config, len(chain.segments)))
    if folder.sampling.full_size:
        notes += timeline.warnings(chain)
    config = replace(config, keyframes=[[str(k.path.absolute()), k.seconds] for k in keyframes])
    files = hash_files(folder, say)
    tasks = _tasks(config, digest(files), chain, images, settings)
    return Plan(config, folder, chain, tuple(images), settings, tuple(tasks), tuple(notes), files)


def fill_defaults(config: GenerationConfig, folder: WanFolder) -> GenerationConfig:
    """Replace nulls by the values that the model was made for."""
    own = folder.sampling
    if not folder.config.condition_channels:
        raise InputError(
            f"{folder.name} reads no images ({folder.config.model_type}); expected a flf2v or i2v model"
        )
    defaults: dict[str, Any] = {
        "negative_prompt": own.negative_prompt,
        "size": own.size,
        "fps": own.fps,
        "num_inference_steps": own.num_inference_steps,
        "shift": own.shift,
        "guidance_scale": own.guidance_scale,
    }
    return replace(
        config, **{name: value for name, value in defaults.items() if getattr(config, name) is None}
    )


def _load_keyframes(
    keyframes: list[Keyframe], config: GenerationConfig
) -> tuple[list[KeyframeImage], list[str]]:
    images, notes = [], []
    for keyframe in keyframes:
        loaded = load_image(keyframe.path)
        pixels, record = fit(loaded.pixels, parse_size(config.size or ""), config.resize_policy)
        if record.warning:
            notes.append(f"{keyframe.path.name}: {record.warning}")
        images.append(KeyframeImage(keyframe, pixels, loaded.notes, record))
    return images, notes


def _doubts(folder: WanFolder, texts: list[str]) -> list[str]:
    """What will run, but perhaps not as meant."""
    notes = []
    if folder.known is None:
        names = ", ".join(model.name for model in fitting(folder.config)) or "no known model"
        notes.append(
            f"{folder.path.name} has the layout of {names}: settings that are not given take general defaults; name "
            "the folder after its model, or give num_inference_steps, shift, guidance_scale and negative_prompt"
        )
    elif folder.known.name.startswith("Wan2.1-I2V"):
        notes.append(
            f"{folder.name} was trained on a first frame alone; it may miss the last keyframe of a segment"
        )
    return notes + prompt_doubts(folder.path, folder.config.text_len, texts)


def _tasks(
    config: GenerationConfig,
    model: str,
    chain: Timeline,
    images: list[KeyframeImage],
    settings: ChainSettings,
) -> list[SegmentTask]:
    tensors = [from_uint8(image.pixels[None])[:, 0] for image in images]
    tasks = []
    for segment, prompt in zip(chain.segments, prompts(config, len(chain.segments)), strict=True):
        k = segment.index
        decides = {
            "algorithm": ALGORITHM,
            "compute": compute_kind(),
            "model": model,
            "keyframes": [images[k].sha256, images[k + 1].sha256],
            "prompt": prompt,
            "negative_prompt": config.negative_prompt if settings.guidance_scale != 1.0 else "",
            "frames": segment.sampled_frames,
            "index": k,
            "seed": config.base_seed,
            "sampler": {
                name: value
                for name, value in asdict(settings).items()
                if name not in ("offload_model", "t5_cpu")
            },
        }
        tasks.append(
            SegmentTask(
                k,
                segment.sampled_frames,
                tensors[k],
                tensors[k + 1],
                prompt,
                config.negative_prompt or "",
                config.base_seed or 0,
                digest(decides),
            )
        )
    return tasks
