"""Stylists make edited keyframes: one without a key, one over Gemini, others from outside; the workflow around them."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from wanedit.registry import Registry

if TYPE_CHECKING:
    from wanedit.stylists.protocol import Stylist

# Classes; what they are made with stands in `stylist_options`, of palette and gemini in sections of their own.
STYLISTS: "Registry[Callable[..., Stylist]]" = Registry(
    "stylist",
    "wanedit.stylists.palette.stylist",
    "wanedit.stylists.gemini.stylist",
    base="wanedit.stylists.protocol:MakesStylist",
)
