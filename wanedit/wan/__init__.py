"""The only code that knows Wan. Everything here is imported on first use: torch alone takes seconds."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wanedit.wan.load import Wan, WanFolder, load_transformer, load_vae, load_wan, open_wan

__all__ = ["Wan", "WanFolder", "load_transformer", "load_vae", "load_wan", "open_wan"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        import importlib

        return getattr(importlib.import_module("wanedit.wan.load"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
