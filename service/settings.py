"""Settings of the gateway: ``ILVR_SERVICE_`` and the name in capitals, e.g. ``ILVR_SERVICE_MAX_IMAGES=4``."""

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from contracts.errors import BadSettings
from contracts.settings import refuse_unknown_variables
from service.host_names import read_allowed_host

PREFIX = "ILVR_SERVICE_"
MIB = 1 << 20
BASE64_GROWTH = 4 / 3


def _listed(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


HostNames = Annotated[tuple[Annotated[str, AfterValidator(read_allowed_host)], ...], NoDecode, BeforeValidator(_listed)]
Ports = Annotated[tuple[Annotated[int, Field(ge=1, le=65535)], ...], NoDecode, BeforeValidator(_listed)]


class ServiceSettings(BaseSettings):
    """Frozen. Build it with :func:`load_settings`, which also refuses misspelt variables."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    max_body_bytes: int = Field(default=32 * MIB, ge=1024, description="The whole request, images included.")
    question_max_chars: int = Field(default=32_000, ge=1)
    max_images: int = Field(default=8, ge=0, description="In one request.")
    image_max_bytes: int = Field(default=10 * MIB, ge=64, description="One image file.")
    image_max_pixels: int = Field(default=16_777_216, ge=1, description="Width times height; 4096 x 4096.")
    image_max_side: int = Field(default=16_384, ge=1, description="Width or height, in pixels.")
    image_max_aspect_ratio: float = Field(default=200.0, ge=1.0, description="Qwen2.5-VL refuses longer stripes.")
    disconnect_grace_s: float = Field(
        default=5.0, ge=0, description="From the last reader of a stream leaving to its cancel."
    )
    default_timeout_s: float = Field(default=600.0, gt=0, description="Of a request that does not say `timeout_s`.")
    max_timeout_s: float = Field(default=3600.0, gt=0, description="The most that a request may say.")
    write_timeout_s: float = Field(
        default=60.0, gt=0, description="A client that takes nothing of its answer for so long is dropped."
    )
    body_timeout_s: float = Field(
        default=60.0, gt=0, description="A request whose body is not all there after so long is refused."
    )
    max_intake_bytes: int = Field(
        default=256 * MIB, ge=0, description="Bodies being read at once, by their Content-Length."
    )
    ping_interval_s: float = Field(default=10.0, gt=0, description="Of comment lines in a silent stream.")
    cancel_wait_s: float = Field(
        default=2.0, ge=0, description="How long a cancel call waits for the end that it asked for."
    )
    drain_delay_s: float = Field(
        default=2.0,
        ge=0,
        description="Of `ilvr gateway`: from the signal to end, which /readyz shows at once, to closing the port.",
    )
    drain_grace_s: float = Field(
        default=30.0, ge=0, description="Of `ilvr gateway`: what is open then has so long to finish."
    )

    api_keys_file: Path | None = Field(
        default=None, description="API keys, a line of TOML each, as `ilvr keys new` prints it; read again on change."
    )
    api_keys: str | None = Field(
        default=None, repr=False, description="The same as a JSON object, instead of a file. Neither: no key is asked."
    )
    allow_anonymous: bool = Field(
        default=False, description="Listen on an address that others reach without asking for API keys."
    )
    metrics_need_key: bool = Field(default=False, description="/metrics needs a key with the scope admin.")
    docs_need_key: bool = Field(default=False, description="/docs, /openapi.json and / need one with the scope admin.")

    image_url_hosts: HostNames = Field(
        default=(),
        description="Hosts that images are fetched from by URL, with commas between; *.example.com: every name below. "
        "None: images by URL are off.",
    )
    image_url_http: bool = Field(default=False, description="Fetch http:// URLs as well as https:// ones.")
    image_url_ports: Ports = Field(default=(443, 80), min_length=1, description="With commas between.")
    image_url_timeout_s: float = Field(default=10.0, gt=0, description="For one image, redirects included.")

    @model_validator(mode="after")
    def _keys_come_from_one_place(self) -> Self:
        if self.api_keys_file is not None and self.api_keys is not None:
            raise ValueError("api_keys_file and api_keys are both given; one of them is enough")
        if not self.asks_for_keys and (self.metrics_need_key or self.docs_need_key):
            raise ValueError("metrics_need_key and docs_need_key need keys: give api_keys_file or api_keys")
        return self

    @property
    def asks_for_keys(self) -> bool:
        return self.api_keys_file is not None or self.api_keys is not None

    @model_validator(mode="after")
    def _an_image_fits_in_a_body(self) -> Self:
        if self.max_images and self.image_max_bytes * BASE64_GROWTH > self.max_body_bytes:
            raise ValueError(
                f"an image of image_max_bytes={self.image_max_bytes} in base64 does not fit in "
                f"max_body_bytes={self.max_body_bytes}"
            )
        return self


def load_settings(**overrides: Any) -> ServiceSettings:
    """From the environment; ``overrides`` win.

    Raises ``BadSettings``: an unknown name, an impossible value or a contradiction, in one line.
    """
    refuse_unknown_variables(PREFIX, ServiceSettings.model_fields)
    try:
        return ServiceSettings(**overrides)
    except ValidationError as error:
        first = error.errors()[0]
        name = PREFIX + str(first["loc"][0]).upper() + ": " if first["loc"] else ""
        raise BadSettings(f"{name}{first['msg'].removeprefix('Value error, ')}") from error
