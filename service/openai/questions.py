"""From a chat request to the questions that it asks: one for each choice."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fastapi import Request

from contracts.errors import InvalidRequest, MalformedBody
from contracts.jobs import Job
from service.body import ReasonBody, media_type
from service.openai.messages import read_messages
from service.openai.responses_schemas import ResponsesRequest
from service.openai.schemas import ChatRequest, Message, parse_chat
from service.schemas import INT64_MAX, ReasonRequest, RefImage
from service.settings import ServiceSettings

# A runner means greedy by less.
LEAST_TEMPERATURE = 0.01


@dataclass(frozen=True, slots=True)
class Chat:
    """What was asked. ``body`` is the first choice's question."""

    request: ChatRequest
    body: ReasonBody

    @property
    def num_choices(self) -> int:
        return self.request.n or 1

    def another(self, number: int, first: Job) -> ReasonBody:
        """The question of a later choice: the next seed, and the pictures that the first has stored."""
        seed = self.request.seed
        request = self.body.request.model_copy(
            update={
                "seed": None if seed is None else seed + number,
                "images": [RefImage(type="ref", id=image.id) for image in first.images],
            }
        )
        return replace(self.body, request=request)


async def read_chat(request: Request, settings: ServiceSettings) -> Chat:
    """Raises ``MalformedBody``, ``InvalidRequest``, ``BodyTooLarge``, ``BodyTooSlow``."""
    check_json(request)
    asked = parse_chat(await request.body())
    _check_choices(asked)
    messages = [(f"messages.{number}", message) for number, message in enumerate(asked.messages)]
    max_tokens = asked.max_tokens if asked.max_completion_tokens is None else asked.max_completion_tokens
    return Chat(asked, question_of(asked, messages, max_tokens, settings))


def question_of(
    asked: ChatRequest | ResponsesRequest,
    messages: Sequence[tuple[str, Message]],
    max_tokens: int | None,
    settings: ServiceSettings,
) -> ReasonBody:
    """Raises ``InvalidRequest``."""
    conversation = read_messages(messages, settings.question_max_chars)
    same = ("model", "temperature", "top_p", "top_k", "repetition_penalty", "seed", "stop", "metadata")
    question = ReasonRequest.model_validate(
        {
            "question": conversation.question,
            "images": list(conversation.images),
            "max_tokens": max_tokens,
            "latent": {"mode": asked.latent.mode if asked.latent else None},
            **{name: getattr(asked, name) for name in same},
        }
    )
    return ReasonBody(question, image_params=conversation.image_params, history=conversation.history)


def check_json(request: Request) -> None:
    """Raises ``MalformedBody``."""
    if media_type(request) not in ("application/json", ""):
        raise MalformedBody("Content-Type: send application/json.")


def _check_choices(asked: ChatRequest) -> None:
    num_choices = asked.n or 1
    if num_choices == 1:
        return
    if asked.temperature is None:
        raise InvalidRequest(
            f"n: {num_choices} choices of a model that is greedy by itself would all be the same; say a temperature.",
            param="n",
        )
    if asked.temperature < LEAST_TEMPERATURE or asked.top_k == 1:
        raise InvalidRequest(
            f"n: {num_choices} choices would all be the same; give a temperature of at least {LEAST_TEMPERATURE} "
            "(and no top_k of 1).",
            param="n",
        )
    if asked.seed is not None and asked.seed > INT64_MAX - (num_choices - 1):
        raise InvalidRequest("seed: each choice has the next one, and there is none after this.", param="seed")
