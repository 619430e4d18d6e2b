"""Failures that a user can act on, each with the exit code that the command line returns.

Every message says what was got and what was expected, and is raised before any model is loaded where
the input alone decides it.
"""


class WaneditError(Exception):
    """A failure with no better class. Exit code 1."""

    exit_code = 1


class InputError(WaneditError):
    """Wrong usage, wrong configuration, or an input file that cannot be used. Exit code 2."""

    exit_code = 2


class MissingWeightsError(WaneditError):
    """A checkpoint is absent, truncated, or holds other tensors than its config says. Exit code 3."""

    exit_code = 3


class ResourceError(WaneditError):
    """Disk, memory or device is exhausted, or a directory is in use by a living run. Exit code 4."""

    exit_code = 4


class ServiceError(WaneditError):
    """An outside service failed after its bounded retries. Exit code 5."""

    exit_code = 5


class NumericalError(WaneditError):
    """A latent is NaN or infinite; raised at the step where it appears. Exit code 1."""
