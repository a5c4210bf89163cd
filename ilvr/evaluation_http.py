"""A running server, as ``training.evaluate`` asks for it: ``POST /v1/reason``."""

import asyncio
import time
from typing import Any

from contracts.errors import CapacityError, GenerationFailed, InvalidRequest, NotReady, ResponseCancelled
from contracts.responses import Response, TextStep
from ilvr.client import AsyncClient, ConnectionFailed, UnexpectedAnswer
from ilvr.sample_prompts import SamplePrompts
from training.answer_log import Ablation, Answered
from training.samples import IMAGE_PLACEHOLDER, Sample

RETRY_FOR_S = 600.0  # how long a full queue is waited for


def check_ablations(ablations: tuple[Ablation, ...]) -> None:
    """A request can have its latents on or off. Raises ``InvalidRequest`` for all else."""
    for ablation in ablations:
        if ablation not in ("on", "off"):
            raise InvalidRequest(
                f"a server cannot be asked for --ablation {ablation}: start it with ilvr serve --latent-ablation "
                f"{ablation} and evaluate it with --ablation on, or give --model and --engine vllm"
            )


class HttpAnswerers:
    """One client for all ablations, which are a field of the request."""

    def __init__(self, url: str, prompts: SamplePrompts | None, *, max_tokens: int, seed: int) -> None:
        """prompts: of the served checkpoint, if its folder is at hand; then the whole text of an answer is known.

        Raises ``InvalidRequest`` if ``url`` is none.
        """
        self.url = url
        self._prompts = prompts
        self._max_tokens, self._seed = max_tokens, seed
        # A full queue is waited for here and not in the client: that is no latency.
        self._client = AsyncClient(url, max_wait_s=0)

    async def model_name(self) -> str:
        """What is served, and with which ablation, so that answers of the two are never taken for each other.

        Raises ``NotReady`` if nothing answers, ``InvalidRequest`` if it is no ilvr server.
        """
        try:
            async with AsyncClient(self.url, max_retries=0) as client:
                return ",".join(sorted(_name(model) for model in await client.models()))
        except ConnectionFailed:
            raise NotReady(f"no server answers at {self.url}; start it with: ilvr serve") from None
        except (UnexpectedAnswer, KeyError) as error:
            raise InvalidRequest(f"{error}; is that an ilvr server?") from None

    async def start(self, ablation: Ablation) -> "HttpAnswerer":
        check_ablations((ablation,))
        return HttpAnswerer(self, ablation)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def ask(self, sample: Sample, mode: Any) -> tuple[Response, float]:
        """The response object and the seconds until it was there; a full queue is waited for, which does not count.

        Raises:
            RequestError: the server refuses this sample.
            GenerationFailed, EngineDead, ConnectionFailed: it cannot answer now.
        """
        _check(sample)
        give_up_s = time.monotonic() + RETRY_FOR_S
        while True:
            began_s = time.monotonic()
            try:
                response = await self._client.reason(
                    sample.images,
                    sample.text_input,
                    max_tokens=self._max_tokens,
                    temperature=0.0,
                    seed=self._seed,
                    latent=mode,
                )
            except CapacityError as error:
                if time.monotonic() > give_up_s:
                    raise GenerationFailed(f"the server answered: {error} ({error.code})") from error
                await asyncio.sleep(error.retry_after_s)
            except ResponseCancelled as error:  # not by us, so nothing is known of this sample
                raise GenerationFailed(str(error)) from error
            else:
                return response, time.monotonic() - began_s

    def whole_text(self, sample: Sample, response: Response) -> str | None:
        """Prompt and response as they would be decoded, by the served checkpoint's template."""
        if self._prompts is None:
            return None
        prompt = self._prompts.text_of(self._prompts.build_parts([*sample.images, sample.text_input]))
        return prompt + _decoded(response)


def _name(model: dict[str, Any]) -> str:
    ablation = model.get("latent_ablation", "none")
    return str(model["id"]) if ablation == "none" else f"{model['id']} (latents: {ablation})"


class HttpAnswerer:
    """Latency is what a client sees, the server's queue included."""

    max_concurrency = None

    def __init__(self, server: HttpAnswerers, ablation: Ablation) -> None:
        self._server = server
        self._mode = ablation

    async def answer(self, sample: Sample) -> Answered:
        response, latency_s = await self._server.ask(sample, self._mode)
        usage = response.usage
        return Answered(
            text="".join(step.text for step in response.steps if isinstance(step, TextStep)),
            whole_text=self._server.whole_text(sample, response),
            num_output_tokens=usage.output_text_tokens + usage.latent_steps,
            num_latents=usage.latent_steps,
            latency_s=round(latency_s, 6),
            is_cut=response.status == "incomplete",
        )


def _check(sample: Sample) -> None:
    """The API puts pictures before the question, so it cannot ask a sample that has them elsewhere."""
    if IMAGE_PLACEHOLDER in sample.text_input:
        raise InvalidRequest(
            f"text_input says where its pictures stand ({IMAGE_PLACEHOLDER}), which the API cannot; "
            "evaluate it with --engine vllm"
        )
    if not sample.text_input:
        raise InvalidRequest("text_input is empty, which the API refuses; evaluate it with --engine vllm")


def _decoded(response: Response) -> str:
    """The steps with the special tokens that surrounded them. Which token ended the text is not told: the usual one."""
    text = ""
    for step in response.steps:
        if isinstance(step, TextStep):
            text += step.text
            continue
        is_closed = step.exit in ("full", "early")
        text += "<|latent_start|>" + "<|latent_pad|>" * step.size + ("<|latent_end|>" if is_closed else "")
    return text + ("<|im_end|>" if response.finish_reason == "stop" else "")
