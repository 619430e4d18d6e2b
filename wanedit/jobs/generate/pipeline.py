"""MultiKeyframePipeline: generation as a Python object."""

from pathlib import Path
from typing import Any

from wanedit.jobs.generate.config import GenerationConfig
from wanedit.jobs.generate.plan import Plan, make_plan
from wanedit.jobs.generate.run import GenerationResult, generate
from wanedit.runtime.inputs import KeyframesLike
from wanedit.runtime.settings import with_changes


class MultiKeyframePipeline:
    """Generates long videos through timed keyframes.

    Args:
        config: settings that all runs share; keyword arguments override single fields of it.

    Example:
        >>> pipeline = MultiKeyframePipeline(size="128*128", fps=16)
        >>> result = pipeline.run(
        ...     keyframes=[("a.png", 0.0), ("b.png", 1.5)], global_prompt="a red ball", output_path="outputs/ball"
        ... )
    """

    def __init__(self, config: GenerationConfig | None = None, **settings: Any) -> None:
        self.config = with_changes(config or GenerationConfig(), **settings)

    def run(
        self,
        keyframes: KeyframesLike | None = None,
        global_prompt: str | None = None,
        output_path: str | Path | None = None,
        verbose: bool = True,
        **settings: Any,
    ) -> GenerationResult:
        """Make one video; resumes if `output_path` holds an unfinished run of the same settings.

        Args:
            keyframes: pairs (path, seconds), or "a.png:0.0,b.png:3.0"; the config's own when None.
            global_prompt: what the whole video shows.
            output_path: the run's folder, or the final .mp4 inside it.
            verbose: print the plan's warnings and a progress bar.
            settings: further fields of `GenerationConfig`.

        Raises:
            InputError, MissingWeightsError, ResourceError, NumericalError: as `generate`.
        """
        return generate(self._configured(keyframes, global_prompt, output_path, settings), verbose=verbose)

    def plan(
        self,
        keyframes: KeyframesLike | None = None,
        global_prompt: str | None = None,
        output_path: str | Path | None = None,
        **settings: Any,
    ) -> Plan:
        """What `run` would do, decided without loading a weight. Arguments as `run`."""
        config = self._configured(keyframes, global_prompt, output_path, settings)
        # A seed that the run would draw is not drawn for a plan.
        drawn = config.base_seed is None or config.base_seed < 0
        return make_plan(with_changes(config, base_seed=0) if drawn else config)

    def _configured(
        self, keyframes: Any, global_prompt: Any, output_path: Any, settings: dict[str, Any]
    ) -> GenerationConfig:
        named = {
            "keyframes": keyframes if keyframes is None or isinstance(keyframes, str) else list(keyframes),
            "prompt": global_prompt,
            "output": None if output_path is None else str(output_path),
        }
        changes = {name: value for name, value in named.items() if value is not None}
        return with_changes(self.config, **changes, **settings)
