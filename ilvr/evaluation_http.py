"""A running server, as ``training.evaluate`` asks for it: ``POST /v1/reason``."""

import asyncio
import base64
import time
from pathlib import Path
from typing import Any

import httpx

from contracts.errors import EngineDead, GenerationFailed, InvalidRequest, NotReady, RequestError
from ilvr.sample_prompts import SamplePrompts
from training.answer_log import Ablation, Answered
from training.samples import IMAGE_PLACEHOLDER, Sample

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 1800.0  # of one answer, which may wait in the server's queue
RETRY_FOR_S = 600.0  # how long a full queue is waited for
REQUEST_ERRORS = {error.code: error for error in RequestError.__subclasses__()}
WORTH_WAITING = ("overloaded", "not_ready")  # codes of errors


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
        try:
            base_url = httpx.URL(url.rstrip("/"))
        except httpx.InvalidURL as error:
            raise InvalidRequest(f"--engine {url}: {error}") from None
        if not base_url.host:
            raise InvalidRequest(f"--engine {url}: the address names no host; the default is http://127.0.0.1:8000")
        self.url = url
        self._prompts = prompts
        self._asked = {"max_tokens": max_tokens, "temperature": 0, "seed": seed}
        # A proxy that the environment names is not asked about this machine.
        is_local = base_url.host in ("localhost", "127.0.0.1", "::1")
        self._client = httpx.AsyncClient(
            base_url=base_url,
            timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=None),
            trust_env=not is_local,
        )

    async def model_name(self) -> str:
        """What is served, and with which ablation, so that answers of the two are never taken for each other.

        Raises ``NotReady`` if nothing answers, ``InvalidRequest`` if it is no ilvr server.
        """
        answer = await self._sent("GET", "/v1/models")
        try:
            return ",".join(sorted(_name(model) for model in answer.json()["data"]))
        except (ValueError, KeyError, TypeError):
            raise InvalidRequest(f"{self.url} answered HTTP {answer.status_code}; is that an ilvr server?") from None

    async def start(self, ablation: Ablation) -> "HttpAnswerer":
        check_ablations((ablation,))
        return HttpAnswerer(self, ablation)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def ask(self, sample: Sample, mode: str) -> tuple[dict[str, Any], float]:
        """The response object and the seconds until it was there; a full queue is waited for, which does not count.

        Raises:
            RequestError: the server refuses this sample.
            NotReady, GenerationFailed, EngineDead: it cannot answer now.
        """
        body = {**await asyncio.to_thread(_question, sample), **self._asked, "latent": {"mode": mode}}
        give_up_s = time.monotonic() + RETRY_FOR_S
        while True:
            began_s = time.monotonic()
            answer = await self._sent("POST", "/v1/reason", body)
            latency_s = time.monotonic() - began_s
            try:
                content = answer.json()
                if answer.status_code == httpx.codes.OK:
                    return dict(content), latency_s
                message, code = str(content["error"]["message"]), str(content["error"]["code"])
            except (ValueError, KeyError, TypeError):
                raise EngineDead(f"{self.url} answered HTTP {answer.status_code}; is that an ilvr server?") from None
            if code in REQUEST_ERRORS:
                raise REQUEST_ERRORS[code](message)
            if code not in WORTH_WAITING or time.monotonic() > give_up_s:
                raise GenerationFailed(f"the server answered: {message} ({code})")
            await asyncio.sleep(float(answer.headers.get("Retry-After", "1")))

    def whole_text(self, sample: Sample, response: dict[str, Any]) -> str | None:
        """Prompt and response as they would be decoded, by the served checkpoint's template."""
        if self._prompts is None:
            return None
        prompt = self._prompts.text_of(self._prompts.build_parts([*sample.images, sample.text_input]))
        return prompt + _decoded(response)

    async def _sent(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        try:
            return await self._client.request(method, path, json=body)
        except httpx.ConnectError:
            raise NotReady(f"no server answers at {self.url}; start it with: ilvr serve") from None
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise InvalidRequest(f"--engine {self.url}: {error}") from None
        except httpx.TransportError as error:
            raise EngineDead(f"the connection to {self.url} broke: {error or type(error).__name__}") from None


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
        if response["status"] == "cancelled":
            raise GenerationFailed("the server cancelled the response")
        usage = response["usage"]
        return Answered(
            text="".join(step["text"] for step in response["steps"] if step["type"] == "text"),
            whole_text=self._server.whole_text(sample, response),
            num_output_tokens=usage["output_text_tokens"] + usage["latent_steps"],
            num_latents=usage["latent_steps"],
            latency_s=round(latency_s, 6),
            is_cut=response["status"] == "incomplete",
        )


def _question(sample: Sample) -> dict[str, Any]:
    """The API puts pictures before the question, so it cannot ask a sample that has them elsewhere."""
    if IMAGE_PLACEHOLDER in sample.text_input:
        raise InvalidRequest(
            f"text_input says where its pictures stand ({IMAGE_PLACEHOLDER}), which the API cannot; "
            "evaluate it with --engine vllm"
        )
    if not sample.text_input:
        raise InvalidRequest("text_input is empty, which the API refuses; evaluate it with --engine vllm")
    images = [{"type": "base64", "data": _base64(path)} for path in sample.images]
    return {"question": sample.text_input, "images": images}


def _base64(path: Path) -> str:
    try:
        return base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise InvalidRequest(f"{path}: {error.strerror}") from None


def _decoded(response: dict[str, Any]) -> str:
    """The steps with the special tokens that surrounded them. Which token ended the text is not told: the usual one."""
    text = ""
    for step in response["steps"]:
        if step["type"] == "text":
            text += step["text"]
            continue
        is_closed = step["exit"] in ("full", "early")
        text += "<|latent_start|>" + "<|latent_pad|>" * step["size"] + ("<|latent_end|>" if is_closed else "")
    return text + ("<|im_end|>" if response["finish_reason"] == "stop" else "")
