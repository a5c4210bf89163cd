"""OpenAI's client on the embedded model: what a user of it would write."""

import base64
import re

from openai import OpenAI

from contracts.mazes import run_path
from tests.e2e.test_maze import make_maze
from tests.servers import ROOT

EXAMPLE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def connected(server):
    return OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=120)


def asked(picture, question):
    url = f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"
    parts = [{"type": "text", "text": question}, {"type": "image_url", "image_url": {"url": url}}]
    return [{"role": "user", "content": parts}]


def test_a_picture_of_a_maze_gets_a_right_path_streamed_and_not(maze_server, tmp_path):
    picture, maze = make_maze(tmp_path, size=4, seed=7)
    messages = asked(picture, maze["question"])
    with connected(maze_server) as client:
        (model,) = client.models.list()
        completion = client.chat.completions.create(model=model.id, messages=messages, temperature=0)
        message = completion.choices[0].message
        assert run_path(tuple(maze["grid"]), message.content)
        assert message.reasoning_content.count("[latent: 8]") == 1
        assert message.reasoning_content.endswith(f"\\boxed{{{message.content}}}")
        usage = completion.usage
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
        num_answer_tokens = usage.completion_tokens - usage.completion_tokens_details.reasoning_tokens
        assert 0 < num_answer_tokens <= len(message.content)

        options = {"include_usage": True}
        *chunks, last = client.chat.completions.create(
            model=model.id, messages=messages, temperature=0, stream=True, stream_options=options
        )
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == message.content
    assert "".join(getattr(delta, "reasoning_content", "") for delta in deltas) == message.reasoning_content
    assert last.usage.completion_tokens == usage.completion_tokens


def test_a_text_without_a_picture_is_answered(maze_server):
    with connected(maze_server) as client:
        completion = client.chat.completions.create(
            model="maze-tiny", messages=[{"role": "user", "content": "Which way?"}], max_tokens=8
        )
    assert completion.usage.completion_tokens <= 8
    assert completion.choices[0].finish_reason in ("stop", "length")


def test_the_examples_of_the_page_run(maze_server, tmp_path, monkeypatch, capsys):
    make_maze(tmp_path, size=3, seed=1)[0].rename(tmp_path / "small.png")
    monkeypatch.chdir(tmp_path)
    blocks = EXAMPLE.findall((ROOT / "docs" / "openai.md").read_text())
    assert blocks
    names = {}
    for block in blocks:
        exec(block.replace("http://127.0.0.1:8000", maze_server.url), names)
    names["client"].close()
    assert re.search(r"^[UDLR]+$", capsys.readouterr().out, re.MULTILINE)
