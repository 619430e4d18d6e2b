"""Keyframes of many videos in one style."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from wanedit.files import Json
from wanedit.jobs.style.config import style_config
from wanedit.runtime.many import Found
from wanedit.runtime.pool import NotHereError
from wanedit.stylists.gemini.faults import KeyRejectedError, MissingKeyError

ENDING, EACH, RUNS = "", (), False


def find(values: Json, folders: Sequence[Path]) -> Found:
    """As `wanedit style` does before it looks for scenes."""
    from wanedit.jobs.style.plan import StyleDirectory, check_output, find_style, open_stretch

    config = style_config(values)
    found = find_style(config, folders)
    clip, _ = open_stretch(config, folders)
    video = clip.path
    check_output(StyleDirectory(config.folder), video, found.image)
    inputs = [video, *([] if found.image is None else [found.image])]
    return Found(inputs, {"stylist": found.made_by}, float(clip.count))


def make(values: Json, folders: Sequence[Path], gpu: int | None) -> dict[str, float]:
    """Restyle one video's keyframes."""
    from wanedit.jobs.style.run import style

    with keyed():
        return {"keyframes": len(style(style_config(values), folders, verbose=False).indices)}


@contextmanager
def keyed() -> Iterator[None]:
    """Tell a key that lacks or is refused as of this process, whichever video it is at. Raises NotHereError."""
    try:
        yield
    except (MissingKeyError, KeyRejectedError) as error:
        raise NotHereError(str(error)) from None
