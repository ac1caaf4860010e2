"""Fixtures for tests against real hosts."""

from __future__ import annotations

import pytest

from tests.remote.wire import Wire, why_not


@pytest.fixture
def wire():
    """A wire to a network namespace, perfect until a test says otherwise."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    one = Wire()
    try:
        one.lay()
        yield one
    finally:
        one.take_away()
