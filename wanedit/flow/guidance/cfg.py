"""Classifier-free guidance."""

from dataclasses import dataclass

from wanedit.flow.guidance import GUIDANCES
from wanedit.flow.guiding import Guidance


@GUIDANCES.register("cfg")
@dataclass(frozen=True)
class ClassifierFree(Guidance):
    """v_u + w (v_c - v_u) (arXiv 2207.12598), what `Guidance` itself is."""
