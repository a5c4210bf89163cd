"""The client, the command line, and the composition of gateway, broker and runner."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ilvr.client import AsyncClient, Client

__all__ = ["AsyncClient", "Client"]


def __getattr__(name: str) -> Any:
    """``ilvr.Client`` when it is asked for: no command pays for its imports."""
    if name in __all__:
        import ilvr.client

        return getattr(ilvr.client, name)
    raise AttributeError(f"module 'ilvr' has no attribute {name!r}")
