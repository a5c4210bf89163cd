"""The benchmark for a GPU: what it makes of numbers, that it skips without one, and that it runs, on a tiny shape."""

import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import Cell, rows_of
from benchmarks.gpu_shape import SHAPES, START_ID, write_folder
from benchmarks.runners import Runner
from model_runner.checkpoint import read_checkpoint
from model_runner.engine.base import EngineRequest, TokenDelta
from model_runner.generation import GenerationDefaults
from tests.servers import ROOT


def cell(graphs: str, kind: gpu.Kind, ms: list[float], runner: Runner = "V2") -> Cell:
    return Cell(runner=runner, graphs=graphs, kind=kind, batch=8, tpot_ms=ms)


def test_a_row_has_steps_their_ratio_and_what_graphs_gain() -> None:
    cells = [
        cell("eager", "text", [20.0, 22.0, 21.0]),
        cell("eager", "latent", [22.05, 22.05, 22.05]),
        cell("graphs", "text", [10.0, 10.0, 10.0]),
        cell("graphs", "latent", [10.5, 10.5, 10.5]),
        cell("graphs", "text", [8.0], "V1"),
        cell("graphs", "latent", [8.4], "V1"),
    ]
    assert rows_of(cells) == [
        ["V2", "eager", "8", "21.00 (20.00–22.00)", "22.05 (22.05–22.05)", "1.050", "–"],
        ["V2", "graphs", "8", "10.00 (10.00–10.00)", "10.50 (10.50–10.50)", "1.050", "2.10"],
        ["V1", "graphs", "8", "8.00 (8.00–8.00)", "8.40 (8.40–8.40)", "1.050", "–"],
    ]


def test_only_latent_prompts_end_with_start_and_no_two_begin_alike() -> None:
    text, latent = (gpu.request_of(kind, 0, "t").prompt_ids for kind in gpu.KINDS)
    assert latent[-1] == START_ID
    assert START_ID not in text
    assert len({gpu.request_of("text", number, "t").prompt_ids[:16] for number in range(64)}) == 64


class Scripted:
    """An engine that answers with these ids, one at a time."""

    def __init__(self, ids: list[int]) -> None:
        self.ids = ids

    async def generate(self, request: EngineRequest) -> AsyncIterator[TokenDelta]:
        for token in self.ids:
            yield TokenDelta(ids=(token,))


PAD, WORD, NUM = 7, 8, gpu.NUM_TOKENS


@pytest.mark.parametrize(
    ("kind", "ids", "is_right"),
    [
        ("text", [WORD] * NUM, True),
        ("text", [*[WORD] * (NUM - 1), PAD], False),
        ("text", [PAD] * NUM, False),
        ("text", [WORD] * (NUM - 1), False),
        ("latent", [PAD] * NUM, True),
        ("latent", [*[PAD] * (NUM - 1), WORD], False),
        ("latent", [WORD] * NUM, False),
        ("latent", [PAD] * (NUM - 1), False),
    ],
)
async def test_a_batch_that_is_not_what_it_is_called_is_no_measurement(
    kind: gpu.Kind, ids: list[int], is_right: bool
) -> None:
    measured = gpu.tpot_s(Scripted(ids), gpu.request_of(kind, 0, "t"), kind, PAD)  # type: ignore[arg-type]
    if is_right:
        assert await measured > 0
    else:
        with pytest.raises(RuntimeError, match=f"in a batch of {kind} steps"):
            await measured


async def test_no_token_of_random_weights_ends_an_answer_or_begins_a_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Started(Exception):
        """With the defaults, and vLLM's arguments."""

    def start(settings: Any, checkpoint: Any, defaults: GenerationDefaults, *, arguments: Any) -> None:
        raise Started(defaults, arguments)

    monkeypatch.setattr(gpu.VllmEngine, "start", start)
    with pytest.raises(Started) as started:
        await gpu.run(write_folder(tmp_path / "tiny", SHAPES["tiny"]), is_cpu=True, batches=[1], repetitions=1)
    defaults, arguments = started.value.args
    assert arguments == {"load_format": "dummy"}
    assert defaults.end_ids == ()
    assert {gpu.request_of(kind, 0, "t").latent_mode for kind in gpu.KINDS} == {"off"}


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_the_folder_is_a_checkpoint_that_can_be_served(shape: str, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(write_folder(tmp_path / shape, SHAPES[shape]), is_cpu=True)
    assert checkpoint.spec.rule == "fixed"
    assert checkpoint.spec.size > gpu.NUM_TOKENS


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, so it would run")
def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main(["--out", str(tmp_path)])
    assert capsys.readouterr().out.startswith("bench-gpu: skipped, no GPU")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_it_runs(tmp_path: Path) -> None:
    gpu.main(["--shape", "tiny", "--batches", "1", "3", "--repetitions", "2", "--out", str(tmp_path)])
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert [(one["batch"], one["kind"]) for one in report["cells"]] == [
        (1, "text"),
        (1, "latent"),
        (3, "text"),
        (3, "latent"),
    ]
    assert all(len(one["tpot_ms"]) == 2 and min(one["tpot_ms"]) > 0 for one in report["cells"])
    assert "| V1 | eager | 3 |" in (tmp_path / "gpu.md").read_text()


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU: then it is an error")
@pytest.mark.parametrize("target", ["test-gpu", "bench-gpu"])
def test_without_gpu_and_torch_make_says_what_is_missing(target: str) -> None:
    done = subprocess.run(["make", "-s", target, "GPU_PYTHON=false"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "skipped: false has no torch; docs/gpu.md says what to install\n"
