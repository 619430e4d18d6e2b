"""The mathematics: no model, no file, no Lightning. Here what of it goes by name, without importing it."""

from typing import Any

from wanedit.registry import Registry

SOLVERS: Registry[Any] = Registry("solver", "wanedit.flow.solvers", base="wanedit.flow.solvers:Solver")
CONTROLLERS: Registry[Any] = Registry(
    "controller", "wanedit.flow.keyframes", base="wanedit.flow.keyframes:Controller"
)
