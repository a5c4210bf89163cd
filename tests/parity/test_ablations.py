"""Ablated latents: both engines feed the same, alone, in a batch, in small chunks, and again after preemption.

What is fed is compared with the recording of the published code where it tells: the first latent of an answer comes
after what the model reads and says by itself, and every latent of ``swap`` is another prompt's recorded one.
"""

import asyncio
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
import pytest
import pytest_asyncio

from contracts.errors import BadSettings
from contracts.maze_pictures import draw_maze
from contracts.mazes import QUESTION, generate
from model_runner.engine.transformers_engine import TransformersEngine
from model_runner.engine.vllm_engine import VllmEngine
from model_runner.generation import GenerationDefaults
from model_runner.settings import RunnerSettings
from tests.engine_processes import fork_engine_processes
from tests.parity.traces import START_ID, K, answer, read_traces, request_of, text_request
from tests.servers import running_server

pytestmark = pytest.mark.asyncio(loop_scope="module")
# c has early exits and a penalty, b restarts; one engine each, for it takes long to start.
# The last number is how many pads are replayed in a step: with 0, a step for each.
CASES = [("zero", "c", 64), ("noise", "b", 0), ("swap", "b", 64)]
ATOL = 1e-3  # of recorded vectors, as in test_served


def plain_engine(checkpoint_of, name, mode, donors=None):
    checkpoint, defaults = checkpoint_of(name)
    settings = RunnerSettings(model=checkpoint.folder, latent_ablation=mode)
    return TransformersEngine.start(settings, checkpoint, defaults, donors)


def requests_of(name, defaults, tag):
    return [request_of(trace, defaults, f"{tag}-{trace.index}") for trace in read_traces(name)]


@dataclass
class Ablated:
    """``expected``: ids, and latents by position, of each trace's request, from the plain engine."""

    mode: str
    name: str
    max_replayed_pads: int
    engine: VllmEngine
    plain: TransformersEngine
    defaults: GenerationDefaults
    expected: list


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=CASES, ids=[mode for mode, *_ in CASES])
async def ablated(request, checkpoint_of):
    """An engine short of room, so that what does not come back exactly shows: 15 KV blocks of 32 tokens, steps of 64.

    Donors of ``swap`` are the traces themselves.
    """
    mode, name, max_replayed_pads = request.param
    checkpoint, defaults = checkpoint_of(name)
    donors = requests_of(name, defaults, "donor") if mode == "swap" else None
    plain = plain_engine(checkpoint_of, name, mode, donors)
    expected = []
    for one in requests_of(name, defaults, "plain"):
        ids, _ = await answer(plain, one)
        expected.append((ids, plain._latents))
    room = {"max_num_seqs": 8, "num_kv_blocks": 16, "max_model_len": 256, "max_num_batched_tokens": 64}
    room |= {"kv_cache_mib": 64, "max_replayed_pads": max_replayed_pads}
    settings = RunnerSettings(model=checkpoint.folder, dtype="float32", latent_ablation=mode, **room)
    fork_engine_processes()
    engine = VllmEngine.start(settings, checkpoint, defaults, donors)
    try:
        await engine.prepare()  # or the donors would be asked, and traced, when the first request comes
        yield Ablated(mode, name, max_replayed_pads, engine, plain, defaults, expected)
    finally:
        await engine.aclose()


async def test_alone(ablated):
    """Vector for vector; and nothing is cached when a prompt comes again."""
    engine = ablated.engine
    requests = requests_of(ablated.name, ablated.defaults, "alone")
    asked = [*zip(requests, ablated.expected, strict=True), (replace(requests[0], request_id="2"), ablated.expected[0])]
    for one, (ids, latents) in asked:
        await engine.worker_call("trace_latents", True)
        got, info = await answer(engine, one)
        positions, vectors = await engine.worker_call("take_latent_trace")
        await engine.worker_call("trace_latents", False)
        assert got == ids
        assert info.num_cached_tokens == 0
        assert positions == list(latents)
        np.testing.assert_allclose(vectors, np.stack([fed.numpy() for fed in latents.values()]), atol=ATOL)


async def test_all_at_once_and_preempted(ablated):
    engine = ablated.engine
    before = await engine.stats()
    requests = requests_of(ablated.name, ablated.defaults, "batch")
    answers = await asyncio.gather(*(answer(engine, one) for one in requests))
    after = await engine.stats()
    assert [ids for ids, _ in answers] == [ids for ids, _ in ablated.expected]
    assert after.num_preemptions > before.num_preemptions
    assert (after.model["replayed_pads"] > before.model["replayed_pads"]) == (ablated.max_replayed_pads > 0)


async def test_a_history_inside_a_block_goes_on_as_it_was(ablated):
    """A context that is sent back. Its pads are fed the same by both engines, by the numbers of the new request; zeros
    need no numbers, so there the answer goes on as it did."""
    trace, (ids, _) = read_traces(ablated.name)[0], ablated.expected[0]
    history = ids.index(START_ID) + 3
    one = request_of(trace, ablated.defaults, "history", max_tokens=30)
    one = replace(one, prompt_ids=trace.prompt_ids + ids[:history])
    got, _ = await answer(ablated.engine, one)
    assert got == (await answer(ablated.plain, one))[0]
    assert min(ablated.plain._latents) < len(trace.expanded_ids) + history
    if ablated.mode == "zero":
        assert got == ids[history : history + 30]


async def test_what_is_fed(ablated):
    """Against the recording: the first latent of an answer follows what was said before any was replaced."""
    traces = read_traces(ablated.name)
    for trace, (ids, latents) in zip(traces, ablated.expected, strict=True):
        own = trace.latents
        at = min(latents)
        assert at == min(own)
        assert ids[: at - len(trace.expanded_ids)] == trace.output_ids[: at - len(trace.expanded_ids)]
        assert np.abs(latents[at].numpy()[:8] - own[at]["first8"]).max() > 0.1
        if ablated.mode == "zero":
            assert not any(latent.any() for latent in latents.values())
        elif ablated.mode == "noise":
            np.testing.assert_allclose(np.linalg.norm(latents[at]), own[at]["l2"], rtol=1e-4)
        else:
            others = [other.latents.values() for other in traces if other.files != trace.files]
            lent = np.array([fed["first8"] for other in others for fed in other])
            for latent in latents.values():
                assert np.abs(lent - latent.numpy()[:8]).max(axis=1).min() < ATOL


async def test_another_seed_is_another_noise(checkpoint_of):
    """Also without sampling: only the noise hangs on it. The same seed gives the same to the last bit."""
    plain = plain_engine(checkpoint_of, "b", "noise")
    _, defaults = checkpoint_of("b")
    one = request_of(read_traces("b")[0], defaults, "seeded", max_tokens=40)
    fed = []
    for seed in (None, 0, 1, 1):
        await answer(plain, replace(one, sampling=replace(one.sampling, seed=seed)))
        fed.append(next(iter(plain._latents.values())))
    assert not any(np.allclose(fed[a], fed[b], atol=0.1) for a, b in ((0, 1), (0, 2), (1, 2)))
    assert fed[2].equal(fed[3])


async def test_donors_that_begin_no_block_stop_the_start(checkpoint_of):
    donors = [text_request((100 + n,), f"mute-{n}", max_tokens=1) for n in range(3)]
    plain = plain_engine(checkpoint_of, "b", "swap", donors)
    with pytest.raises(BadSettings, match="needs two different samples with latents, and of the 3 asked 0 began"):
        await plain.prepare()


async def test_served_over_http_without_a_file_of_donors():
    """Mazes lend their latents. The ready line says what the server is, and the same question has the same answer."""
    with running_server("--engine", "transformers", "--latent-ablation", "swap") as server, server.client() as client:
        assert any("serves maze-tiny with other samples' latents;" in line for line in server.lines)
        assert client.get("/v1/models").json()["data"][0]["latent_ablation"] == "swap"
        buffer = BytesIO()
        draw_maze(generate(4, 7).rows).save(buffer, "PNG")
        files = [("image", ("maze.png", buffer.getvalue()))]
        steps = [client.post("/v1/reason", data={"question": QUESTION}, files=files).json()["steps"] for _ in range(2)]
    shown = [[(step["type"], step.get("text"), step.get("size")) for step in one] for one in steps]
    assert shown[0] == shown[1]
    assert ("latent", None, K) in shown[0]
