"""A fleet broken in every way that needs no model: real processes, a real Redis, scripted engines."""

import pytest

from tests.faults.scenarios import Scenarios

pytestmark = pytest.mark.asyncio(loop_scope="module")


class TestScripted(Scenarios):
    """The fleet is that of ``conftest.py``."""
