"""What a runner can be told. Read from ``ILVR_RUNNER_*`` and the command line; built once, in main."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from contracts.errors import BadSettings
from contracts.manifest import BlockRule
from contracts.settings import refuse_unknown_variables

PREFIX = "ILVR_RUNNER_"
DEFAULT_MAX_MODEL_LEN = 8192

LatentAblation = Literal["none", "zero", "noise", "swap"]


class RunnerSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    model: Path
    served_model_name: str | None = Field(None, description="Name in the API; the folder's name if not given.")
    engine: Literal["vllm", "transformers"] = "vllm"
    latent_exit: BlockRule | None = Field(None, description="How blocks end; the checkpoint's manifest if not given.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: float32 on a CPU, where exactness is cheap; bfloat16 on a GPU."
    )
    max_num_seqs: int = Field(64, ge=1, description="Requests decoded together.")
    max_model_len: int | None = Field(None, ge=64, description="Context in tokens; the checkpoint's, at most 8192.")
    max_num_batched_tokens: int | None = Field(None, ge=32, description="Tokens computed in one step.")
    block_size: int = Field(32, ge=1, description="Tokens in a KV block. The CPU kernel wants multiples of 32.")
    kv_cache_mib: int | None = Field(None, ge=1, description="KV cache size; on a CPU 512 if not given.")
    gpu_memory_utilization: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Part of a GPU's memory that must be free and may be taken; vLLM's 0.92 if not given.",
    )
    num_kv_blocks: int | None = Field(None, ge=2, description="KV cache size in blocks; for tests of preemption.")
    prefix_caching: bool | None = Field(None, description="On, unless latents are ablated: then it cannot be.")
    max_images: int = Field(8, ge=0, description="Images in one request.")
    max_history_latents: int = Field(
        512, ge=0, description="Latents in a prompt, each of which is computed one after the other."
    )
    max_replayed_pads: int = Field(
        0,
        ge=0,
        description="Latents of a history that one step may compute beside the token before them, at a pass of the "
        "step each; the others get a step each, as in decoding.",
    )
    enforce_eager: bool | None = Field(None, description="No compilation, no CUDA graphs; true on a CPU.")
    latent_ablation: LatentAblation = Field(
        "none", description="What is fed back in a latent block in place of the own hidden states; for evaluation."
    )
    latent_donors: Path | None = Field(None, description="Samples whose latents `swap` feeds; mazes if not given.")
    metrics_host: str = Field("127.0.0.1", description="Of `ilvr runner`: address of /metrics, /healthz and /readyz.")
    metrics_port: int = Field(8001, ge=0, le=65535, description="Of `ilvr runner`: their port; 0 takes a free one.")
    drain_grace_s: float = Field(
        30.0,
        ge=0,
        description="Of `ilvr runner`: what runs when it is told to end has so long; then it is handed back.",
    )

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> "RunnerSettings":
        if self.latent_ablation != "none" and self.prefix_caching:
            raise PydanticCustomError(
                "contradiction",
                "--latent-ablation {mode} cannot go with --prefix-caching: what is fed back is then no function of the "
                "prefix; leave out one of the two",
                {"mode": self.latent_ablation},
            )
        if self.latent_donors is not None and self.latent_ablation != "swap":
            raise PydanticCustomError(
                "contradiction", "--latent-donors is for --latent-ablation swap alone; leave it out, or say swap"
            )
        return self

    @property
    def caches_prefixes(self) -> bool:
        """Whether requests share the KV cache of equal beginnings. Sound only while latents follow from the prefix."""
        return self.latent_ablation == "none" and self.prefix_caching is not False

    def context_tokens(self, of_checkpoint: int) -> int:
        """The context that is served, of a checkpoint that was made for so many tokens."""
        return min(self.max_model_len or DEFAULT_MAX_MODEL_LEN, of_checkpoint)

    @property
    def model_name(self) -> str:
        return self.served_model_name or self.model.resolve().name


def load_settings(**overrides: Any) -> RunnerSettings:
    """From the environment; ``overrides`` win. Raises ``BadSettings`` in one line."""
    refuse_unknown_variables(PREFIX, RunnerSettings.model_fields)
    try:
        return RunnerSettings(**overrides)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:  # of several options together; the message names them
            raise BadSettings(first["msg"]) from error
        name = str(first["loc"][0])
        raise BadSettings(f"--{name.replace('_', '-')} ({PREFIX}{name.upper()}): {first['msg']}") from error
