"""``POST /v1/reason`` when all goes well: what the runner is given, and what comes back."""

import hashlib

import httpx
import pytest

from contracts.jobs import Sampling
from tests.scripted_runner import MODEL, ScriptedRunner
from tests.service.helpers import base64_image, frames, picture

FULL = {
    "question": "  Find a safe path. \n",
    "model": MODEL,
    "max_tokens": 9,
    "temperature": 0,
    "top_p": 0.5,
    "top_k": -1,
    "repetition_penalty": 1.05,
    "seed": -7,
    "stop": "\n\n",
    "latent": {"mode": "off", "include": []},
    "metadata": {"trace": "abc"},
    "previous_response_id": None,
    "background": False,
    "stream": False,
}
SAMPLING = Sampling(max_tokens=9, temperature=0.0, top_p=0.5, top_k=0, repetition_penalty=1.05, seed=-7, stop=("\n\n",))


async def test_the_answer_is_the_response_object(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    answer = await client.post("/v1/reason", json={"question": "?", "metadata": {"k": "v"}})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    response_id = body.pop("id")
    assert response_id.startswith("resp_")
    assert body.pop("created_at") > 1_760_000_000
    assert body == {
        "object": "reason.response",
        "model": MODEL,
        "status": "completed",
        "finish_reason": "stop",
        "steps": [
            {"type": "text", "index": 0, "text": "Holes: second row.\nLet me "},
            {
                "type": "latent",
                "index": 1,
                "size": 8,
                "exit": "full",
                "duration_ms": 3.5,
                "vectors": None,
                "attention_map": None,
            },
            {"type": "text", "index": 2, "text": " So the path is \\boxed{RRDD} ✓"},
        ],
        "answer": "RRDD",
        "usage": {
            "input_tokens": 41,
            "image_tokens": 16,
            "cached_tokens": 0,
            "output_text_tokens": 23,
            "latent_steps": 8,
            "latent_blocks": 1,
            "answer_tokens": 6,
        },
        "timings": {"queue_ms": 0.5, "time_to_first_step_ms": 12.0, "total_ms": 80.2},
        "error": None,
        "metadata": {"k": "v"},
    }
    assert (await client.get(f"/v1/reason/{response_id}")).json() == answer.json()


async def test_every_field_reaches_the_runner_verbatim(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    assert (await client.post("/v1/reason", json=FULL)).status_code == 200
    (job,) = runner.jobs
    assert job.question == "  Find a safe path. \n"
    assert (job.sampling, job.latent_mode, job.metadata) == (SAMPLING, "off", {"trace": "abc"})


async def test_what_is_not_given_is_left_to_the_checkpoint(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    nulls = dict.fromkeys([*FULL, "images", "latent"]) | {"question": "?"}
    for body in ({"question": "?"}, nulls, {"question": "?", "latent": {}, "images": [], "stop": [], "metadata": {}}):
        assert (await client.post("/v1/reason", json=body)).status_code == 200
        job = runner.jobs.pop()
        assert (job.sampling, job.latent_mode, job.images, job.metadata) == (Sampling(), "on", (), {})


async def test_a_form_says_the_same_as_json(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    first, second = picture(5, 7), picture(8, 2, "JPEG")
    answer = await client.post(
        "/v1/reason",
        data={
            "question": FULL["question"],
            "max_tokens": "9",
            "temperature": "0",
            "top_p": "0.5",
            "top_k": "0",
            "repetition_penalty": "1.05",
            "seed": "-7",
            "stop": ["\n\n"],
            "latent.mode": "off",
            "metadata.trace": "abc",
            "stream": "false",
            "background": "",
        },
        files=[("image", ("a.png", first)), ("image", ("b.dat", second, "text/plain"))],
    )
    assert answer.status_code == 200, answer.text
    (job,) = runner.jobs
    # Browsers and clients send line breaks in a form as they are given; nothing is stripped.
    assert job.question == FULL["question"]
    assert (job.sampling, job.latent_mode, job.metadata) == (SAMPLING, "off", {"trace": "abc"})
    assert [(image.width, image.height) for image in job.images] == [(5, 7), (8, 2)]


async def test_a_form_can_be_streamed(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    for data, headers in (({"stream": "true"}, {}), ({}, {"Accept": "text/event-stream"})):
        data = {"question": "?"} | data
        answer = await client.post("/v1/reason", data=data, files=[("image", picture())], headers=headers)
        assert frames(answer.text)[-1].event == "response.completed"


async def test_images_of_every_kind_come_in_order(
    client: httpx.AsyncClient, runner: ScriptedRunner, broker: object
) -> None:
    uploaded = picture(6, 6)
    ref = (await client.post("/v1/images", files={"image": uploaded})).json()
    inline = picture(3, 9, "WEBP")
    images = [base64_image(inline), {"type": "ref", "id": ref["id"]}]
    assert (await client.post("/v1/reason", json={"question": "?", "images": images})).status_code == 200
    (job,) = runner.jobs
    assert [(image.width, image.height) for image in job.images] == [(3, 9), (6, 6)]
    assert job.images[0].id == "img_" + hashlib.sha256(inline).hexdigest()


@pytest.mark.parametrize("part", ["image", "file", None])
async def test_an_uploaded_image_has_the_hash_of_its_bytes(part: str | None, client: httpx.AsyncClient) -> None:
    data = picture(12, 5)
    if part:
        answer = await client.post("/v1/images", files={part: ("x", data)})
    else:
        answer = await client.post("/v1/images", content=data, headers={"Content-Type": "image/png"})
    assert answer.status_code == 200
    assert answer.json() == {"id": "img_" + hashlib.sha256(data).hexdigest(), "width": 12, "height": 5}


async def test_an_incomplete_answer_is_an_answer(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    runner.ending = "incomplete"
    answer = await client.post("/v1/reason", json={"question": "?"})
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["finish_reason"]) == ("incomplete", "length")


async def test_an_explicit_false_beats_the_accept_header(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    headers = {"Accept": "text/event-stream"}
    answer = await client.post("/v1/reason", json={"question": "?", "stream": False}, headers=headers)
    assert answer.headers["content-type"] == "application/json"
    answer = await client.post("/v1/reason", json={"question": "?"}, headers=headers)
    assert answer.headers["content-type"].startswith("text/event-stream")
