"""What MagCache must know of a model, measured along one sample: the size of its residual at every noise level."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wanedit import __version__
from wanedit.errors import InputError
from wanedit.files import write_text
from wanedit.flow.caches.magcache import MagCache, beside
from wanedit.flow.caches.none import NoCache
from wanedit.flow.caching import Moment, size
from wanedit.interrupts import interruptible
from wanedit.jobs.generate.config import GenerationConfig
from wanedit.jobs.generate.plan import plan_in
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.events import progress_bars
from wanedit.runtime.launch import World
from wanedit.runtime.outputs import check_outputs
from wanedit.runtime.predict import predict


@dataclass(frozen=True)
class Measuring(NoCache):
    """Has everything computed, and keeps mean |v - x| of every moment, of both prompts, by its noise level."""

    sizes: dict[float, list[float]] = field(default_factory=lambda: defaultdict(list))

    def seen(self, moment: Moment) -> None:
        self.sizes[moment.step.sigma].append(size(moment.v - moment.x))


def calibrate(
    config: GenerationConfig, table: Path | None = None, folders: Sequence[Path] = (), verbose: bool = True
) -> Path:
    """Sample the first segment of a generation once, every step computed, and write the table that MagCache reads.

    Args:
        table: where it is written; None for beside the model's files, where MagCache looks for it.
        folders: where relative keyframe paths are looked up after the current folder.

    Returns:
        Where the table is.

    Raises:
        InputError, MissingWeightsError, ResourceError, NumericalError: as `generate`; a table that may not be written.
    """
    config = replace(config, cache="none", cache_options={}, num_gpus=1, gpu_ids=config.devices[:1])
    with interruptible(), progress_bars(verbose):
        plan = plan_in(RunDirectory(config.folder, config.final_path), config, folders)
        guide, scale = plan.settings.guide, plan.settings.guidance_scale
        if (levels := sum(bool(guide.asks(step, scale)) for step in plan.settings.schedule)) < 2:
            raise InputError(
                f"{plan.settings.words}: the network is asked at {levels} noise levels; expected 2 or more, for a curve"
            )
        table = beside(plan.folder.path) if table is None else table
        # Before hours of sampling; a model's config.json would else be replaced as well.
        check_outputs([table])
        # Brings Lightning, for which a mistake need not wait.
        from wanedit.lit.chain import FLF2VChain

        measuring = Measuring()
        chain = FLF2VChain(plan.folder, replace(plan.settings, cache=measuring), decodes=False)
        predict(chain, plan.apart[:1], lambda segment: None, plan.config, World())
    curve = [
        (sigma, sum(sizes) / len(sizes)) for sigma, sizes in sorted(measuring.sizes.items(), reverse=True)
    ]
    MagCache(curve=tuple(curve))  # refuses one that it could not read
    settings, task = plan.settings, plan.apart[0]
    about: dict[str, Any] = {
        "wanedit": __version__,
        "model": plan.folder.name,
        "sampler": f"{settings.solver}, {settings.words}",
        "frames": task.sampled_frames,
        "size": plan.config.size,
        "prompt": task.prompt,
        "curve": curve,
    }
    write_text(table, json.dumps(about, ensure_ascii=False, indent=1) + "\n")
    return table
