"""Keyframe times laid out in frames, segments and latent slots: the schematic of the generation section."""

from pathlib import Path

from matplotlib.patches import Rectangle

from math_verification.figures import BLUE, GREEN, ORANGE, SKY
from paper.make.look import axes_row, save
from paper.make.tex import Numbers
from wanedit.timeline import plan, slots

SECONDS, FPS = (0.0, 1.0, 2.3, 3.0), 16


def make(out: Path, numbers: Numbers) -> None:
    """The schematic, and the counts that the text names."""
    timeline = plan(SECONDS, FPS)
    numbers.add("timeline.seconds", ", ".join(f"{s:g}" for s in SECONDS))
    numbers.add("timeline.fps", FPS)
    numbers.add("timeline.frames", ", ".join(map(str, timeline.keyframe_frames)))
    numbers.add("timeline.total", timeline.segments[-1].end - timeline.segments[0].start + 1)
    numbers.add("timeline.needed", ", ".join(str(s.frames) for s in timeline.segments))
    numbers.add("timeline.sampled", ", ".join(str(s.sampled_frames) for s in timeline.segments))
    _draw(out / "figures" / "timeline.pdf", timeline)


def _draw(path: Path, timeline) -> None:
    figure, (axis,) = axes_row(1, 1.45)
    for segment, colour in zip(timeline.segments, (SKY, ORANGE, GREEN), strict=True):
        width = segment.end - segment.start
        axis.add_patch(
            Rectangle(
                (segment.start, 1.0), width, 0.55, facecolor=colour, alpha=0.35, edgecolor="black", lw=0.6
            )
        )
        label = f"{segment.frames} frames,\nsampled at {segment.sampled_frames}"
        axis.text(segment.start + width / 2, 1.275, label, ha="center", va="center", fontsize=7)
        count = slots(segment.sampled_frames)
        for index in range(count):
            # Slot 0 holds one frame, the others four; a surplus is drawn to scale and retimed away.
            left = segment.start + (
                0 if index == 0 else (4 * index - 3.5) * width / (segment.sampled_frames - 1)
            )
            right = segment.start + (4 * index + 0.5) * width / (segment.sampled_frames - 1)
            right = min(right, segment.end)
            axis.add_patch(
                Rectangle(
                    (left, 0.45), right - left, 0.35, facecolor=colour, alpha=0.2, edgecolor="black", lw=0.4
                )
            )
    for frame in timeline.keyframe_frames:
        axis.plot([frame, frame], [0.4, 1.75], color=BLUE, linewidth=1.2)
        axis.text(frame, 1.8, str(frame), ha="center", va="bottom", fontsize=7, color=BLUE)
    for height, name in ((1.9, "keyframes"), (1.275, "segments"), (0.62, "latent slots")):
        axis.text(-1, height, name, ha="right", va="center", fontsize=8)
    axis.set(xlim=(-7.5, timeline.keyframe_frames[-1] + 1), ylim=(0.35, 2.15))
    axis.axis("off")
    save(figure, path)
