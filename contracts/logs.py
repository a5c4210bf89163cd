"""How every process writes its log: a line for each record, JSON or text, on standard error.

Records of ``logging`` by whatever library come out alike, with what structlog's context variables hold: request_id and
response_id. Imports nothing beyond the standard library until logs are configured.
"""

import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contracts.errors import BadSettings
from contracts.line_writer import LineWriter
from contracts.settings import refuse_unknown_variables
from contracts.tracebacks import traceback_without_messages

PREFIX = "ILVR_LOG_"
FORMATS = ("auto", "json", "text")
LEVELS = ("debug", "info", "warning", "error")
CONTENTS = ("hide", "show")
# The level is for these; libraries speak up from WARNING on.
OURS = ("broker", "contracts", "ilvr", "model_runner", "service")
STANDARD_ERROR = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """``ILVR_LOG_FORMAT``, ``ILVR_LOG_LEVEL``, ``ILVR_LOG_CONTENT``. auto: text on a terminal, JSON elsewhere.

    content: whether messages of exceptions, which may quote a question, are shown.
    """

    format: str = "auto"
    level: str = "info"
    content: str = "hide"

    @property
    def is_json(self) -> bool:
        return self.format == "json" or (self.format == "auto" and not os.isatty(STANDARD_ERROR))


def log_settings(environment: Mapping[str, str] = os.environ) -> LogSettings:
    """Raises ``BadSettings``."""
    refuse_unknown_variables(PREFIX, LogSettings.__slots__)
    found = {}
    for name, allowed in (("format", FORMATS), ("level", LEVELS), ("content", CONTENTS)):
        value = environment.get(PREFIX + name.upper(), "").lower()
        if value and value not in allowed:
            raise BadSettings(f"{PREFIX}{name.upper()} is {value!r}; it is one of {', '.join(allowed)}")
        if value:
            found[name] = value
    return LogSettings(**found)


def configure_logs(process: str, settings: LogSettings | None = None) -> LineWriter:
    """From now on, in this process. ``process`` is a field of every line: gateway, runner, serve or engine.

    Raises ``BadSettings``.
    """
    settings = settings or log_settings()
    writer = LineWriter(STANDARD_ERROR)
    handler = LineHandler(writer)
    # The engine's process knows no text and no key, and its messages say what its hardware lacks.
    shows_content = settings.content == "show" or process == "engine"
    handler.setFormatter(_formatter(process, is_json=settings.is_json, shows_content=shows_content))
    level = getattr(logging, settings.level.upper())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(level, logging.WARNING))
    for name in OURS:
        logging.getLogger(name).setLevel(level)
    # vLLM's lines then pass through here too, in this process and in the engine's, which configures itself likewise.
    os.environ.setdefault("VLLM_CONFIGURE_LOGGING", "0")
    vllm = logging.getLogger("vllm")
    vllm.setLevel(os.environ.get("VLLM_LOGGING_LEVEL", "ERROR").upper())
    vllm.handlers, vllm.propagate = [], True  # if it was imported before
    return writer


def configure_engine_logs() -> None:
    """In a process that vLLM started, if the one that started it has configured its logs."""
    if os.environ.get("VLLM_CONFIGURE_LOGGING") == "0" and not logging.getLogger().handlers:
        configure_logs("engine")


class LineHandler(logging.Handler):
    """Formats at once, where the context is that of the request; writes later, in another thread."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # a record that cannot be formatted must not end a request; the writer counts it
            self._writer.drop()
            return
        self._writer.write(line)


def _formatter(process: str, *, is_json: bool, shows_content: bool) -> logging.Formatter:
    import structlog
    from structlog.typing import EventDict, WrappedLogger

    def add_process(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["process"] = process
        return event

    def hide_content(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        error = event.pop("exc_info", None)
        if error and error[1] is not None:
            event["exception"] = traceback_without_messages(error[1])
        return event

    before: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        add_process,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    first: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if not shows_content:
        first.append(hide_content)
    last: list[Any] = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    if not is_json:
        plain = structlog.dev.plain_traceback  # the other one would show what variables hold
        last = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=before,
        processors=[*first, *last],
    )
