"""One server on the embedded model for all end-to-end tests that do not harm it."""

from collections.abc import Iterator

import pytest

from tests.servers import Server, running_server


@pytest.fixture(scope="session")
def maze_server() -> Iterator[Server]:
    with running_server(ILVR_SERVICE_DISCONNECT_GRACE_S="0.3") as server:
        yield server
