"""wanedit: training-free long-video generation and editing on Wan video models.

The names below are loaded on first use, so that `import wanedit` costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wanedit.run.config import GenerationConfig
    from wanedit.run.edit import EditResult, edit
    from wanedit.run.edit_config import EditConfig
    from wanedit.run.editor import WanVideoEditorPipeline
    from wanedit.run.generate import GenerationResult, generate
    from wanedit.run.integrated import IntegratedVideoEditor
    from wanedit.run.pipeline import MultiKeyframePipeline

__version__ = "0.1.0"

_HOMES = {
    "EditConfig": "wanedit.run.edit_config",
    "EditResult": "wanedit.run.edit",
    "GenerationConfig": "wanedit.run.config",
    "GenerationResult": "wanedit.run.generate",
    "IntegratedVideoEditor": "wanedit.run.integrated",
    "MultiKeyframePipeline": "wanedit.run.pipeline",
    "WanVideoEditorPipeline": "wanedit.run.editor",
    "edit": "wanedit.run.edit",
    "generate": "wanedit.run.generate",
}

__all__ = [
    "EditConfig",
    "EditResult",
    "GenerationConfig",
    "GenerationResult",
    "IntegratedVideoEditor",
    "MultiKeyframePipeline",
    "WanVideoEditorPipeline",
    "__version__",
    "edit",
    "generate",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
