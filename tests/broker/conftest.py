"""One Redis server for all tests of a process; each test has its own prefix."""

from collections.abc import Iterator

import pytest

from tests.broker.redis_server import RedisServer


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server
