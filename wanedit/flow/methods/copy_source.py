"""Copy the source: the trivial method that keeps a table honest about what is preserved."""

from dataclasses import dataclass
from typing import ClassVar

from wanedit.flow.editing import Edit, Edited, Method, OnStep, Part, VideoModel
from wanedit.flow.methods import METHODS
from wanedit.flow.path import Schedule


@METHODS.register("copy_source")
@dataclass(frozen=True)
class CopySource(Method):
    """The source as it is: its pixels where the edit has them, else its latents. No evaluation, no step."""

    makes_pixels: ClassVar[bool] = True

    @property
    def ignores(self) -> frozenset[Part]:
        return frozenset({"model", "reference", "edited", "images"})

    def __call__(
        self, model: VideoModel, edit: Edit, schedule: Schedule, observe: OnStep | None = None
    ) -> Edited:
        return Edited(latents=edit.source) if edit.video is None else Edited(pixels=edit.video)
