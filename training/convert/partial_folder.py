"""A folder that gets its name only when it is complete.

Until then it is called ``NAME.partial-PID`` and lies beside the target, so that the last step is one rename, which
happens or does not. The process holds a lock on it: the kernel drops the lock with the process, however that ends, and
so a later run can tell a folder left behind from one that is being written.
"""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contracts.errors import InvalidRequest


@contextmanager
def partial_folder(target: Path) -> Iterator[Path]:
    """A new folder that becomes ``target`` when the block ends, and is removed if it raises, Ctrl-C included.

    Folders left by runs that were killed are removed first.

    Raises:
        InvalidRequest: ``target`` exists, or another process is writing it now.
    """
    check_absent(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(target)
    folder = target.parent / f"{target.name}.partial-{os.getpid()}"
    folder.mkdir()
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
        for path in (*folder.iterdir(), folder):
            _sync(path)
        check_absent(target)  # rename would replace an empty folder
        folder.rename(target)
        _sync(target.parent)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def check_absent(target: Path) -> None:
    """Raises ``InvalidRequest`` if there is anything at ``target``."""
    if target.exists() or target.is_symlink():
        raise InvalidRequest(f"{target} exists and is not overwritten; name another folder or remove it", param="dst")


def _remove_stale(target: Path) -> None:
    pattern = re.compile(re.escape(target.name) + r"\.partial-\d+")
    for path in target.parent.iterdir():
        if pattern.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            lock = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InvalidRequest(f"another process is writing {target} now, in {path}", param="dst") from error
            finally:
                os.close(lock)
            shutil.rmtree(path)


def _sync(path: Path) -> None:
    """Make sure that a file's content, or the names in a folder, are on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
