"""wanedit: training-free long-video generation and editing on Wan video models.

The names below are loaded on first use, so that `import wanedit` costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wanedit.jobs.edit.config import EditConfig
    from wanedit.jobs.edit.pipeline import ModelManager, WanVideoEditorPipeline, save_video
    from wanedit.jobs.edit.run import EditResult, edit
    from wanedit.jobs.generate.config import GenerationConfig
    from wanedit.jobs.generate.run import GenerationResult, MultiKeyframePipeline, generate
    from wanedit.jobs.integrated.editor import IntegratedVideoEditor

__version__ = "0.1.0"

_HOMES = {
    "EditConfig": "wanedit.jobs.edit.config",
    "EditResult": "wanedit.jobs.edit.run",
    "GenerationConfig": "wanedit.jobs.generate.config",
    "GenerationResult": "wanedit.jobs.generate.run",
    "IntegratedVideoEditor": "wanedit.jobs.integrated.editor",
    "ModelManager": "wanedit.jobs.edit.pipeline",
    "MultiKeyframePipeline": "wanedit.jobs.generate.run",
    "WanVideoEditorPipeline": "wanedit.jobs.edit.pipeline",
    "edit": "wanedit.jobs.edit.run",
    "generate": "wanedit.jobs.generate.run",
    "save_video": "wanedit.jobs.edit.pipeline",
}

__all__ = [
    "EditConfig",
    "EditResult",
    "GenerationConfig",
    "GenerationResult",
    "IntegratedVideoEditor",
    "ModelManager",
    "MultiKeyframePipeline",
    "WanVideoEditorPipeline",
    "__version__",
    "edit",
    "generate",
    "save_video",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
