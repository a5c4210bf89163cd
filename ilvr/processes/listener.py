"""The socket of a server, bound before anything slow is begun: a taken port should not cost half a minute."""

import socket

from contracts.errors import BadSettings


def bind(host: str, port: int, *, option: str = "--port") -> socket.socket:
    """A bound socket that does not listen yet. Port 0 takes a free one. Raises ``BadSettings``, naming the option."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or error
        raise BadSettings(f"cannot bind {host}:{port}: {reason}; choose another with --host and {option}") from error
    return listener


def address(listener: socket.socket) -> str:
    """As a URL."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
