"""Prints ``deploy/.env.example``: what compose needs, then every setting of every process with its default.

    python -m tools.env_example > deploy/.env.example

A test compares the two, so a setting that is new, gone or has another default cannot be forgotten there.
"""

import dataclasses
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from broker.settings import BrokerSettings
from contracts import logs
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

# API keys, a line for each, as `ilvr keys new --name NAME` prints it; hashes only. Readable for user 10001.
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

# Traces, by OTLP over HTTP to a collector that you add to the network "fleet"; none: no traces.
# OpenTelemetry's other variables (sampler, headers) are read too.
#OTEL_EXPORTER_OTLP_ENDPOINT=
"""


class Setting(NamedTuple):
    note: str
    default: Any


def _pydantic(settings: type[BaseSettings]) -> dict[str, Setting]:
    prefix = settings.model_config.get("env_prefix", "")
    fields = settings.model_fields.items()
    return {prefix + name.upper(): Setting(field.description or "", field.default) for name, field in fields}


def _of_logs() -> dict[str, Setting]:
    notes = {
        "format": f"{', '.join(logs.FORMATS)}; auto: text on a terminal.",
        "level": f"{', '.join(logs.LEVELS)}.",
        "content": f"{', '.join(logs.CONTENTS)}: messages of exceptions, which may quote a question.",
    }
    fields = dataclasses.fields(logs.LogSettings)
    return {logs.PREFIX + field.name.upper(): Setting(notes[field.name], field.default) for field in fields}


SECTIONS: dict[str, dict[str, Setting]] = {
    "gateways": _pydantic(ServiceSettings),
    "runners": _pydantic(RunnerSettings),
    "Redis: the same for gateways and runners": _pydantic(BrokerSettings),
    "logs": _of_logs(),
}

# What compose.yml says itself, for the inside of a container; a line in .env would change nothing.
SET_BY_COMPOSE = {
    "ILVR_BROKER_REDIS_URL",
    "ILVR_RUNNER_METRICS_HOST",
    "ILVR_RUNNER_METRICS_PORT",
    "ILVR_RUNNER_MODEL",
    "ILVR_SERVICE_API_KEYS_FILE",
    "ILVR_SERVICE_DRAIN_DELAY_S",
    "ILVR_SERVICE_MAX_INTAKE_BYTES",
}
# They stand in the first part.
FILLED_IN = {"ILVR_BROKER_REDIS_PASSWORD"}


def text() -> str:
    return "\n".join([HEAD, *(line for title, settings in SECTIONS.items() for line in _section(title, settings))])


def _section(title: str, settings: dict[str, Setting]) -> list[str]:
    lines = [f"# ---- {title} ----", ""]
    for name, setting in settings.items():
        if name in FILLED_IN:
            continue
        note = f"{setting.note} compose.yml sets it.".strip() if name in SET_BY_COMPOSE else setting.note
        lines += textwrap.wrap(note, WIDTH, initial_indent="# ", subsequent_indent="# ")
        lines += [f"#{name}={_shown(setting.default)}", ""]
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
