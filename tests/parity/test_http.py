"""The recorded traces once more, through HTTP: the same steps come out of the whole path."""

import asyncio

import pytest

from contracts.responses import LatentStep
from model_runner.steps import BlockEnded, StepMachine, TextEnded
from model_runner.vocabulary import read_vocabulary
from tests.parity.traces import GOLDEN, NAMES, read_traces
from tests.servers import running_server


def recorded_steps(trace, checkpoint, vocabulary):
    """The steps of the recorded ids, as the API shows them, without durations."""
    machine = StepMachine(checkpoint.spec, vocabulary)
    updates = [*machine.feed(trace.output_ids), *machine.finish()]
    return [
        {"type": "text", "text": update.text}
        if isinstance(update, TextEnded)
        else {"type": "latent", "size": update.size, "exit": update.exit}
        for update in updates
        if isinstance(update, TextEnded | BlockEnded)
    ]


def shown_steps(response):
    keys = ("type", "text", "size", "exit")
    return [{key: step[key] for key in keys if key in step} for step in response["steps"]]


@pytest.fixture(params=NAMES)
def server_of(request, golden_folders, golden_server):
    """(name, server); the one on b is shared with other tests."""
    if request.param == "b":
        yield "b", golden_server
        return
    with running_server("--model", str(golden_folders[request.param]), "--dtype", "float32") as server:
        yield request.param, server


async def test_recorded_traces_through_http(server_of, checkpoint_of):
    """All at once, sampling left to the checkpoint: its generation_config.json means greedy, and for c a penalty."""
    name, server = server_of
    checkpoint, _ = checkpoint_of(name)
    vocabulary = read_vocabulary(checkpoint.folder)
    traces = read_traces(name)
    async with server.async_client() as client:

        async def ask(trace):
            files = [("image", (file, (GOLDEN / "images" / file).read_bytes())) for file in trace.files]
            data = {"question": trace.question, "max_tokens": "120"}
            return (await client.post("/v1/reason", data=data, files=files)).json()

        responses = await asyncio.gather(*(ask(trace) for trace in traces))
    for trace, response in zip(traces, responses, strict=True):
        assert shown_steps(response) == recorded_steps(trace, checkpoint, vocabulary)
        usage = response["usage"]
        assert usage["input_tokens"] == len(trace.expanded_ids)
        assert usage["output_text_tokens"] + usage["latent_steps"] == len(trace.output_ids)
        assert usage["latent_blocks"] == sum(LatentStep.__struct_config__.tag == s["type"] for s in response["steps"])
