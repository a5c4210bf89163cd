"""What cannot be written is told in one sentence; other failures stay what they are."""

import subprocess
import sys
from pathlib import Path

import pytest

from contracts.errors import BadSettings
from training.writing import writing

# A process of its own, which may write no more than 100 kB into a file.
SCRIPT = """
import resource, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from contracts.errors import BadSettings
from training.writing import writing

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
folder = Path(sys.argv[1])
tensors = {"a": torch.zeros(100_000)}
writers = (
    lambda: save_file(tensors, folder / "a.safetensors"),
    lambda: torch.save(tensors, folder / "a.pt"),
    lambda: (folder / "a.txt").write_text("a" * 200_000),
)
for write in writers:
    try:
        with writing(folder):
            write()
    except BadSettings as error:
        print(error)
"""


def test_whichever_library_writes(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"cannot write to {tmp_path}: ") for line in lines)


def test_what_is_no_matter_of_writing_stays(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^out of memory$"), writing(tmp_path):
        raise RuntimeError("out of memory")
    with pytest.raises(BadSettings, match=r"^cannot write to .*: one line; "), writing(tmp_path):
        raise OSError("one\nline")
