"""One file per claim: SENTENCE says it, `verify(size, ...)` measures it, the result judges and draws itself."""

from types import ModuleType

from math_verification.claims import (
    conditional,
    degenerate,
    exponential,
    identity,
    identity_tiny,
    matheron,
    modes,
    recursion,
    solvers,
    stability,
    symmetry,
    symmetry_tiny,
    tweedie,
)

CLAIMS: dict[str, ModuleType] = {
    "recursion": recursion,
    "stability": stability,
    "exponential": exponential,
    "degenerate": degenerate,
    "identity": identity,
    "identity_tiny": identity_tiny,
    "tweedie": tweedie,
    "conditional": conditional,
    "matheron": matheron,
    "modes": modes,
    "symmetry": symmetry,
    "symmetry_tiny": symmetry_tiny,
    "solvers": solvers,
}
