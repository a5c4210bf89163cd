"""The request of ``POST /v1/reason``. Unknown fields are refused, so that a misspelt one is not ignored."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from contracts.errors import MalformedBody
from service.validation import body_error, invalid_request

# In a whole body, text included: more than twice what a question of 32,000 characters and all else can hold; base64 has
# none. Without it 32 MiB of small values took a gigabyte and ten seconds, in which nobody else was served.
MAX_JSON_MARKS = 100_000
MAX_STOPS = 16
MAX_METADATA_PAIRS = 16
INT64_MAX = 2**63 - 1
# More than any context window; the runner refuses what its own does not hold.
MAX_TOKENS_LIMIT = 10_000_000

StopString = Annotated[str, Field(min_length=1, max_length=256)]
MetadataKey = Annotated[str, Field(min_length=1, max_length=64)]
MetadataValue = Annotated[str, Field(max_length=512)]


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Stops = Annotated[
    list[StopString],
    BeforeValidator(_listed),
    Field(max_length=MAX_STOPS),
    WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "maxItems": MAX_STOPS}]}
    ),
]

# What every route that asks for an answer takes. Absent or null: the checkpoint decides.
MaxTokens = Annotated[
    int | None, Field(ge=1, le=MAX_TOKENS_LIMIT, description="Default 512, or what the context leaves.")
]
Temperature = Annotated[float | None, Field(ge=0, le=2, description="Below 0.01: greedy.")]
TopP = Annotated[float | None, Field(gt=0, le=1)]
TopK = Annotated[int | None, Field(ge=-1, le=INT64_MAX, description="0 or -1: off.")]
RepetitionPenalty = Annotated[float | None, Field(gt=0)]
Seed = Annotated[int | None, Field(ge=-INT64_MAX, le=INT64_MAX)]
Metadata = Annotated[
    dict[MetadataKey, MetadataValue] | None, Field(max_length=MAX_METADATA_PAIRS, description="Returned as it came.")
]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class Base64Image(Strict):
    """A picture file in the request. What it is is told by its content; ``media_type`` is not trusted."""

    type: Literal["base64"]
    media_type: str | None = None
    data: str = Field(description="Standard base64 of a PNG, JPEG, WebP, GIF or BMP file, without a data: prefix.")


class RefImage(Strict):
    """A picture that `POST /v1/images` keeps."""

    type: Literal["ref"]
    id: str = Field(description="`img_…`")


class UrlImage(Strict):
    """A picture that the server fetches, from hosts that its operator allows; from none by default."""

    type: Literal["url"]
    url: str = Field(description="`https://…`")


ImageInput = Annotated[Base64Image | RefImage | UrlImage, Field(discriminator="type")]


class LatentOptions(Strict):
    mode: Literal["on", "off"] | None = Field(None, description="`off`: no latent step is ever begun. Default `on`.")
    include: list[str] | None = Field(None, description="Not supported yet.")


class ReasonRequest(Strict):
    """Sampling fields that are absent or null are decided by the checkpoint's `generation_config.json`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"question": "How many moves are there from R to D?", "max_tokens": 64},
                {
                    "question": "Find a safe path from S to G.",
                    "images": [{"type": "ref", "id": "img_…"}],
                    "stream": True,
                    "temperature": 0.0,
                    "seed": 7,
                },
            ]
        }
    )

    question: str = Field(min_length=1, description="Verbatim. Special tokens in it are plain text.")
    images: list[ImageInput] | None = Field(None, description="They come before the question, in this order.")
    model: str | None = Field(None, description="One of `GET /v1/models`; by default the one that is served.")
    stream: bool | None = Field(None, description="Answer with server-sent events; so does `Accept`.")
    max_tokens: MaxTokens = None
    temperature: Temperature = None
    top_p: TopP = None
    top_k: TopK = None
    repetition_penalty: RepetitionPenalty = None
    seed: Seed = None
    stop: Stops | None = Field(None, description="Generation ends before any of these strings.")
    latent: LatentOptions | None = None
    metadata: Metadata = None
    previous_response_id: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        None,
        description="A finished response, to ask on: questions, images and answers up to it come before this question, "
        "latent blocks included. Sampling fields are not inherited.",
    )
    background: bool | None = Field(
        None, description="Answer at once with the unfinished response, and go on with it whether or not anybody reads."
    )
    timeout_s: float | None = Field(
        None, gt=0, description="From now; then it ends with `deadline_exceeded`. By default 600 seconds."
    )


def check_marks(body: bytes) -> None:
    """Raises ``MalformedBody``."""
    if len(body) > MAX_JSON_MARKS and sum(map(body.count, (b",", b"[", b"{"))) > MAX_JSON_MARKS:
        raise MalformedBody(f"The body has more than {MAX_JSON_MARKS} commas and brackets.")


def parse_json(body: bytes) -> ReasonRequest:
    """Raises ``MalformedBody``, ``InvalidRequest``."""
    check_marks(body)
    try:
        return ReasonRequest.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise body_error(error.errors(include_url=False), ReasonRequest.model_fields) from None


def parse_fields(fields: dict[str, Any]) -> ReasonRequest:
    """Form fields, whose values are all strings. Raises ``InvalidRequest``."""
    try:
        return ReasonRequest.model_validate(fields)
    except ValidationError as error:
        raise invalid_request(error.errors(include_url=False), known_fields=ReasonRequest.model_fields) from None
