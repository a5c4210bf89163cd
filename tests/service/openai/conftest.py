"""The real client, asynchronous, against a gateway on loopback."""

from collections.abc import AsyncIterator

import httpx
import pytest
from openai import AsyncOpenAI


def connected(live: httpx.AsyncClient, api_key: str = "none") -> AsyncOpenAI:
    """It does not retry, so that a test sees the first answer."""
    return AsyncOpenAI(base_url=f"{live.base_url}/v1", api_key=api_key, max_retries=0, timeout=20)


@pytest.fixture
async def openai(live: httpx.AsyncClient) -> AsyncIterator[AsyncOpenAI]:
    async with connected(live) as client:
        yield client
