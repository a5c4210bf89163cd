"""Both engines give the same answers: 200 unseen mazes, from one end of the command to the other."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ilvr.maze_files import write_mazes

NUM_MAZES = 200


def evaluated(data: Path, out: Path, *options: str) -> dict[tuple[str, int], dict]:
    """In a process of its own, because an engine leaves much behind. Answers by ablation and sample."""
    command = [sys.executable, "-m", "ilvr", "evaluate", "--data", str(data), "--out", str(out), *options]
    environment = {**os.environ, "ILVR_RUNNER_KV_CACHE_MIB": "64"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()[1:]]
    return {(line["ablation"], line["index"]): line["answered"] for line in lines}


@pytest.mark.timeout(600)
def test_200_samples_are_answered_alike(tmp_path):
    data = write_mazes(tmp_path, NUM_MAZES // 4)
    plain = evaluated(data, tmp_path / "plain", "--engine", "transformers", "--ablation", "on")
    served = evaluated(data, tmp_path / "vllm", "--engine", "vllm", "--ablation", "on", "--concurrency", "32")
    assert len(plain) == len(served) == NUM_MAZES
    for key, answer in plain.items():
        for name in ("text", "whole_text", "num_output_tokens", "num_latents", "is_cut"):
            assert served[key][name] == answer[name], key
    assert {answer["num_latents"] for answer in plain.values()} == {8}
    figures = [json.loads((tmp_path / out / "results.json").read_text())["results"] for out in ("plain", "vllm")]
    assert figures[0][0]["total"]["num_right"] == figures[1][0]["total"]["num_right"] > 0.9 * NUM_MAZES


@pytest.mark.timeout(600)
def test_every_ablation_is_one_of_the_engine(tmp_path):
    """Whether the answers change is the model's affair; that all are asked, each with 8 latents but off, is ours."""
    data = write_mazes(tmp_path, 2, sizes=(3, 6))
    found = evaluated(data, tmp_path / "out", "--engine", "transformers")
    assert set(found) == {(name, index) for name in ("on", "off", "zero", "noise", "swap") for index in range(4)}
    assert {(name, answer["num_latents"]) for (name, _), answer in found.items()} == {
        ("on", 8),
        ("off", 0),
        ("zero", 8),
        ("noise", 8),
        ("swap", 8),
    }
