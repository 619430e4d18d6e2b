"""Ways to edit a video: one file each, all called as `method(model, edit, schedule, observe)`."""

from wanedit.errors import InputError
from wanedit.flow.editing import Method
from wanedit.flow.methods.copy_source import CopySource
from wanedit.flow.methods.first_frame import FirstFrame
from wanedit.flow.methods.flf2v import FLF2V
from wanedit.flow.methods.flowalign import FlowAlign
from wanedit.flow.methods.flowedit import FlowEdit
from wanedit.flow.methods.hard_replacement import HardReplacement
from wanedit.flow.methods.residual_corrected import ResidualCorrectedFlow
from wanedit.flow.methods.rf_inversion import RFInversion
from wanedit.flow.methods.sdedit import SDEdit
from wanedit.flow.methods.warp import WarpNearestKeyframe

METHODS: dict[str, type[Method]] = {
    "residual_corrected": ResidualCorrectedFlow,
    "sdedit": SDEdit,
    "flowedit": FlowEdit,
    "flowalign": FlowAlign,
    "rf_inversion": RFInversion,
    "first_frame": FirstFrame,
    "flf2v": FLF2V,
    "hard_replacement": HardReplacement,
    "copy_source": CopySource,
    "warp": WarpNearestKeyframe,
}


def get_method(name: str) -> type[Method]:
    """The class of this name; its settings are its fields.

    Raises:
        InputError: no such method; the message lists those that there are.
    """
    if name not in METHODS:
        raise InputError(f"method is {name!r}; expected one of {', '.join(METHODS)}")
    return METHODS[name]
