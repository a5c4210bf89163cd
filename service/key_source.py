"""Where the keys come from, and that a changed file is read again."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from contracts.errors import BadSettings
from service.keys import KeyRing, parse_keys
from service.settings import PREFIX, ServiceSettings

log = logging.getLogger(__name__)

KEYS_VARIABLE = f"{PREFIX}API_KEYS"
MAX_FILE_BYTES = 1 << 20
# How long a key that was taken out of the file may still be good.
LOOK_INTERVAL_S = 1.0


class KeySource(Protocol):
    def now(self) -> KeyRing:
        """The keys that are good at this moment."""
        ...


class FixedKeys:
    """From the environment: they change with a restart."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    def now(self) -> KeyRing:
        return self._ring


class KeyFile:
    """From a file, which is read again when it has changed; looked at once a second, when somebody asks.

    A file that has become unreadable changes nothing, and is logged: a slip of the editor should not lock all out.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises ``BadSettings``."""
        self._path = path
        self._clock = clock
        self._looked_at = clock()
        self._stamp = self._look()
        self._ring = _read(path)

    def now(self) -> KeyRing:
        if self._clock() - self._looked_at >= LOOK_INTERVAL_S:
            self._looked_at = self._clock()
            stamp = self._look()
            if stamp != self._stamp:
                self._stamp = stamp
                self._read_again()
        return self._ring

    def _look(self) -> tuple[int, int, int] | None:
        """A file that is replaced, as editors and Kubernetes do it, is another inode."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _read_again(self) -> None:
        try:
            ring = _read(self._path)
        except BadSettings as error:
            log.error("the API keys stay as they were: %s", error)
        else:
            self._ring = ring
            log.info("%d API keys were read from %s", len(ring), self._path)


def _read(path: Path) -> KeyRing:
    ring = read_keys(path)
    if not ring:
        raise BadSettings(f"{path}: no key is in it")
    return ring


def read_keys(path: Path) -> KeyRing:
    """Raises ``BadSettings``."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise BadSettings(f"{path}: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise BadSettings(f"{path}: more than {MAX_FILE_BYTES} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise BadSettings(f"{path}: not UTF-8 text") from None
    return parse_keys(text, str(path))


def open_keys(settings: ServiceSettings) -> KeySource | None:
    """None if neither a file nor the variable is given: then keys are off. Raises ``BadSettings``."""
    if settings.api_keys_file is not None:
        return KeyFile(settings.api_keys_file)
    if settings.api_keys is not None:
        ring = parse_keys(settings.api_keys, KEYS_VARIABLE)
        if not ring:
            raise BadSettings(f"{KEYS_VARIABLE} holds no key; leave it out to serve without keys")
        return FixedKeys(ring)
    return None
