"""Settings of the broker: ``ILVR_BROKER_`` and the name in capitals, e.g. ``ILVR_BROKER_REDIS_URL=redis://redis:6379/0``.

Gateways and runners that share a Redis server must be given the same values.
"""

from typing import Any

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from broker.limits import BrokerLimits
from contracts.errors import BadSettings
from contracts.settings import refuse_unknown_variables

PREFIX = "ILVR_BROKER_"
SCHEMES = ("redis://", "rediss://", "unix://")
DEFAULTS = BrokerLimits()


class BrokerSettings(BaseSettings):
    """Frozen. Build it with :func:`load_settings`, which also refuses misspelt variables."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    redis_url: str | None = Field(
        default=None,
        repr=False,  # it may hold a password
        description="Of the Redis server; none: the broker lives inside the process.",
    )
    redis_password: SecretStr | None = Field(default=None, description="If it is not in the URL.")
    redis_cluster: bool = Field(default=False, description="The URL is that of one node of a Redis Cluster.")
    redis_ttl_s: float = Field(
        default=3600.0, gt=0, description="After which keys of Redis that no process tends are gone."
    )
    redis_affinity_s: float = Field(
        default=1.0,
        ge=0,
        description="How long a job waits at most for a runner with room that has seen its images; 0: for none.",
    )
    key_prefix: str = Field(default="ilvr", pattern=r"^[A-Za-z0-9_.-]+$", description="Of every key in Redis.")

    max_waiting: int = Field(
        default=DEFAULTS.max_waiting,
        ge=0,
        description="Jobs beyond those runners have room for; an eighth more are for keys of which none waits.",
    )
    max_waiting_bytes: int = Field(
        default=DEFAULTS.max_waiting_bytes,
        ge=0,
        description="Questions and images of those jobs; an eighth more is for keys of which none waits.",
    )
    max_image_bytes: int = Field(
        default=DEFAULTS.max_image_bytes,
        ge=0,
        description="All stored images together; an eighth more is for keys of which no open job has one.",
    )
    image_ttl_s: float = Field(default=DEFAULTS.image_ttl_s, gt=0, description="From the last use of an image.")
    keep_finished_s: float = Field(
        default=DEFAULTS.keep_finished_s, gt=0, description="How long a finished response can be read."
    )
    max_finished_bytes: int = Field(
        default=DEFAULTS.max_finished_bytes, ge=0, description="Of finished responses; for the embedded broker only."
    )
    runner_silence_s: float = Field(
        default=DEFAULTS.runner_silence_s, gt=0, description="A runner silent for so long is gone."
    )
    no_runner_grace_s: float = Field(
        default=DEFAULTS.no_runner_grace_s, gt=0, description="How long a job waits while no runner is ready."
    )
    deadline_slack_s: float = Field(
        default=DEFAULTS.deadline_slack_s, ge=0, description="What a runner gets to end what is past its deadline."
    )
    max_attempts: int = Field(default=DEFAULTS.max_attempts, ge=1, description="Leases of one job.")

    @field_validator("redis_url")
    @classmethod
    def _has_a_scheme(cls, url: str | None) -> str | None:
        if url and not url.startswith(SCHEMES):
            raise ValueError(f"a URL begins with {', '.join(SCHEMES)}")
        return url or None

    def limits(self) -> BrokerLimits:
        return BrokerLimits(**{name: getattr(self, name) for name in BrokerLimits.__dataclass_fields__})


def load_settings(**overrides: Any) -> BrokerSettings:
    """From the environment; ``overrides`` win.

    Raises ``BadSettings``: an unknown name or an impossible value, in one line that holds no password.
    """
    refuse_unknown_variables(PREFIX, BrokerSettings.model_fields)
    try:
        return BrokerSettings(**overrides)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        name = PREFIX + str(first["loc"][0]).upper()
        # Without its cause, which would show what was given.
        raise BadSettings(f"{name}: {first['msg'].removeprefix('Value error, ')}") from None
