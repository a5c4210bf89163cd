"""``ilvr convert`` as a process: what it prints, what a signal leaves, what memory it takes, what is served of it."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from contracts.errors import BadCheckpoint
from ilvr import checks
from ilvr.cli import main
from model_runner.checkpoint import read_checkpoint
from model_runner.engine.transformers_engine import TransformersEngine
from model_runner.generation import read_generation_defaults
from model_runner.settings import RunnerSettings
from tests.parity.traces import answer, read_traces, request_of
from tests.servers import ROOT
from tests.training.published import write_published, write_weights

MIB = 1 << 20
TIMEOUT_S = 120
# 73 M parameters: about 280 MiB in float32, in tensors of 8 MiB at most.
LARGE = {"hidden_size": 704, "num_attention_heads": 11, "intermediate_size": 2816, "num_hidden_layers": 10}
VISION = {"depth": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 64, "out_hidden_size": 704}
# What may be in memory at once: 64 MiB of the source and one tensor more, a weight file of the target being read back
# (31 MiB), a piece in both dtypes; and half of all this again for the allocator.
ALLOWED = 170 * MIB
# Prints the most memory that a process has held, mapped files included, however it was started.
PRINT_PEAK = """
import re, sys
peak_kib = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
print("peak", peak_kib * 1024, file=sys.stderr)
"""
CONVERT = "import sys; from ilvr.cli import main; status = main(['convert', *sys.argv[1:]])" + PRINT_PEAK
READ_WHOLE = (
    "import sys, torch; all = {name: one.bfloat16() for name, one in torch.load(sys.argv[1]).items()}" + PRINT_PEAK
)


def write_large(folder: Path, layout: str) -> None:
    golden = json.loads((ROOT / "tests/golden/ckpt-b-config/config.json").read_text())
    rope = {"rope_scaling": {"type": "mrope", "mrope_section": [8, 12, 12]}}
    write_published(folder, layout=layout, config={**LARGE, **rope, "vision_config": golden["vision_config"] | VISION})


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """In 7 shards of 40 MiB, as one file of 280 MiB, and one so small that it takes no memory."""
    folder = tmp_path_factory.mktemp("large")
    write_large(folder / "shards", "bin-7")
    write_large(folder / "single", "bin")
    write_published(folder / "small")
    yield folder
    shutil.rmtree(folder)


def peak_of(code: str, *arguments: str) -> int:
    """Peak memory in bytes of a Python process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stderr
    return int(done.stderr.split("peak ")[-1])


def converting_peak(source: Path, target: Path) -> int:
    peak = peak_of(CONVERT, str(source), str(target), "--max-shard-gib", "0.03")
    assert (target / "ilvr.json").exists()
    shutil.rmtree(target)
    return peak


@pytest.fixture(scope="module")
def small_peak(large: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    """What Python, torch and transformers take by themselves."""
    return converting_peak(large / "small", tmp_path_factory.mktemp("small") / "target")


@pytest.mark.parametrize("layout", ["shards", "single"])
def test_memory_is_bounded(layout: str, large: Path, small_peak: int, tmp_path: Path) -> None:
    grown = converting_peak(large / layout, tmp_path / "target") - small_peak
    print(f"{layout}: {grown / MIB:.0f} MiB more than for a small checkpoint")
    assert grown < ALLOWED


def test_the_bound_notices_who_reads_all(large: Path) -> None:
    """The same weights cast as plainly as can be: 280 MiB and half of it again."""
    weights = str(large / "single" / "pytorch_model.bin")
    grown = peak_of(READ_WHOLE, weights) - peak_of("import torch" + PRINT_PEAK)
    assert grown > 2 * ALLOWED


def start(source: Path, target: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ilvr", "convert", str(source), str(target), "--max-shard-gib", "0.01"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], folder: Path, pattern: str) -> Path:
    """The first file that matches. The process is still at work then, or the test says that it is not."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        found = next(folder.glob(pattern), None)
        if found is not None:
            return found
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    raise AssertionError(f"no {pattern} after {TIMEOUT_S} s")


# While the source is read, and among the files of the target.
MOMENTS = ["target.partial-*", "target.partial-*/model-00005-of-*"]


@pytest.mark.parametrize("moment", MOMENTS)
class TestSignals:
    def test_ctrl_c_leaves_nothing(self, moment: str, large: Path, tmp_path: Path) -> None:
        process = start(large / "shards", tmp_path / "target")
        wait_for(process, tmp_path, moment)
        process.send_signal(signal.SIGINT)
        printed, told = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 130
        assert "serve it with" not in printed
        assert "interrupted" in told
        assert "Traceback" not in told
        assert list(tmp_path.iterdir()) == []

    def test_kill_leaves_what_nobody_takes_for_a_checkpoint(self, moment: str, large: Path, tmp_path: Path) -> None:
        target = tmp_path / "target"
        process = start(large / "shards", target)
        wait_for(process, tmp_path, moment)
        process.kill()
        process.communicate(timeout=TIMEOUT_S)
        (left,) = tmp_path.iterdir()
        assert left.name == f"target.partial-{process.pid}"
        with pytest.raises(BadCheckpoint):
            read_checkpoint(left, is_cpu=False)
        assert main(["convert", str(large / "small"), str(target)]) == 0
        assert list(tmp_path.iterdir()) == [target]


class TestWords:
    def test_what_is_printed(self, large: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        target = tmp_path / "target"
        assert (
            main(["convert", str(large / "small"), str(target), "--vocab", "resize:64", "--latent-exit", "fixed"]) == 0
        )
        printed, told = capsys.readouterr()
        assert printed.splitlines() == [
            "latent ids 47, 48, 49 (pad, start, end), K = 8, blocks end as fixed",
            f"serve it with: ilvr serve --model {target}",
        ]
        assert "57 tensors in 1 file" in told
        created_by = json.loads((target / "ilvr.json").read_text())["created_by"]
        assert created_by["command"] == (
            "ilvr convert small target --dtype bfloat16 --vocab resize:64 --max-shard-gib 4 --latent-exit fixed"
        )
        assert str(tmp_path) not in (target / "ilvr.json").read_text()
        assert read_checkpoint(target, is_cpu=True).spec.rule == "fixed"

    def test_the_doctor_agrees(self, large: Path, tmp_path: Path) -> None:
        assert main(["convert", str(large / "small"), str(tmp_path / "target")]) == 0
        assert checks.model_folder(tmp_path / "target").found == "target, K = 8, hashes match"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--vocab", "resize"], "--vocab is keep or resize:N"),
            (["--vocab", "resize:0"], "--vocab is keep or resize:N"),
            (["--vocab", "resize:10"], "token id 49 is in use"),
            (["--latent-size", "0"], "--latent-size must be at least 1"),
            (["--latent-size", "4"], "latent_size is 8 in config.json but 4 in --latent-size"),
            (["--max-shard-gib", "0"], "--max-shard-gib must be greater than 0"),
            (["--max-shard-gib", "nan"], "--max-shard-gib must be greater than 0"),
            (["--base", "nowhere"], "--base: nowhere is not a folder"),
        ],
    )
    def test_a_wrong_argument_is_one_line(
        self, arguments: list[str], message: str, large: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["convert", str(large / "small"), str(tmp_path / "target"), *arguments]) == 1
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
        assert line.startswith("ilvr convert: ")
        assert message in line
        assert list(tmp_path.iterdir()) == []

    def test_help_shows_how(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="0"):
            main(["convert", "--help"])
        printed = capsys.readouterr().out
        assert "ilvr convert comt_ckpt comt-7b" in printed
        assert "--latent-exit" in printed


@pytest.fixture(scope="module")
def published(golden_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Golden checkpoint b as it would be published: 7 ``.bin`` shards, its tower in bf16."""
    folder = tmp_path_factory.mktemp("published") / "golden-b"
    shutil.copytree(golden_folders["b"], folder, ignore=shutil.ignore_patterns("*.safetensors"))
    weights = {
        name: tensor.bfloat16() if name.startswith("visual.") else tensor
        for name, tensor in load_file(golden_folders["b"] / "model.safetensors").items()
    }
    write_weights(folder, weights, "bin-7")
    return folder


async def test_the_converted_checkpoint_answers_as_its_source(published: Path, tmp_path: Path) -> None:
    """The plain engine in bf16 on the ``.bin`` shards themselves, which transformers reads, and on what became of them.

    The vocabulary is cut to the published 151,668 rows on the way: the rows behind are never chosen by this model.
    """
    target = tmp_path / "target"
    assert main(["convert", str(published), str(target), "--vocab", "resize:151668", "--max-shard-gib", "0.02"]) == 0
    assert len(list(target.glob("model-*.safetensors"))) == 2
    answers = {}
    for folder in (published, target):
        checkpoint = read_checkpoint(folder, is_cpu=True)
        defaults = read_generation_defaults(folder, checkpoint.config)
        engine = TransformersEngine.start(RunnerSettings(model=folder, dtype="bfloat16"), checkpoint, defaults)
        traces = read_traces("b")[:2]
        answers[folder] = [(await answer(engine, request_of(t, defaults, "x", max_tokens=60)))[0] for t in traces]
    assert answers[published] == answers[target]
    assert all(151665 in ids for ids in answers[target])
    assert len(set(answers[target])) == 2


def test_the_source_is_only_read(published: Path, tmp_path: Path) -> None:
    before = {path.name: hashlib.sha256(path.read_bytes()).digest() for path in published.iterdir()}
    changed_at = published.stat().st_mtime_ns
    assert main(["convert", str(published), str(tmp_path / "target")]) == 0
    assert {path.name: hashlib.sha256(path.read_bytes()).digest() for path in published.iterdir()} == before
    assert published.stat().st_mtime_ns == changed_at
