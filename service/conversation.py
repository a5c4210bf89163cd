"""``previous_response_id``: the conversation that a question continues."""

from collections.abc import Sequence
from dataclasses import dataclass

from contracts.errors import ImageNotFound, InvalidRequest, ResponseNotFinished, ResponseNotFound
from contracts.events import Completed, Incomplete, Terminal
from contracts.jobs import ImageRef, Job, Turn
from service.auth import Caller
from service.gateway import Gateway

PARAM = "previous_response_id"


@dataclass(frozen=True, slots=True)
class Conversation:
    """The turns before a question, and the images of all of them in order."""

    turns: tuple[Turn, ...] = ()
    images: Sequence[ImageRef] = ()


async def conversation_before(gateway: Gateway, response_id: str | None, caller: Caller, model: str) -> Conversation:
    """Of a response all that was asked and answered, its own predecessors' included: none of those has to be kept.

    Raises ``ResponseNotFound``, ``ResponseNotFinished``, ``ImageNotFound``, or ``InvalidRequest`` where it has no end
    that one can go on from, or another model gave it.
    """
    if response_id is None:
        return Conversation()
    try:
        job = await gateway.job_of(response_id, caller)
        events = await gateway.broker.events(response_id)
        token_ids = await gateway.broker.token_ids(response_id)
    except ResponseNotFound as error:
        raise ResponseNotFound(str(error), param=PARAM) from None
    if job.model != model:
        raise InvalidRequest(f"{response_id} is of {job.model}; {model} cannot go on with its latents.", param=PARAM)
    end = events[-1]
    if not isinstance(end, Terminal):
        raise ResponseNotFinished(f"{response_id} has not ended yet; ask again when it has.", param=PARAM)
    if not isinstance(end, Completed | Incomplete):
        raise InvalidRequest(f"{response_id} has {end.response.status}: nothing can continue it.", param=PARAM)
    if token_ids is None:
        raise InvalidRequest(f"What was generated for {response_id} is not known any more.", param=PARAM)
    await _use(gateway, job)
    asked = Turn(role="user", text=job.question, num_images=_num_own_images(job))
    return Conversation((*job.history, asked, Turn(role="assistant", token_ids=token_ids)), job.images)


def _num_own_images(job: Job) -> int:
    """Of the question, which are the last ones."""
    return len(job.images) - sum(turn.num_images for turn in job.history)


async def _use(gateway: Gateway, job: Job) -> None:
    """Its images are kept for a while from now, until the next job refers to them."""
    for image in job.images:
        try:
            await gateway.broker.image_ref(image.id, owner=job.owner)
        except ImageNotFound:
            raise ImageNotFound(f"{PARAM}: its image {image.id} is not kept any more.", param=PARAM) from None
