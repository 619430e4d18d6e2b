"""The folder as a custom node of ComfyUI, which looks for `comfy_entrypoint` here."""

from .nodes import comfy_entrypoint

__all__ = ["comfy_entrypoint"]
