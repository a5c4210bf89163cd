"""The server of an afternoon: plain transformers behind FastAPI, one request after the other.

    python -m benchmarks.peers.sequential --model DIR --port 8001

`POST /v1/chat/completions`, streamed, greedy, with one text and one data URL in the last message; nothing else. The
loop is that of `--engine transformers`: the published one, with a KV cache.
"""

import argparse
import base64
import hashlib
import io
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from PIL import Image
from tokenizers import Tokenizer

from model_runner.checkpoint import read_checkpoint
from model_runner.engine.base import EngineImage, EngineRequest, SamplingSettings
from model_runner.engine.transformers_engine import TransformersEngine
from model_runner.generation import read_generation_defaults
from model_runner.prompt import PromptBuilder
from model_runner.settings import RunnerSettings


def create_app(folder: Path, dtype: Any) -> FastAPI:
    checkpoint = read_checkpoint(folder, is_cpu=True)
    defaults = read_generation_defaults(folder, checkpoint.config)
    engine = TransformersEngine.start(RunnerSettings(model=folder, dtype=dtype), checkpoint, defaults)
    builder, tokenizer = PromptBuilder(checkpoint), Tokenizer.from_file(str(folder / "tokenizer.json"))
    app = FastAPI()

    @app.get("/health")
    def health() -> dict[str, str]:
        return {}

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"data": [{"id": folder.name}]}

    @app.post("/v1/chat/completions")
    async def complete(body: dict[str, Any]) -> StreamingResponse:
        parts = {part["type"]: part for part in body["messages"][-1]["content"]}
        data = base64.b64decode(parts["image_url"]["image_url"]["url"].partition(",")[2])
        image = EngineImage(id=hashlib.sha256(data).hexdigest(), rgb=Image.open(io.BytesIO(data)).convert("RGB"))
        request = EngineRequest(
            request_id=uuid.uuid4().hex,
            prompt_ids=builder.build(parts["text"]["text"], num_images=1),
            images=(image,),
            sampling=SamplingSettings(max_tokens=body["max_tokens"]),
        )
        return StreamingResponse(chunks(request), media_type="text/event-stream")

    async def chunks(request: EngineRequest) -> AsyncIterator[str]:
        prompt_tokens = completion_tokens = 0
        async for delta in engine.generate(request):
            prompt_tokens = delta.prompt.num_tokens if delta.prompt else prompt_tokens
            completion_tokens += len(delta.ids)
            text = tokenizer.decode(delta.ids, skip_special_tokens=False)
            yield chunk(choices=[{"index": 0, "delta": {"content": text}}])
        yield chunk(choices=[], usage={"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens})
        yield "data: [DONE]\n\n"

    return app


def chunk(**content: Any) -> str:
    return f"data: {json.dumps(content)}\n\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--port", type=int, required=True)
    args = parser.parse_args()
    uvicorn.run(create_app(args.model, args.dtype), host="127.0.0.1", port=args.port, log_level="warning")


if __name__ == "__main__":
    main()
