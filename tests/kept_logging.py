"""A process whose logs a test has configured logs as before afterwards: pytest would keep every line of later tests."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from structlog.contextvars import clear_contextvars

from contracts.logs import OURS

CONFIGURES_ENGINES = "VLLM_CONFIGURE_LOGGING"


@contextmanager
def kept_logging() -> Iterator[None]:
    """What ``configure_logs`` changes is put back at the end; until then records are made as without vLLM."""
    loggers = [logging.getLogger(name) for name in ("", "vllm", *OURS)]
    before = [(logger, list(logger.handlers), logger.level, logger.propagate) for logger in loggers]
    factory, variable = logging.getLogRecordFactory(), os.environ.get(CONFIGURES_ENGINES)
    logging.setLogRecordFactory(logging.LogRecord)  # vLLM, where another test has imported it, has one of its own
    try:
        yield
    finally:
        logging.setLogRecordFactory(factory)
        for logger, handlers, level, propagate in before:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
        if variable is None:
            os.environ.pop(CONFIGURES_ENGINES, None)
        else:
            os.environ[CONFIGURES_ENGINES] = variable
        clear_contextvars()
