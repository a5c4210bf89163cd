"""Prints ``deploy/.env.example``: what compose needs, then every setting of every process with its default.

    python -m tools.env_example > deploy/.env.example

A test compares the two, so a setting that is new, gone or has another default cannot be forgotten there.
"""

import textwrap
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from broker.settings import BrokerSettings
from model_runner.settings import RunnerSettings
from service.settings import ServiceSettings

WIDTH = 120

HEAD = """\
# Copy to .env and fill in the first part. compose.yml refuses to start without what is empty here.
# The rest is every setting of every process, commented, with its default: uncomment what you change.
# Printed by `python -m tools.env_example`; a test keeps it so.

# ---- compose ----

COMPOSE_PROJECT_NAME=ilvr

# Of Redis: letters and digits, e.g. from `openssl rand -hex 32`.
ILVR_BROKER_REDIS_PASSWORD=

# API keys, a line for each, as `ilvr keys new NAME` prints it; hashes only. Readable for user 10001.
ILVR_API_KEYS_FILE=

# A file that holds the password of Grafana's user admin. Readable for user 472.
GRAFANA_PASSWORD_FILE=

# Ports on 127.0.0.1 of this host. Put your own TLS proxy in front of the first.
#ILVR_PORT=8080
#PROMETHEUS_PORT=9090
#GRAFANA_PORT=3000

# Tag of the images.
#ILVR_VERSION=0.1.0

# A folder of checkpoints on this host, and which of them to serve.
#ILVR_MODELS=../models
#ILVR_MODEL=maze-tiny
"""

SECTIONS: tuple[tuple[str, type[BaseSettings]], ...] = (
    ("gateways", ServiceSettings),
    ("runners", RunnerSettings),
    ("Redis: the same for gateways and runners", BrokerSettings),
)

# What compose.yml says itself, for the inside of a container; a line in .env would change nothing.
SET_BY_COMPOSE = {
    "ILVR_BROKER_REDIS_URL",
    "ILVR_RUNNER_METRICS_HOST",
    "ILVR_RUNNER_METRICS_PORT",
    "ILVR_RUNNER_MODEL",
    "ILVR_SERVICE_API_KEYS_FILE",
}
# They stand in the first part.
FILLED_IN = {"ILVR_BROKER_REDIS_PASSWORD"}


def variables(settings: type[BaseSettings]) -> dict[str, Any]:
    """Each environment variable of a settings class, with its field."""
    prefix = settings.model_config.get("env_prefix", "")
    return {prefix + name.upper(): field for name, field in settings.model_fields.items()}


def text() -> str:
    return "\n".join([HEAD, *(line for title, settings in SECTIONS for line in _section(title, settings))])


def _section(title: str, settings: type[BaseSettings]) -> list[str]:
    lines = [f"# ---- {title} ----", ""]
    for name, field in variables(settings).items():
        if name in FILLED_IN:
            continue
        note = field.description or ""
        if name in SET_BY_COMPOSE:
            note = f"{note} compose.yml sets it.".strip()
        lines += textwrap.wrap(note, WIDTH, initial_indent="# ", subsequent_indent="# ")
        lines += [f"#{name}={_shown(field.default)}", ""]
    return lines


def _shown(default: Any) -> str:
    """As the variable would be written. Nothing for what has no default, or is off without one."""
    if default is None or default is PydanticUndefined:
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple | list | frozenset | set):
        return ",".join(map(str, default))
    return str(Path(default)) if isinstance(default, Path) else str(default)


if __name__ == "__main__":
    print(text(), end="")
