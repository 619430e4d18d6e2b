"""Ways of guidance: one file each, all called as `guidance.combine(answers, scale, x, step, carried)`; see
`wanedit.flow.guiding`."""

from typing import TYPE_CHECKING

from wanedit.registry import Registry

if TYPE_CHECKING:
    from wanedit.flow.guiding import Guidance

GUIDANCES: "Registry[type[Guidance]]" = Registry(
    "guidance", "wanedit.flow.guidance", base="wanedit.flow.guiding:Guidance"
)
