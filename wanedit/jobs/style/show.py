"""`wanedit style --dry_run`: frames, calls and price as a page of text. No stylist is asked."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from wanedit.jobs.style.config import StyleConfig
from wanedit.jobs.style.plan import StylePlan, make_style_plan
from wanedit.runtime.progress import wide_console


def print_style_plan(config: StyleConfig, folders: Sequence[Path] = ()) -> None:
    """Print which frames would be restyled, how often the stylist would be asked, and what that may cost.

    Raises:
        InputError: as the run itself would.
    """
    plan = make_style_plan(config, folders)
    console = wide_console()
    for note in plan.notes:
        console.print(f"note: {note}", style="yellow")
    console.print(_frames(plan))
    console.print(_totals(plan), highlight=False)


def _frames(plan: StylePlan) -> Table:
    table = Table(title="Keyframes", title_justify="left")
    for column in ("#", "frame", "of the source", "seconds", "scene"):
        table.add_column(column)
    for k, frame in enumerate(plan.indices):
        scene = "-" if plan.cuts is None else str(1 + sum(cut <= frame for cut in plan.cuts))
        seconds = f"{frame / float(plan.clip.fps):.2f}"
        table.add_row(str(k), str(frame), str(plan.clip.start + frame), seconds, scene)
    return table


def _totals(plan: StylePlan) -> str:
    clip, estimate, config = plan.clip, plan.estimate, plan.config
    height, width = clip.size
    cuts = "not looked for" if plan.cuts is None else ", ".join(map(str, plan.cuts)) or "none"
    image = "" if plan.image is None else f"{plan.image}"
    style = " + ".join(part for part in (image, repr(config.style.description)) if part not in ("", "''"))
    (least, most), (low, high) = estimate.calls, estimate.price
    price = "nothing" if not high else f"{low:.2f} to {high:.2f} US dollars, estimated"
    return "\n".join(
        (
            f"source     {clip.path}: frames {clip.start} … {clip.start + clip.count - 1} of {clip.total}, "
            f"{width}*{height}, {float(clip.fps):g} fps",
            f"cuts       {cuts}",
            f"style      {style}",
            f"stylist    {plan.stylist.settings.get('stylist', config.stylist)}",
            f"calls      {least} to {most} of a service; what the cache of an earlier run holds is not asked again",
            f"price      {price}",
            f"output     {config.folder}",
        )
    )
