"""Ways to edit a video: one file each, all called as `method(model, edit, schedule, observe)`."""

from wanedit.flow.editing import Method
from wanedit.registry import Registry

METHODS: Registry[type[Method]] = Registry("method", "wanedit.flow.methods")
