"""Ways to edit a video: one file each, all called as `method(model, edit, schedule, observe)`."""

from typing import TYPE_CHECKING

from wanedit.registry import Registry

if TYPE_CHECKING:
    from wanedit.flow.editing import Method

METHODS: "Registry[type[Method]]" = Registry(
    "method", "wanedit.flow.methods", base="wanedit.flow.editing:Method"
)
