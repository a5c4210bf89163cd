"""Writing into a run's folder: a full disk or a folder that cannot be written is told in one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from contracts.errors import BadSettings

# PyTorch tells of files in its own format that could not be written by a plain RuntimeError of one of these.
_PYTORCH_WRITER = ("inline_container", "PytorchStreamWriter")


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Around what writes into ``folder``.

    Raises:
        BadSettings: something could not be written.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise BadSettings(_told(folder, getattr(error, "strerror", None) or str(error))) from error
    except RuntimeError as error:
        if not any(name in str(error) for name in _PYTORCH_WRITER):
            raise
        raise BadSettings(_told(folder, str(error))) from error


def _told(folder: Path, why: str) -> str:
    return (
        f"cannot write to {folder}: {' '.join(why.split())}; make room there, or let it be written to, and go on with "
        "--resume"
    )
