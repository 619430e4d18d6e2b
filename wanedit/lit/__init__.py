"""Wan and the methods brought together, as LightningModules. Here where a model is, before anything is loaded."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from wanedit.errors import MissingWeightsError
from wanedit.files import at_home
from wanedit.registry import Registry
from wanedit.wan.catalog import find_known, locate, require_weights

if TYPE_CHECKING:
    from wanedit.flow.editing import VideoModel

# Video models that are no Wan: classes that make a `wanedit.flow.editing.VideoModel`.
VIDEO_MODELS: "Registry[Callable[[], VideoModel]]" = Registry("model", base="wanedit.lit.model:MakesModel")


def comes_from_outside(source: str) -> bool:
    """Whether a model is `package.module:Class` or an entry point, and neither a folder nor a known Wan."""
    # os.path, because a name that is too long for a file is not there, which pathlib raises instead.
    if find_known(source) is not None or os.path.exists(at_home(source)):
        return False
    return ":" in source or source in VIDEO_MODELS


def require_model(source: str, parts: Mapping[str, str], shows_images: bool = False) -> Path | None:
    """The folder of a model. What its files hold is seen by headers, without torch, whose import takes seconds.

    What is no transformer of a Wan, or has another's VAE, is told here; every name and shape is compared when it is
    opened.

    Args:
        source: its name or folder.
        parts: files and folders of single parts, see `RunSettings.parts`.
        shows_images: whether it has to read images.

    Returns:
        None for a model from outside.

    Raises:
        InputError: neither a folder nor a known name; a text-only Wan that would have to read images.
        MissingWeightsError: a known model that is not on this machine, or no such folder; the message says how to get
            it. Or a part that is not there, a folder without weights, or files of something else.
    """
    for part, place in parts.items():
        if not os.path.exists(at_home(place)):
            raise MissingWeightsError(f"{part} {place}: there is no such file or folder")
    if comes_from_outside(source):
        return None
    path, known = locate(source), find_known(source)
    if not parts:
        require_weights(path)
    if parts or known is None or not known.bundled:
        from wanedit.wan.formats.layouts import open_source, require_fitting_vae, transformer_sizes

        found = open_source(path, parts)
        config = transformer_sizes(found)
        if shows_images:
            config.require_images(path.name)
        require_fitting_vae(found, config)
    return path
