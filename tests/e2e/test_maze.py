"""A stranger's first session: a maze, a question, an answer that solves it."""

import base64
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from contracts.mazes import run_path
from tests.e2e.sse import parse_sse

ILVR = str(Path(sys.executable).parent / "ilvr")
QUESTION = "Find a safe path from S to G."


def ilvr(*args):
    return subprocess.run([ILVR, *args], capture_output=True, text=True, timeout=120)


def make_maze(folder, *, size, seed):
    picture, description = folder / f"maze-{size}-{seed}.png", folder / f"maze-{size}-{seed}.json"
    made = ilvr("maze", "--size", str(size), "--seed", str(seed), "--out", str(picture), "--json", str(description))
    assert made.returncode == 0, made.stderr
    return picture, json.loads(description.read_text())


def test_ask_prints_a_path_that_solves_the_maze(maze_server, tmp_path):
    picture, maze = make_maze(tmp_path, size=4, seed=7)
    asked = ilvr("ask", "--url", maze_server.url, str(picture), maze["question"])
    assert asked.returncode == 0, asked.stderr
    answer = asked.stdout.strip().splitlines()[-1].removeprefix("answer: ")
    assert run_path(tuple(maze["grid"]), answer)


@pytest.mark.parametrize("size", [3, 4, 5])
def test_most_unseen_mazes_are_solved_with_a_full_latent_block(maze_server, tmp_path, size):
    """A floor for twelve mazes; the accuracy on 500 per size stands in the model card."""
    solved = 0
    with maze_server.client() as client:
        for seed in range(100, 112):
            picture, maze = make_maze(tmp_path, size=size, seed=seed)
            data = base64.b64encode(picture.read_bytes()).decode()
            image = {"type": "base64", "media_type": "image/png", "data": data}
            response = client.post("/v1/reason", json={"question": maze["question"], "images": [image]}).json()
            assert response["status"] == "completed"
            assert [step["type"] for step in response["steps"]] == ["text", "latent", "text"]
            assert (response["steps"][1]["size"], response["steps"][1]["exit"]) == (8, "full")
            assert response["usage"]["image_tokens"] == size * size
            solved += run_path(tuple(maze["grid"]), response["answer"] or "")
    assert solved >= 9


def test_stream_and_answer_agree(maze_server, tmp_path):
    picture, _ = make_maze(tmp_path, size=4, seed=11)
    form = {"question": QUESTION, "stream": "true"}
    with maze_server.client() as client:
        with client.stream("POST", "/v1/reason", data=form, files={"image": picture.read_bytes()}) as streamed:
            assert streamed.headers["content-type"].startswith("text/event-stream")
            events = list(parse_sse(streamed.iter_lines()))
        plain = client.post("/v1/reason", data={"question": QUESTION}, files={"image": picture.read_bytes()}).json()
        again = client.get(f"/v1/reason/{events[0]['response_id']}").json()
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in (events[0], events[-1])] == ["response.created", "response.completed"]
    final = events[-1]["response"]
    assert again == final
    assert [step.get("text") for step in plain["steps"]] == [step.get("text") for step in final["steps"]]
    for step in final["steps"]:
        deltas = [e for e in events if e["type"] == "step.delta" and e["index"] == step["index"]]
        if step["type"] == "text":
            assert "".join(delta["text"] for delta in deltas) == step["text"]
        else:
            assert deltas[-1]["size"] == step["size"]


def test_special_tokens_in_a_question_are_text(maze_server):
    with maze_server.client() as client:
        plain = client.post("/v1/reason", json={"question": "x", "max_tokens": 1}).json()
        tricky = client.post("/v1/reason", json={"question": "<|latent_start|><|im_end|>", "max_tokens": 1}).json()
    assert tricky["usage"]["input_tokens"] >= plain["usage"]["input_tokens"] + 10


def test_a_prompt_longer_than_the_context_is_refused_clearly(maze_server):
    with maze_server.client() as client:
        refused = client.post("/v1/reason", json={"question": "a b c d " * 1200})
    assert refused.status_code == 413
    assert refused.json()["error"]["code"] == "prompt_too_long"


def test_latent_mode_off_has_no_latent_step(maze_server, tmp_path):
    picture, maze = make_maze(tmp_path, size=4, seed=7)
    data = base64.b64encode(picture.read_bytes()).decode()
    body = {
        "question": maze["question"],
        "images": [{"type": "base64", "media_type": "image/png", "data": data}],
        "latent": {"mode": "off"},
        "max_tokens": 64,
    }
    with maze_server.client() as client:
        response = client.post("/v1/reason", json=body).json()
    assert response["usage"]["latent_blocks"] == 0
    assert all(step["type"] == "text" for step in response["steps"])


def test_an_uploaded_picture_is_encoded_once_however_often_it_is_asked_about(maze_server, tmp_path):
    picture, _ = make_maze(tmp_path, size=6, seed=4711)
    with maze_server.client() as client:
        before = images_encoded(client)
        image = client.post("/v1/images", files={"image": picture.read_bytes()}).json()
        for question in (QUESTION, "Which way is safe?", "Walk from S to G."):
            body = {"question": question, "images": [{"type": "ref", "id": image["id"]}]}
            assert client.post("/v1/reason", json=body).json()["status"] == "completed"
        assert images_encoded(client) == before + 1


def test_vllms_own_metrics_count_a_question(maze_server):
    with maze_server.client() as client:
        before = vllm_counts(client)
        answer = client.post("/v1/reason", json={"question": QUESTION, "max_tokens": 24}).json()
        generated = answer["usage"]["output_text_tokens"] + answer["usage"]["latent_steps"]
        due_at = time.monotonic() + 5  # they are counted after the tokens of a step are on their way
        while (grown := vllm_counts(client) - before)["vllm:request_success_total"] < 1 and time.monotonic() < due_at:
            time.sleep(0.1)
    assert grown == {"vllm:generation_tokens_total": generated, "vllm:request_success_total": 1}


def vllm_counts(client):
    """Summed over the labels: a request may end for any reason."""
    counts = Counter()
    for line in client.get("/metrics").text.splitlines():
        name = line.partition("{")[0]
        if name in ("vllm:generation_tokens_total", "vllm:request_success_total"):
            counts[name] += float(line.split()[-1])
    return counts


def images_encoded(client):
    """The engine's own count, after the runner has asked for it anew (every 5 s)."""
    time.sleep(6)
    line = next(
        line
        for line in client.get("/metrics").text.splitlines()
        if line.startswith("ilvr_runner_images_encoded_total ")
    )
    return float(line.split()[-1])
