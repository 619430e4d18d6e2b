"""`wanedit bench`: from the folder of a benchmark to the grid of an experiment, which `wanedit ablate` then makes."""

import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import yaml

from wanedit.errors import InputError, WaneditError
from wanedit.files import at_home, is_there, read_text, write_text
from wanedit.jobs.ablate.config import GRID_FILE, AblationConfig
from wanedit.runtime.outputs import require_writable
from wanedit.runtime.settings import Count, Everyday, FileName

MARK = "# Made by wanedit bench, which writes it anew at every call: change a copy of it.\n"
# What Wan-Edit samples of each clip of FiVE-Bench.
FIVE_FRAMES = 41
RESTORED = "+restored"
METHODS = f"default,flowedit,flowedit{RESTORED},copy_source,warp"


# The first and the second as the field quotes them; the third from results/8_wan_edit of FiVE-Bench's repository.
FIVE_PUBLISHED: dict[str, dict[str, float]] = {
    "Wan-Edit, published": {
        "five_structure/distance": 12.53,
        "five_background/psnr": 25.57,
        "five_lpips/outside": 94.6,
        "five_background/ssim": 82.6,
    },
    "StreamEdit, published": {
        "five_structure/distance": 10.27,
        "five_background/psnr": 28.47,
        "five_lpips/outside": 49.8,
        "five_background/ssim": 87.5,
    },
    "Wan-Edit, in FiVE-Bench's repository": {
        "five_structure/distance": 12.5987,
        "five_background/psnr": 25.508,
        "five_lpips/outside": 94.995,
        "five_background/ssim": 82.3145,
        "five_background/mse": 42.0091,
        "five_clip/whole": 26.714,
        "five_clip/inside": 21.3669,
    },
}


@dataclass(frozen=True)
class BenchConfig(AblationConfig):
    """One benchmark.

    Attributes:
        experiment: where the grid and its results are written; outputs/bench and the benchmark's name unless given.
        benchmark: davis recolours what is masked, so that the truth of every frame is known; five is FiVE-Bench.
        data: its folder. davis: of DAVIS, or any with videos/NAME.mp4 and masks/NAME.mp4 (or folders of pictures).
        methods: names of `wanedit edit --method`, "a,b"; default is what an edit does unless told; with +restored after
            it, one that is not restored by itself gets back what the default does (`--restore fused`).
        model: as of `wanedit edit`.
        settings: files of further settings for `wanedit edit`, "a.yaml,b.yaml"; later ones win.
        num_frames: of each clip at most; null for 33 of davis, 41 of five.
        spacing: every so many frames is a keyframe, the first frame always: davis, and where five makes them.
        size: davis: "width*height" of the clips, the middle kept; null for the model's own.
        sequences: davis: names of clips, "a,b"; null for those that results are reported on, else for all.
        keyframes: five: edited frames: in it a folder edit1/0001_bus for each edit, as of `wanedit edit`; null for
            keyframes in the experiment's folder.
        stylist: five: who makes them where they are not there, as of `wanedit style`, from the prompt of the edit.
        types: five: which types of edits, "1,3".
    """

    benchmark: Annotated[Literal["davis", "five"], Everyday("what goes in")] = "davis"
    data: Annotated[str | os.PathLike[str], Everyday("what goes in")] = ""
    methods: Annotated[str, Everyday("how")] = METHODS
    model: Annotated[str | None, Everyday("how")] = None
    settings: str = ""
    num_frames: Count | None = None
    spacing: Count = 16
    size: str | None = None
    sequences: str | None = None
    keyframes: FileName | None = None
    stylist: Annotated[str | None, Everyday("how")] = None
    types: str = "1,2,3,4,5,6"

    @property
    def folder(self) -> Path:
        """The experiment's."""
        return at_home(self.experiment) if self.experiment else Path("outputs", "bench", self.benchmark)

    @property
    def kinds(self) -> list[int]:
        """The types of edits. Raises InputError."""
        words = _words(self.types)
        if not words or not all(word.isdecimal() for word in words):
            raise InputError(f"types is {self.types!r}; expected numbers from 1 to 6, such as 1,3")
        return list(map(int, words))

    @property
    def keyframes_folder(self) -> Path:
        """Where the edited frames of FiVE-Bench are."""
        return self.folder / "keyframes" if self.keyframes is None else at_home(self.keyframes)

    @property
    def overlays(self) -> list[str]:
        """The files of settings."""
        return [str(at_home(name).absolute()) for name in _words(self.settings)]

    @property
    def ablation(self) -> AblationConfig:
        """What then makes the grid."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(AblationConfig)}
        values["experiment"] = str(self.folder)
        return AblationConfig(**values)


def check_bench(config: BenchConfig) -> None:
    """Refuse what makes no sense of any benchmark.

    Raises:
        InputError: naming the setting; or a grid there that somebody else wrote.
    """
    if not config.data or not at_home(config.data).is_dir():
        raise InputError(f"data is {os.fspath(config.data)!r}; expected the folder of {config.benchmark}")
    path = config.folder / GRID_FILE
    if is_there(path) and not read_text(path, "a grid of wanedit bench").startswith(MARK):
        raise InputError(
            f"{path} is not of wanedit bench and would be overwritten; choose another experiment"
        )
    require_writable(path)


def bench_grid(config: BenchConfig) -> dict[str, object]:
    """The grid of a benchmark, as a grid.yaml has it.

    Raises:
        InputError: a setting that names nothing.
    """
    names = _words(config.methods)
    if not names:
        raise InputError(f"methods is {config.methods!r}; expected names such as {METHODS}")
    return {
        **(_davis(config) if config.benchmark == "davis" else _five(config)),
        "command": "edit",
        "overlays": config.overlays,
        "base": {} if config.model is None else {"model": config.model},
        "axes": {"method": {name: _method(name) for name in names}},
        "baseline": {"method": names[0]},
    }


def _method(name: str) -> dict[str, str]:
    if name == "default":
        return {}
    bare = name.removesuffix(RESTORED)
    return {"method": bare} | ({} if bare == name else {"restore": "fused"})


def _davis(config: BenchConfig) -> dict[str, object]:
    data = {"kind": "davis", "folder": str(at_home(config.data).absolute()), "spacing": config.spacing}
    data |= {"num_frames": config.num_frames or 33, "size": config.size or _own_size(config)}
    if config.sequences is not None:
        data["sequences"] = _words(config.sequences)
    return {
        "title": "DAVIS, recoloured",
        "shows": f"How an edit spreads from every {config.spacing}th frame over real clips. What is masked has other "
        "colours (CIELAB hue turned by 120 degrees, 30 of chroma added, lightness kept), in the keyframes and, as the "
        "exact truth, in all other frames. Off the keyframes: `changed` is inside the mask, `unchanged` outside, "
        "`at_d` at d frames from the nearest keyframe.",
        "data": data,
        "measures": [
            *("psnr_changed", "psnr_unchanged", "psnr_off", "ssim_changed", "ssim_unchanged"),
            *("psnr_at_1", "psnr_at_4", "psnr_at_8", "warp_error", "flicker", "evaluations", "seconds"),
        ],
        "figures": [{"x": "method", "y": "psnr_changed"}, {"x": "method", "y": "psnr_changed", "gain": True}],
    }


def _own_size(config: BenchConfig) -> str:
    """The size that the model was made for."""
    from wanedit.jobs.ablate.grid import read_overlays
    from wanedit.jobs.edit.config import EditConfig
    from wanedit.lit.model import open_model

    said = read_overlays(Path(), config.overlays) | ({} if config.model is None else {"model": config.model})
    own: dict[str, Any] = {n: value for n, value in said.items() if n in EditConfig.__dataclass_fields__}
    known = EditConfig(**own)
    chosen = (known.parts, known.loras, known.lora_partial)
    return open_model(known.source, *chosen, distilled=known.distilled).sampling.size


def _five(config: BenchConfig) -> dict[str, object]:
    # Imports torch, which help does without.
    from wanedit.jobs.evaluate.metric import find_metric
    from wanedit.metrics.weights import HubModel, require, require_model

    metrics, lacking = ["motion"], list[str]()
    for name in ("five_background", "five_lpips", "five_structure", "five_clip"):
        try:
            for one in find_metric(name).weights:
                require_model(one) if isinstance(one, HubModel) else require(one)
            metrics.append(name)
        except WaneditError as error:
            lacking.append(f"{name}: {error}.")
    rows = list(dict.fromkeys(name for values in FIVE_PUBLISHED.values() for name in values))
    return {
        "title": "FiVE-Bench",
        "shows": "Measures and their scales are the benchmark's own (arXiv 2503.13684), of every eighth frame; means "
        "are over the types of edits, as published ones are. `motion` is wanedit's surrogate of the motion fidelity "
        f"score. {' '.join(['Left out: NIQE, CoTracker and FiVE-Acc, whose weights are not read here.', *lacking])}",
        "data": {
            "kind": "five",
            "folder": str(at_home(config.data).absolute()),
            "keyframes": str(config.keyframes_folder.absolute()),
            "types": config.kinds,
            "num_frames": config.num_frames or FIVE_FRAMES,
        },
        "metrics": metrics,
        "measures": [*rows, "motion/fidelity_surrogate", "seconds"],
        "published": FIVE_PUBLISHED,
    }


def write_grid(config: BenchConfig, folder: Path) -> None:
    """Write the grid into the experiment's folder, or into another for a look at it. Raises as `bench_grid`."""
    text = yaml.safe_dump(bench_grid(config), sort_keys=False, allow_unicode=True, width=100)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / GRID_FILE, MARK + text)


def print_bench_plan(config: BenchConfig) -> None:
    """The plan of the grid, of which nothing is written."""
    from wanedit.jobs.ablate.run import print_ablation_plan

    with TemporaryDirectory() as temporary:
        write_grid(config, Path(temporary))
        places = {"output": str(config.runs_folder), "results": str(config.results_folder)}
        print_ablation_plan(replace(config.ablation, experiment=temporary, **places))


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
