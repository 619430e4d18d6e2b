"""What is asked of wan-tiny: the parts of the table; and samples from a first frame or from text, measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tiny.evaluate import reconstruct
from tiny.evaluate_between import all_rows, blind_rows, flf_rows, large_rows, long_rows
from tiny.evaluate_cost import size_rows, speed_rows
from tiny.evaluate_run import SEEN, Evaluation, groups, per_clip
from tiny.evaluate_vae import footage_rows, vae_rows
from tiny.scorecard import Row
from wanedit.sprites.sets import Clip, single, single_linear, single_plain, unseen_pair, videos
from wanedit.sprites.truth import drift, is_named, looked_at


@torch.no_grad()
def first_rows(e: Evaluation) -> list[Row]:
    """First frame only: what stands in it must still stand in the last one."""
    found = []
    for group in groups(e.draw(e.clips, single_linear), 64):
        video = videos(group, 64)
        made = e.onwards(group, video)
        found += per_clip(drift, group, made, video)
    count, colours = len(found), np.array([one.colour for one in found])
    mean = {name: float(np.mean([getattr(one, name) for one in found])) for name in vars(found[0])}
    name = "first frame only (one sprite, straight line, still camera): colour change, mean over channels"
    note = f"90th percentile {np.quantile(colours, 0.9):.3f}"
    return [
        Row(name, mean["colour"], "RGB", 0.08, False, count, note),
        Row("  shape in the last frame", mean["shape"], "%", count=count),
        Row("  sprite gone from the last frame", mean["lost"], "%", count=count),
        Row("  background beside the sprite", mean["background"], "dB", count=count),
    ]


@torch.no_grad()
def text_rows(e: Evaluation) -> list[Row]:
    """Text only: the colour and the shape that the prompt names; and how often the instrument itself is right."""
    clips = e.draw(e.clips, single_plain)
    some, unseen = clips[: e.few], np.array([unseen_pair(clip.scene) for clip in clips])
    drawn, truth = _named(clips, e.from_text), _named(some, _truth)
    rebuilt = _named(some, lambda group: reconstruct(e.wan, _truth(group)[:, :, :SEEN]))
    name = f"text only, guidance {e.text_guidance:g} (one plain sprite, still camera): as named"
    return [
        replace(_share(name, drawn), bar=0.85),
        _share("  of shape-colour pairs that training never shows", drawn[unseen]),
        _share("  instrument on truth", truth),
        _share("  instrument on VAE reconstructions", rebuilt),
        _share("  samples whose scene it reads there", drawn[: e.few][rebuilt[:, 0]]),
        *_any_single_rows(e),
    ]


def _any_single_rows(e: Evaluation) -> list[Row]:
    """The same for every scene of one sprite: any texture, motion and camera, which the instrument reads less well."""
    clips = e.draw(e.few, single)
    name = f"text only, guidance {e.text_guidance:g} (one sprite, all scenes): as named"
    return [
        _share(name, _named(clips, e.from_text)),
        _share("  instrument on truth", _named(clips, _truth)),
    ]


def _truth(group: Sequence[Clip]) -> Tensor:
    return videos(group, 64)


def _named(clips: Sequence[Clip], make: Callable[[Sequence[Clip]], Tensor]) -> np.ndarray:
    """(clips, 3) of truth values: both as named, the colour, the shape."""
    found = [seen for group in groups(clips, 64) for seen in per_clip(_seen, group, make(group))]
    return np.array(found)


def _seen(clip: Clip, ours: Tensor) -> tuple[bool, bool, bool]:
    return is_named(clip, looked_at(ours))


def _share(name: str, right: np.ndarray) -> Row:
    if not len(right):
        return Row(name, None, "%", note="there is none")
    both, colour, shape = right.mean(0)
    note = f"colour {100 * colour:.1f} %, shape {100 * shape:.1f} %, each in 2 of 3 frames"
    return Row(name, float(both), "%", count=len(right), note=note)


@dataclass(frozen=True)
class Part:
    """One part of the table.

    Attributes:
        rows: of an `Evaluation`; of it and the `Figures` at 64x64x17 where `small` is True.
    """

    name: str
    rows: Callable[..., list[Row]]
    small: bool = False


PARTS = (
    Part("vae", vae_rows),
    Part("footage", footage_rows),
    Part("flf2v", flf_rows, small=True),
    Part("first", first_rows),
    Part("text", text_rows),
    Part("all", all_rows),
    Part("blind", blind_rows, small=True),
    Part("large", large_rows, small=True),
    Part("long", long_rows, small=True),
    Part("size", size_rows),
    Part("speed", speed_rows),
)
