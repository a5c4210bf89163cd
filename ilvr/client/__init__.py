"""The client of ``/v1/reason``: typed events, resumed after a dropped connection, cancelled when left.

``ilvr.Client`` and ``ilvr.AsyncClient`` are the same client. What they decide stands once, in ``exchange.py``, without
any input or output; ``blocking.py`` and ``asynchronous.py`` only carry it out.
"""

from ilvr.client.asynchronous import AsyncClient, AsyncEvents
from ilvr.client.blocking import Client, Events
from ilvr.client.errors import ConnectionFailed, UnexpectedAnswer

__all__ = ["AsyncClient", "AsyncEvents", "Client", "ConnectionFailed", "Events", "UnexpectedAnswer"]
