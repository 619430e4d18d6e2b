"""Copy the source: the trivial method that keeps a table honest about what is preserved."""

from dataclasses import dataclass

from wanedit.flow.editing import Edit, Edited, OnStep, VideoModel
from wanedit.flow.path import Schedule


@dataclass(frozen=True)
class CopySource:
    """The source as it is: its pixels where the edit has them, else its latents. No evaluation, no step."""

    def __call__(
        self, model: VideoModel, edit: Edit, schedule: Schedule, observe: OnStep | None = None
    ) -> Edited:
        return Edited(latents=edit.source) if edit.video is None else Edited(pixels=edit.video)
