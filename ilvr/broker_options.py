"""``--redis-url``, which ``ilvr serve``, ``ilvr gateway`` and ``ilvr runner`` have in common."""

import argparse
from typing import Any

from contracts.errors import BadSettings


def add_broker_arguments(parser: argparse.ArgumentParser) -> None:
    """What is not given is left to the environment."""
    parser.add_argument(
        "--redis-url", metavar="URL", help="redis://HOST:PORT/0; rather ILVR_BROKER_REDIS_URL if it holds a password"
    )


def broker_settings(args: argparse.Namespace) -> Any:
    """``BrokerSettings``. Raises ``BadSettings``."""
    from broker.settings import load_settings

    return load_settings(**({"redis_url": args.redis_url} if args.redis_url is not None else {}))


def require_redis(settings: Any) -> Any:
    """Raises ``BadSettings`` without a URL: a broker inside the process would have nobody else in it."""
    if settings.redis_url is None:
        raise BadSettings("which Redis server? Say --redis-url redis://HOST:6379/0 or ILVR_BROKER_REDIS_URL")
    return settings
