"""vLLM's own load tool, ``vllm bench serve --backend openai-chat``, takes this server for one that it knows."""

import json
import os
import subprocess
import sys

import pytest

from tests.servers import ROOT

NUM_PROMPTS = 8
PICTURE = ["--random-mm-base-items-per-request", "1", "--random-mm-bucket-config", "{(64, 64, 1): 1.0}"]
DATASETS = {"random": [], "random-mm": PICTURE}


@pytest.mark.parametrize("dataset", DATASETS)
def test_it_measures_text_and_pictures(dataset, maze_server, tmp_path):
    length = ["--random-input-len", "32", "--random-output-len", "16"]
    sizes = ["--num-prompts", str(NUM_PROMPTS), "--max-concurrency", "4", *length, *DATASETS[dataset]]
    where = ["--base-url", maze_server.url, "--backend", "openai-chat", "--endpoint", "/v1/chat/completions"]
    what = ["--model", "maze-tiny", "--tokenizer", "models/maze-tiny", "--dataset-name", dataset]
    out = ["--save-result", "--result-dir", str(tmp_path), "--result-filename", "result.json"]
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.vllm_bench", *where, *what, *sizes, *out],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["completed"], result["failed"]) == (NUM_PROMPTS, 0)
    assert 0 < result["total_output_tokens"] <= NUM_PROMPTS * 16
    assert result["mean_ttft_ms"] > 0
