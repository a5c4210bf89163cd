"""OpenAI's JavaScript client against the same gateway. Where it is missing the test fails, and says what to run."""

import asyncio
import json

import httpx

from tests.scripted_runner import MODEL, ScriptedRunner
from tests.servers import ROOT

CLIENT = ROOT / "build/javascript-client/node_modules/openai/index.mjs"
TOLD = ["Holes: second row.\nLet me [latent: 8] So the path is \\boxed{RRDD} ✓", "RRDD"]


async def test_it_answers_streams_and_raises(live: httpx.AsyncClient, runner: ScriptedRunner) -> None:
    assert CLIENT.exists(), "run tools/javascript_client.sh, which needs npm"
    process = await asyncio.create_subprocess_exec(
        "node",
        str(ROOT / "tests/service/openai/client.mjs"),
        str(CLIENT),
        f"{live.base_url}/v1",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    assert json.loads(out) == {
        "answer": TOLD,
        "streamed": TOLD,
        "responses": "RRDD",
        "models": [MODEL],
        "unknown_model": ["NotFoundError", "model_not_found", "model"],
        "tools": ["UnprocessableEntityError", "invalid_request", "tools"],
    }
