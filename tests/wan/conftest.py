"""Fixtures of the Wan tests."""

import jaxtyping
import pytest


@pytest.fixture
def as_users_run_it():
    """The shape annotations off, as outside the tests: wanedit's own errors must catch what they would."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
