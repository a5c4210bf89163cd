"""``previous_response_id``: which conversation a job gets, and which responses cannot be continued."""

import asyncio
from typing import Any

import httpx
import msgspec
import pytest

from broker.embedded import EmbeddedBroker
from contracts.errors import GenerationFailed
from contracts.jobs import Turn
from tests.broker.samples import status
from tests.scripted_runner import ScriptedRunner
from tests.service.helpers import base64_image, check_error, picture

PARAM = "previous_response_id"


async def ask(client: httpx.AsyncClient, question: str, **fields: Any) -> httpx.Response:
    return await client.post("/v1/reason", json={"question": question, **fields})


async def asked(client: httpx.AsyncClient, question: str, **fields: Any) -> str:
    """The id of the response."""
    answer = await ask(client, question, **fields)
    assert answer.status_code == 200, answer.text
    response_id: str = answer.json()["id"]
    return response_id


async def test_a_chain_knows_all_before_it(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    """Each question with its own images, in the order in which they were asked; sampling is each request's own."""
    one, two = picture(), picture(5, 5)
    first = await asked(client, "A?", images=[base64_image(one), base64_image(two)], seed=3)
    runner.token_ids = (5,)
    second = await asked(client, "B?", previous_response_id=first, latent={"mode": "off"})
    runner.token_ids = ()
    await asked(client, "C?", previous_response_id=second, images=[base64_image(one)])
    jobs = runner.jobs
    turns = (Turn(role="user", text="A?", num_images=2), Turn(role="assistant", token_ids=(7, 8, 9)))
    assert [job.history for job in jobs[:2]] == [(), turns]
    assert jobs[2].history == (*turns, Turn(role="user", text="B?"), Turn(role="assistant", token_ids=(5,)))
    assert jobs[1].images == jobs[0].images
    assert jobs[2].images == (*jobs[0].images, jobs[0].images[0])
    assert [job.latent_mode for job in jobs] == ["on", "off", "on"]
    assert [job.sampling.seed for job in jobs] == [3, None, None]


async def test_two_go_on_from_the_same_response(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    first = await asked(client, "A?")
    await asyncio.gather(*(asked(client, question, previous_response_id=first) for question in ("B?", "C?")))
    assert runner.jobs[1].history == runner.jobs[2].history


async def test_a_form_names_it_too(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    first = await asked(client, "A?")
    form = {"question": "B?", PARAM: first}
    assert (await client.post("/v1/reason", data=form, files={"image": picture()})).status_code == 200
    assert (len(runner.jobs[1].history), len(runner.jobs[1].images)) == (2, 1)


async def test_a_response_cut_by_its_length_can_be_continued(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    runner.ending = "incomplete"
    first = await asked(client, "A?")
    await asked(client, "B?", previous_response_id=first)
    assert runner.jobs[1].history[1].token_ids == (7, 8, 9)


async def test_one_that_nobody_knows(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    for unknown in ("resp_1", "{}", "é"):
        check_error(await ask(client, "B?", previous_response_id=unknown), 404, "response_not_found", PARAM)
    check_error(await ask(client, "B?", previous_response_id=""), 422, "invalid_request", PARAM)
    assert not runner.jobs


async def test_one_of_another_model(client: httpx.AsyncClient, runner: ScriptedRunner, broker: EmbeddedBroker) -> None:
    """As after the change of what is served."""
    first = await asked(client, "A?")
    await broker.heartbeat(msgspec.structs.replace(status("r2"), model="other"))
    message = check_error(
        await ask(client, "B?", previous_response_id=first, model="other"), 422, "invalid_request", PARAM
    )
    assert "scripted" in message
    assert "other" in message
    await asked(client, "B?", previous_response_id=first, model="scripted")


async def test_one_that_has_not_ended(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    runner.pause()
    first = await asked(client, "A?", background=True)
    check_error(await ask(client, "B?", previous_response_id=first), 409, "response_not_finished", PARAM)
    await client.post(f"/v1/reason/{first}/cancel")
    message = check_error(await ask(client, "B?", previous_response_id=first), 422, "invalid_request", PARAM)
    assert "cancelled" in message
    runner.resume()


async def test_one_that_failed(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    runner.fail_with = GenerationFailed("It broke.")
    answer = await ask(client, "A?")
    assert answer.status_code == 500
    runner.fail_with = None
    failed = runner.jobs[0].response_id
    message = check_error(await ask(client, "B?", previous_response_id=failed), 422, "invalid_request", PARAM)
    assert "failed" in message


async def test_one_of_which_no_runner_told_the_tokens(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    runner.token_ids = None
    first = await asked(client, "A?")
    check_error(await ask(client, "B?", previous_response_id=first), 422, "invalid_request", PARAM)


@pytest.mark.parametrize("as_form", [False, True])
async def test_images_of_all_turns_count(as_form: bool, client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    """Three are allowed here."""
    first = await asked(client, "A?", images=[base64_image(picture())] * 2)
    if as_form:
        files = [("image", picture()), ("image", picture())]
        answer = await client.post("/v1/reason", data={"question": "B?", PARAM: first}, files=files)
    else:
        answer = await ask(client, "B?", previous_response_id=first, images=[base64_image(picture())] * 2)
    assert "4 images" in check_error(answer, 422, "invalid_request", "images")
    await asked(client, "B?", previous_response_id=first, images=[base64_image(picture())])


async def test_an_idempotency_key_knows_what_was_continued(client: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    first, other = await asked(client, "A?"), await asked(client, "Z?")
    headers = {"Idempotency-Key": "k"}
    body = {"question": "B?", PARAM: first}
    answers = [await client.post("/v1/reason", json=body, headers=headers) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    conflict = await client.post("/v1/reason", json={**body, PARAM: other}, headers=headers)
    check_error(conflict, 409, "idempotency_conflict")
    assert len(runner.jobs) == 3
