"""What decides a training of wan-tiny, checked when it is made, and the record of it in the training's folder."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from wanedit.errors import InputError
from wanedit.files import atomic_path

# The small clips that the VAE sees; its stages can ask for no more.
SMALL_SIZE, SMALL_FRAMES = 64, 17
ACCELERATORS = ("auto", "cpu", "gpu", "cuda")
# Where a training runs and where its result goes do not make it another training.
FREE = ("out", "assets", "accelerator", "compiled")


@dataclass(frozen=True)
class VaeStage:
    """One stage of the VAE: clips of `num_frames` cut to crop x crop pixels.

    It ends at `max_steps` or after `minutes`, whichever is first.

    Raises:
        InputError: num_frames is not 4n + 1 up to 17, crop no multiple of 8 up to 64, or a number is not above 0.
    """

    num_frames: int
    crop: int
    batch: int
    max_steps: int
    minutes: float
    learning_rate: float

    def __post_init__(self) -> None:
        _positive(self, "vae", "batch", "max_steps", "minutes", "learning_rate")
        frames_fit = _is_length(self.num_frames) and self.num_frames <= SMALL_FRAMES
        _require(frames_fit, "vae: num_frames", self.num_frames, f"4n + 1, at most {SMALL_FRAMES}")
        crop_fits = self.crop % 8 == 0 and 0 < self.crop <= SMALL_SIZE
        _require(crop_fits, "vae: crop", self.crop, f"a multiple of 8, at most {SMALL_SIZE}")


@dataclass(frozen=True)
class Bucket:
    """Clips of size x size pixels for the transformer, cut to each of `lengths` (increasing, in frames).

    `batches` and `weights` (shares of the batches) have one number per length. The clips are those of the seeds
    from `first_seed` on; `encode_batch` of them go through the VAE at a time. A length of 1 makes stills, drawn
    from text alone: they teach the words at a fraction of a clip's cost.

    Raises:
        InputError: size is no multiple of 16, a length not 4n + 1, or the numbers do not go together.
    """

    size: int
    lengths: tuple[int, ...]
    clips: int
    first_seed: int
    batches: tuple[int, ...]
    weights: tuple[float, ...]
    encode_batch: int = 4

    def __post_init__(self) -> None:
        _positive(self, "bucket", "clips", "encode_batch")
        _require(self.size > 0 and self.size % 16 == 0, "bucket: size", self.size, "a multiple of 16")
        _require(self.first_seed >= 0, "bucket: first_seed", self.first_seed, "at least 0")
        increasing = all(a < b for a, b in pairwise(self.lengths))
        lengths_fit = bool(self.lengths) and increasing and all(map(_is_length, self.lengths))
        _require(lengths_fit, "bucket: lengths", self.lengths, "increasing numbers of frames, each 4n + 1")
        for name in ("batches", "weights"):
            values = getattr(self, name)
            fits = len(values) == len(self.lengths) and min(values) > 0
            _require(fits, f"bucket: {name}", values, f"{len(self.lengths)} above 0, one per length")


@dataclass(frozen=True)
class FlowStage:
    """The transformer's stage; `image_from` is the part of the budget after which image tokens take part.

    Raises:
        InputError: no bucket, image_from outside [0, 1], or a number is not above 0.
    """

    max_steps: int
    minutes: float
    learning_rate: float
    shift: float
    image_from: float
    buckets: tuple[Bucket, ...]

    def __post_init__(self) -> None:
        _positive(self, "flow", "max_steps", "minutes", "learning_rate", "shift")
        _require(0 <= self.image_from <= 1, "flow: image_from", self.image_from, "0 to 1")
        _require(bool(self.buckets), "flow: buckets", self.buckets, "at least one")


@dataclass(frozen=True)
class TrainTiny:
    """All that decides a training.

    Attributes:
        out: folder of this training's stages; it belongs to one plan.
        vae: stages of the VAE, one after another.
        flow: the stage of the transformer with its text and image encoders.
        assets: folder that receives the finished model, and nothing before.
        footage: video and image files that the VAE also sees.
        start: folder of wan-tiny whose weights are trained further, with its tokenizer, instead of new ones.
        tokenizer: folder of a tokenizer.json to use; by default that of `start`, else a new one learned from captions.
        small_clips: drawn clips 64x64x17 for the VAE.
        large_clips: drawn clips 128x128 for the VAE, of `large_frames` frames.
        large_frames: see large_clips.
        leaves: leaf images of 96x96.
        seed: of weights, batches and noise.
        accelerator: auto, cpu, or gpu.
        compiled: costs minutes at the start of each stage and makes the VAE four times as fast.
        pool_weights: shares of small clips, large clips, leaves and footage among the VAE's crops; without footage
            the last is left out.

    Raises:
        InputError: no stage of the VAE, an unknown accelerator, no or negative pools.
    """

    out: Path
    vae: tuple[VaeStage, ...]
    flow: FlowStage
    assets: Path
    footage: tuple[Path, ...] = ()
    start: Path | None = None
    tokenizer: Path | None = None
    small_clips: int = 1200
    large_clips: int = 250
    large_frames: int = 9
    leaves: int = 400
    seed: int = 0
    accelerator: str = "auto"
    compiled: bool = True
    pool_weights: tuple[float, ...] = (0.5, 0.17, 0.1, 0.23)

    def __post_init__(self) -> None:
        _positive(self, "plan", "small_clips", "large_clips", "large_frames", "leaves")
        _require(bool(self.vae), "plan: vae", self.vae, "at least one stage")
        _require(self.seed >= 0, "plan: seed", self.seed, "at least 0")
        known = self.accelerator in ACCELERATORS
        _require(known, "plan: accelerator", self.accelerator, f"one of {', '.join(ACCELERATORS)}")
        weights = self.pool_weights
        weights_fit = len(weights) == 4 and min(weights) >= 0 and sum(weights[:3]) > 0
        _require(weights_fit, "plan: pool_weights", weights, "4 numbers, none below 0, nor all 0")

    def crop_weights(self) -> tuple[float, ...]:
        """`pool_weights` of the pools that there are."""
        return self.pool_weights if self.footage else self.pool_weights[:3]


def keep_plan(plan: TrainTiny) -> None:
    """Write plan.out/plan.json, or see that the one there says the same.

    Everything must be equal, budgets too, but for FREE: a learning rate follows the budget, so a longer training is
    another training.

    Raises:
        InputError: another plan, or one without a record, began in this folder.
    """
    path = plan.out / "plan.json"
    # Through text and back, so that paths and tuples compare as they are written.
    ours = json.loads(json.dumps(asdict(plan), default=str))
    if path.exists():
        got, expected = _flat(ours), _flat(json.loads(path.read_text(encoding="utf-8")))
        for key in {**got, **expected}:
            if key not in FREE and got.get(key) != expected.get(key):
                raise InputError(
                    f"{key}: got {got.get(key)}; expected {expected.get(key)} as in {path}, or another `out`"
                )
        return
    begun = sorted(p.name for pattern in ("vae*", "flow*", "latents*") for p in plan.out.glob(pattern))
    if begun:
        raise InputError(f"out: {plan.out} holds {begun[0]} but no plan.json; expected a new folder")
    plan.out.mkdir(parents=True, exist_ok=True)
    write_json(ours, path)


def write_json(values: Mapping[str, object], path: Path) -> None:
    """Write a JSON object, whole or not at all."""
    with atomic_path(path) as part:
        part.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _flat(values: object, name: str = "") -> dict[str, object]:
    """Leaves of nested dicts and lists by their path, as in flow.buckets.0.size."""
    if not isinstance(values, dict | list) or not values:
        return {name: values}
    pairs = values.items() if isinstance(values, dict) else enumerate(values)
    dot = f"{name}." if name else ""
    return {path: leaf for key, value in pairs for path, leaf in _flat(value, f"{dot}{key}").items()}


def _is_length(frames: int) -> bool:
    return frames > 0 and frames % 4 == 1


def _positive(settings: object, where: str, *names: str) -> None:
    for name in names:
        _require(getattr(settings, name) > 0, f"{where}: {name}", getattr(settings, name), "above 0")


def _require(fits: bool, what: str, got: object, expected: str) -> None:
    if not fits:
        raise InputError(f"{what} is {got}; expected {expected}")
