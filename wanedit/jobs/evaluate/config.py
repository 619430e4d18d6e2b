"""What an evaluation can be told; imports nothing heavy, for the command line reads it."""

from dataclasses import dataclass
from typing import Any

from wanedit.runtime.settings import TrackingSettings


@dataclass(frozen=True)
class EvaluationConfig(TrackingSettings):
    """What to measure, and against what. Tracked, the measures of a run join those that it logged as it was made.

    Attributes:
        video: a video file or a folder of images.
        run: the folder of a run instead: its frames before lossy encoding, with its joins, keyframes and source.
        junctions: the frames at which pieces are joined, "24,48": the first of each later piece, or the one that both
            share.
        reference: a video of the same size and length: the truth, or the source of an edit.
        scene: a JSON file that says which sprite scene the video should show: its exact truth is drawn; see
            docs/evaluation.md.
        mask: a picture, a video or a folder of them: white where the edit may change the reference.
        keyframes: pictures that the video should show, as for `wanedit edit`.
        metrics: "auto" for all that what is given allows; "none"; or groups of measures, "a,b", of which each must then
            be possible: those of docs/evaluation.md, of installed packages, and your own as package.module:Group.
        vbench: a folder to which the video is added as VBench reads it.
        prompt: what the video shows, by which VBench names it; null for that of the run.
        output: a file for the results, JSON; a table as CSV is written beside it. Null to print only.
    """

    video: str = ""
    run: str | None = None
    junctions: str = ""
    reference: str | None = None
    scene: str | None = None
    mask: str | None = None
    keyframes: str | list[Any] = ""
    metrics: str = "auto"
    vbench: str | None = None
    prompt: str | None = None
    output: str | None = None
