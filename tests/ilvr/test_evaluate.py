"""``ilvr evaluate`` as a user types it: the embedded model in plain transformers, and mistakes told in one line."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from ilvr.cli import main
from ilvr.commands.evaluate import drawn, parse_ablations
from ilvr.evaluation_facts import checkpoint_digest
from tests.ilvr.maze_files import write_mazes, write_rows
from tests.model_runner.folders import MAZE_TINY
from training.samples import read_samples


@pytest.fixture(scope="module")
def mazes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mazes(tmp_path_factory.mktemp("mazes"), 3, sizes=(3, 4))


def evaluate(data: Path, out: Path, *options: str) -> int:
    return main(["evaluate", "--data", str(data), "--out", str(out), "--engine", "transformers", *options])


def answers(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()[1:]]


def test_the_embedded_model_on_small_mazes(mazes, tmp_path, capsys):
    """It solves 3x3 and 4x4 (99 % and more), with 8 latents where latents are on and none where they are off."""
    out = tmp_path / "new" / "out"
    assert evaluate(mazes, out, "--ablation", "off, on", "--seed", "5") == 0
    printed = capsys.readouterr()
    assert printed.out == (out / "results.md").read_text() + "\n"
    report = json.loads((out / "results.json").read_text())
    assert [result["ablation"] for result in report["results"]] == ["on", "off"]
    on, off = report["results"]
    assert (on["total"]["num_samples"], on["total"]["num_right"]) == (6, 6)
    assert {name: figures["num_samples"] for name, figures in on["groups"].items()} == {"3x3": 3, "4x4": 3}
    assert (on["total"]["latents_mean"], off["total"]["latents_mean"]) == (8.0, 0.0)
    # A block is START, 8 pads and END.
    assert on["total"]["output_tokens_mean"] == pytest.approx(off["total"]["output_tokens_mean"] + 10)
    assert 0 < on["total"]["latency_p50_s"] <= on["total"]["latency_p95_s"]
    assert (report["match"], report["run"]["model"], report["run"]["seed"]) == ("2026-08", "maze-tiny", 5)
    assert {"command", "machine", "versions"} <= set(report["context"])
    with Image.open(out / "results.png") as chart:
        assert chart.format == "PNG"
    first = answers(out)[0]["answered"]
    assert first["whole_text"].startswith("<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Find a safe")
    assert re.search(r"<\|latent_start\|>(<\|latent_pad\|>){8}<\|latent_end\|>\\boxed", first["whole_text"])
    assert first["whole_text"].endswith("<|im_end|>")
    assert "<|" not in first["text"]


def test_a_complete_run_is_judged_again_without_an_engine(mazes, tmp_path, capsys, monkeypatch):
    assert evaluate(mazes, tmp_path, "--ablation", "on") == 0
    before = (tmp_path / "answers.jsonl").read_bytes()

    def refuse(*_: object) -> None:
        raise AssertionError("an engine was started")

    monkeypatch.setattr("ilvr.evaluation_engines.start_engine", refuse)
    assert evaluate(mazes, tmp_path, "--ablation", "on", "--match", "2026-01") == 0
    assert (tmp_path / "answers.jsonl").read_bytes() == before
    report = json.loads((tmp_path / "results.json").read_text())
    # The last box of the whole text is the answer's.
    assert (report["match"], report["results"][0]["total"]["num_right"]) == ("2026-01", 6)
    capsys.readouterr()


def test_a_stopped_run_goes_on(mazes, tmp_path, capsys):
    assert evaluate(mazes, tmp_path, "--ablation", "on") == 0
    complete = answers(tmp_path)
    lines = (tmp_path / "answers.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "answers.jsonl").write_bytes(b"".join(lines[:4]) + lines[4][:20])
    (tmp_path / "results.json").unlink()
    assert evaluate(mazes, tmp_path, "--ablation", "on") == 0
    again = answers(tmp_path)
    assert [line["index"] for line in again] == [0, 1, 2, 3, 4, 5]
    assert again[:3] == complete[:3]
    assert [line["answered"]["text"] for line in again] == [line["answered"]["text"] for line in complete]
    assert json.loads((tmp_path / "results.json").read_text())["results"][0]["total"]["num_right"] == 6
    capsys.readouterr()


def test_ctrl_c_keeps_what_was_answered(tmp_path):
    data = write_mazes(tmp_path, 40, sizes=(3, 4, 5))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "ilvr", "evaluate", "--data", str(data), "--out", str(out)]
    with subprocess.Popen(
        [*command, "--engine", "transformers", "--ablation", "on"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as asking:
        log = out / "answers.jsonl"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not (log.exists() and log.read_bytes().count(b"\n") > 3):
            time.sleep(0.02)
        asking.send_signal(signal.SIGINT)
        printed, notes = asking.communicate(timeout=60)
    assert (asking.returncode, printed) == (130, "")
    assert notes.splitlines()[-1] == "stopped; the same command goes on"
    assert "Traceback" not in notes
    assert 3 <= len(answers(out)) < 120
    assert not (out / "results.json").exists()


def test_samples_are_drawn_by_lot_and_stay_in_order(tmp_path):
    rows = [{"text_input": str(index), "original_final_answer": "4"} for index in range(50)]
    samples = read_samples(write_rows(tmp_path / "t.jsonl", rows), needs_steps=False)
    chosen = drawn(samples, 10, seed=1)
    assert len(chosen) == 10
    assert list(chosen) == sorted(chosen)
    assert all(sample.text_input == str(index) for index, sample in chosen.items())
    assert chosen == drawn(samples, 10, seed=1)
    assert list(chosen) != list(drawn(samples, 10, seed=2))
    assert list(chosen) != list(range(10))
    assert list(drawn(samples, 60, seed=1)) == list(drawn(samples, None, seed=1)) == list(range(50))


def test_ablations_are_asked_in_the_order_that_starts_the_fewest_engines():
    assert parse_ablations("swap,off,zero,on") == ("on", "off", "zero", "swap")
    assert parse_ablations("noise, noise") == ("noise",)


def test_a_checkpoint_is_told_from_another(tmp_path):
    for file in MAZE_TINY.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    first = checkpoint_digest(tmp_path)
    (tmp_path / "README.md").write_text("another card")
    assert checkpoint_digest(tmp_path) == first
    manifest = json.loads((tmp_path / "ilvr.json").read_text())
    (tmp_path / "ilvr.json").write_text(json.dumps({**manifest, "latent_size": 4}))
    second = checkpoint_digest(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes() + b"0")
    assert len({first, second, checkpoint_digest(tmp_path)}) == 3


def explained(capsys: pytest.CaptureFixture[str], argv: list[str]) -> str:
    """One sentence on stderr, exit status 1, nothing on stdout."""
    assert main(["evaluate", *argv]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("ilvr evaluate: ")
    assert printed.err.count("\n") == 1
    return printed.err


def test_mistakes_are_explained(mazes, tmp_path, capsys):
    files = ["--data", str(mazes), "--out", str(tmp_path / "out")]
    assert "vllm, transformers or the http://" in explained(capsys, [*files, "--engine", "hf"])
    assert "on, off, zero, noise, swap, not 'none'" in explained(capsys, [*files, "--ablation", "on,none"])
    for name in ("--limit", "--max-tokens", "--concurrency"):
        assert f"{name} must be at least 1" in explained(capsys, [*files, name, "0"])
    plain = ["--engine", "transformers", "--ablation", "on"]
    assert "is not a folder" in explained(capsys, [*files, *plain, "--model", str(tmp_path / "none")])
    missing = explained(capsys, ["--data", str(tmp_path / "none.jsonl"), "--out", str(tmp_path), *plain])
    assert "none.jsonl: No such file" in missing
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert "cannot make the folder" in explained(capsys, ["--data", str(mazes), "--out", str(blocked), *plain])
    without = write_rows(tmp_path / "t.jsonl", [{"text_input": "?"}])
    told = explained(capsys, ["--data", str(without), "--out", str(tmp_path / "out"), *plain])
    assert "t.jsonl:1: neither map_desc nor original_final_answer" in told


@pytest.mark.parametrize(("package", "extra"), [("matplotlib", "train"), ("transformers", "cpu")])
def test_what_is_not_installed_is_told_at_once(package, extra, mazes, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ilvr.commands.evaluate.find_spec", lambda name: None if name == package else True)
    told = explained(capsys, ["--data", str(mazes), "--out", str(tmp_path / "out"), "--engine", "transformers"])
    assert f"{package} is not installed; install ilvr[{extra}]" in told


def test_answers_of_another_model_are_not_mixed_in(mazes, tmp_path, capsys):
    out = tmp_path / "out"
    assert evaluate(mazes, out, "--ablation", "on", "--limit", "1") == 0
    capsys.readouterr()
    files = ["--data", str(mazes), "--out", str(out), "--engine", "transformers", "--ablation", "on"]
    assert "max_tokens 512 there, 64 here" in explained(capsys, [*files, "--max-tokens", "64"])


def test_a_sample_that_cannot_be_asked_counts_as_wrong_and_is_named(mazes, tmp_path, capsys):
    rows = [json.loads(line) for line in mazes.read_text().splitlines()[:3]]
    rows[1] = {**rows[1], "text_input": "<image> and <image>"}
    data = write_rows(tmp_path / "t.jsonl", rows)
    assert evaluate(data, tmp_path, "--ablation", "on", "--images", str(mazes.parent)) == 0
    printed = capsys.readouterr()
    assert "1 could not be asked" in printed.err
    assert printed.err.count("t.jsonl:2: text_input has 2 <image> for 1 pictures") == 1
    assert printed.err.count("t.jsonl:2") == 1
    total = json.loads((tmp_path / "results.json").read_text())["results"][0]["total"]
    assert (total["num_samples"], total["num_right"], total["num_errors"]) == (3, 2, 1)


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    text = capsys.readouterr().out
    for word in ("swap", "Wilson", "2026-01", "2026-08", "answers.jsonl", "goes on", "ilvr evaluate --data"):
        assert word in text
