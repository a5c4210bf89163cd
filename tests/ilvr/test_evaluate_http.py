"""``ilvr evaluate`` of a running server, without a model: what is sent, and what is made of the answer."""

import asyncio
import http.server
import json
import socket
import threading
from operator import itemgetter
from pathlib import Path

import pytest

from contracts.errors import EngineDead, GenerationFailed, PromptTooLong
from contracts.responses import LatentStep, TextStep
from ilvr.cli import main
from tests.ilvr.conftest import ServerThread
from tests.ilvr.maze_files import write_mazes, write_rows
from tests.model_runner.folders import MAZE_TINY

# What the scripted server always says: a box with RRDD, 23 tokens of text and 8 latents.
MAPS = ([[1, 0, 0], [0, 0, 0], [0, 0, 2]], [[1, 0, -1], [0, 0, 0], [0, 0, 2]])  # RRDD is right, and ends in a hole


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_mazes(tmp_path, 1, sizes=(3,))
    rows = [{"text_input": f"Question {n}?", "image_input": "0.png", "map_desc": one} for n, one in enumerate(MAPS)]
    return write_rows(tmp_path / "t.jsonl", rows)


def evaluate(data: Path, server: ServerThread, *options: str) -> int:
    return main(["evaluate", "--data", str(data), "--out", str(data.parent / "out"), "--engine", server.url, *options])


def answers(data: Path) -> list[dict]:
    """By index; the file has them in the order in which they came."""
    lines = (data.parent / "out" / "answers.jsonl").read_text().splitlines()[1:]
    return sorted(map(json.loads, lines), key=itemgetter("index"))


def test_on_and_off_are_asked_of_the_server(server, data, capsys):
    assert evaluate(data, server, "--max-tokens", "99", "--seed", "7", "--concurrency", "1") == 0
    jobs = server.runner.jobs
    assert [(job.question, job.latent_mode) for job in jobs] == [
        ("Question 0?", "on"),
        ("Question 1?", "on"),
        ("Question 0?", "off"),
        ("Question 1?", "off"),
    ]
    assert {(job.sampling.max_tokens, job.sampling.temperature, job.sampling.seed) for job in jobs} == {(99, 0.0, 7)}
    assert [len(job.images) for job in jobs] == [1, 1, 1, 1]
    report = json.loads((data.parent / "out" / "results.json").read_text())
    total = report["results"][0]["total"]
    assert (total["num_samples"], total["num_right"], total["accuracy"]) == (2, 1, 0.5)
    assert (total["output_tokens_mean"], total["latents_mean"]) == (31.0, 8.0)
    assert report["run"]["model"] == "scripted"
    assert answers(data)[0]["answered"]["text"] == "Holes: second row.\nLet me  So the path is \\boxed{RRDD} ✓"
    assert "| on | 50.0" in capsys.readouterr().out


def test_the_whole_text_is_put_together_by_the_folders_template(server, data, capsys):
    server.runner.steps = (
        TextStep(index=0, text="First\n"),
        LatentStep(index=1, size=2, exit="restart", duration_ms=1.0),
        LatentStep(index=2, size=3, exit="early", duration_ms=1.0),
        TextStep(index=3, text="answer: RRDD"),
    )
    assert evaluate(data, server, "--model", str(MAZE_TINY), "--match", "2026-01", "--ablation", "on") == 0
    assert answers(data)[0]["answered"]["whole_text"] == (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Question 0?<|im_end|>\n<|im_start|>assistant\n"
        "First\n<|latent_start|><|latent_pad|><|latent_pad|><|latent_start|><|latent_pad|><|latent_pad|><|latent_pad|>"
        "<|latent_end|>answer: RRDD<|im_end|>"
    )
    assert "| on | 50.0" in capsys.readouterr().out


def test_an_answer_that_was_cut_is_counted(server, data, capsys):
    server.runner.ending = "incomplete"
    assert evaluate(data, server, "--ablation", "on") == 0
    assert json.loads((data.parent / "out" / "results.json").read_text())["results"][0]["total"]["num_cut"] == 2
    capsys.readouterr()


def explained(capsys: pytest.CaptureFixture[str], data: Path, url: str, *options: str) -> str:
    argv = ["evaluate", "--data", str(data), "--out", str(data.parent / "out"), "--engine", url, *options]
    assert main(argv) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = [line for line in printed.err.splitlines() if line.startswith("ilvr evaluate: ")]
    assert "Traceback" not in printed.err
    return line


@pytest.mark.parametrize("ablation", ["zero", "noise", "swap"])
def test_an_ablation_is_the_servers_to_be_started_with(ablation, data, capsys):
    told = explained(capsys, data, "http://127.0.0.1:1", "--ablation", f"on,{ablation}")
    assert f"start it with ilvr serve --latent-ablation {ablation} " in told


def test_answers_of_a_server_with_an_ablation_are_not_taken_for_the_models(server, data, capsys):
    assert evaluate(data, server, "--ablation", "on") == 0
    server.runner.latent_ablation = "swap"
    asyncio.run_coroutine_threadsafe(server.runner.beat(), server._loop).result(10)
    assert evaluate(data, server, "--ablation", "on") != 0
    assert "holds answers of another run (model 'scripted' there, 'scripted (latents: swap)' here)" in " ".join(
        capsys.readouterr().err.split()
    )


def test_the_prompt_is_not_told_by_a_server(server, data, capsys):
    assert "add --model DIR" in explained(capsys, data, server.url, "--match", "2026-01")


def test_without_a_server(data, capsys):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    assert "start it with: ilvr serve" in explained(capsys, data, url)
    assert "http:// is not the address of a server" in explained(capsys, data, "http://")


def test_another_kind_of_server(data, capsys):
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        told = explained(capsys, data, f"http://127.0.0.1:{other.server_port}")
        other.shutdown()
    assert "is that an ilvr server?" in told


def test_a_server_that_fails_ends_the_run_and_one_that_is_back_goes_on(server, data, capsys):
    for error in (GenerationFailed("It broke."), EngineDead("It died.")):
        server.runner.fail_with = error
        assert str(error) in explained(capsys, data, server.url, "--ablation", "on")
        assert answers(data) == []
    server.runner.fail_with = None
    assert evaluate(data, server, "--ablation", "on") == 0
    assert len(answers(data)) == 2
    capsys.readouterr()


def test_a_sample_that_the_server_refuses_does_not_end_the_run(server, data, capsys):
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    rows += [{**rows[0], "text_input": "Here <image>?"}, {**rows[0], "text_input": "x" * 40_000}]
    (data.parent / "no.png").write_text("no picture")
    rows += [{**rows[0], "image_input": "no.png"}]
    write_rows(data, rows)
    assert evaluate(data, server, "--ablation", "on", "--concurrency", "1") == 0
    assert "3 could not be asked" in capsys.readouterr().err
    errors = {line["index"]: line["error"] for line in answers(data) if line["error"]}
    assert sorted(errors) == [2, 3, 4]
    assert "t.jsonl:3: text_input says where its pictures stand" in errors[2]
    assert "question" in errors[3]
    assert "images.0" in errors[4]


def test_when_not_one_sample_can_be_asked_that_is_the_mistake(server, data, capsys):
    server.runner.fail_with = PromptTooLong("Too long.")
    told = explained(capsys, data, server.url, "--ablation", "on")
    assert "not one sample could be asked: " in told
    assert "t.jsonl:1: Too long. (prompt_too_long)" in told
    assert not (data.parent / "out" / "results.json").exists()


def test_a_full_queue_is_waited_for(server, data, monkeypatch, capsys):
    """The first two requests meet a queue without a place."""
    from contracts.errors import Overloaded

    submit, refusals = server.broker.submit, [1, 1]

    async def full_at_first(job, **options):
        if refusals:
            refusals.pop()
            raise Overloaded("the queue is full")
        return await submit(job, **options)

    monkeypatch.setattr(server.broker, "submit", full_at_first)
    assert evaluate(data, server, "--ablation", "on") == 0
    assert [line["error"] for line in answers(data)] == [None, None]
    assert max(line["answered"]["latency_s"] for line in answers(data)) < 1  # the wait of 1 s is no latency
    capsys.readouterr()
