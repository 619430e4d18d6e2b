"""Many edits: each video with its own keyframes, or with those that a style makes of it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from wanedit.errors import InputError
from wanedit.files import Json
from wanedit.jobs.edit.config import EditConfig, check_output, find_inputs
from wanedit.jobs.integrated import EditStyle, styling_of, with_styled_keyframes
from wanedit.jobs.style.config import parts_of
from wanedit.jobs.style.many import keyed
from wanedit.runtime.launch import World, choose_devices
from wanedit.runtime.many import Found

ENDING, EACH, RUNS = "", ("keyframes",), False


def _of(values: Json) -> tuple[EditStyle, EditConfig]:
    style = values.get("style") or {}
    if not isinstance(style, Mapping):
        raise InputError(f"style is {style!r}; expected its parts, such as {{description: words}}")
    return (
        EditStyle(**parts_of(style)),
        EditConfig(**{name: value for name, value in values.items() if name != "style"}),
    )


def find(values: Json, folders: Sequence[Path]) -> Found:
    """As `wanedit edit` does before it reads a frame."""
    from wanedit.jobs.edit.plan import decided_apart
    from wanedit.tracking import check_tracking

    style, config = _of(values)
    decides: Json = {}
    pictures: list[Path] = []
    if style.asked:
        from wanedit.jobs.style.plan import find_style

        styled = find_style(styling_of(style, config), folders)
        decides["stylist"] = styled.made_by
        pictures += [] if styled.image is None else [styled.image]
    found = find_inputs(config, folders, styled=style.asked)
    check_output(config, found.video, found.keyframes)
    check_tracking(config)
    choose_devices(config, World())
    decides |= decided_apart(config, found)
    decides["keyframes"] = [keyframe.index for keyframe in found.keyframes]
    frames, (height, width) = found.frames(config) or 0, found.sides
    inputs = [found.video, *(keyframe.path for keyframe in found.keyframes), *pictures]
    return Found(inputs, decides, float(frames * height * width))


def make(values: Json, folders: Sequence[Path], gpu: int | None) -> dict[str, float]:
    """Style where that is asked, then edit."""
    from wanedit.jobs.edit.run import edit

    style, config = _of(values)
    config = replace(config, gpu_id=gpu)
    if style.asked:
        with keyed():
            config = with_styled_keyframes(style, config, folders, verbose=False)
    made = edit(config, folders, verbose=False)
    measured = {"keyframe_error": made.keyframe_error, "reach": made.reach and made.reach.mean}
    return {"frames": made.num_frames} | {name: one for name, one in measured.items() if one is not None}
