"""One server on the embedded model for all end-to-end tests that do not harm it."""

from collections.abc import Iterator

import pytest

from tests.servers import Server, running_server


@pytest.fixture(scope="session")
def maze_server() -> Iterator[Server]:
    with running_server() as server:
        yield server
