"""(c) What latents cost the engine: the same requests with latents off, on our class and on vLLM's own."""

from typing import Any

from vllm import ModelRegistry
from vllm.config import VllmConfig
from vllm.model_executor.models.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.v1.worker.cpu_worker import CPUWorker

from benchmarks.decode.engines import ask, forget, served, set_threads
from benchmarks.decode.figures import Bar, PartReport, ratios, spread
from benchmarks.decode.models import load_with_long_blocks, without_latents
from benchmarks.decode.plan import Plan
from benchmarks.decode.throughput import check_equal
from model_runner.model.cpu_kernels import use_cpu_kernels
from model_runner.model.processing import ILVRDummyInputsBuilder, ILVRMultiModalProcessor, ILVRProcessingInfo

BAR = 0.95
ARCHITECTURE = "StockQwen2_5_VL"
# vLLM's own worker and scheduler, and no logits processor.
STOCK: dict[str, Any] = {
    "hf_overrides": {"architectures": [ARCHITECTURE]},
    "additional_config": {},
    "scheduler_cls": None,
    "worker_cls": "benchmarks.decode.stock.StockWorker",
    "logits_processors": None,
}

TEXT = """Output tokens a second for the same requests, latents off, on our model class, worker, scheduler and logits \
processors, and on stock vLLM: its Qwen2.5-VL class, worker and scheduler, no logits processor, the same settings. \
START is an id that neither would choose, so that both give the same tokens (in float32 this is checked). Pictures \
are processed by our image processor on both sides: vLLM's own wants a video processor, and so a torchvision that \
works. Both have the kernels of `model_runner/model/cpu_kernels.py`, which stock vLLM leaves aside, so that the \
ratio is what latents cost. Both stay up and take turns, in both orders; a ratio is taken within a repetition."""


@MULTIMODAL_REGISTRY.register_processor(
    ILVRMultiModalProcessor, info=ILVRProcessingInfo, dummy_inputs=ILVRDummyInputsBuilder
)
class StockQwen(Qwen2_5_VLForConditionalGeneration):
    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        use_cpu_kernels(self)  # as our class has them, so that nothing but latents is compared


def register() -> None:
    if ARCHITECTURE not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(ARCHITECTURE, "benchmarks.decode.stock:StockQwen")


class StockWorker(CPUWorker):
    """vLLM's, in a process that may know of no ``ARCHITECTURE`` yet."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        register()
        super().__init__(*args, **kwargs)


async def measure(plan: Plan) -> PartReport:
    register()
    raw: dict[str, Any] = {}
    rows, bars = [], []
    for name in plan.models:
        model = load_with_long_blocks(name)
        set_threads(plan.threads[name])
        found: dict[str, dict[str, list[float]]] = {}
        async with served(model) as ours, served(model, STOCK) as stock:
            for concurrency, repetitions in plan.stock_repetitions[name].items():
                rates = found[f"{concurrency}"] = {"ours": [], "stock": []}
                for repetition in range(-1, repetitions):  # the first does not count
                    count = plan.stock_rounds[name] * concurrency
                    asked = model.requests(count, plan.stock_max_tokens[name], seed=repetition + 1)
                    sides = [("ours", ours, without_latents(asked)), ("stock", stock, asked)]
                    by_side = {}
                    for side, engine, requests in sides[:: 1 if repetition % 2 else -1]:
                        await forget(engine)
                        answers = by_side[side] = await ask(engine, requests, concurrency)
                        if repetition >= 0:
                            rates[side].append(answers.tokens_a_second)
                    check_equal(model, asked, by_side["ours"], by_side["stock"])
        raw[name] = found
        for concurrency, rates in found.items():
            over = ratios(rates["ours"], rates["stock"])
            rows.append([name, concurrency, spread(rates["stock"]), spread(rates["ours"]), spread(over, 3)])
            bars.append(Bar(what=f"{name} at {concurrency} concurrent", values=over, limit=BAR, kind="at least"))
            plan.say(f"(c) {name}, {concurrency} at once: ours over stock {spread(over, 3)}")
    header = ["model", "concurrent", "stock, tokens/s", "ours, tokens/s", "ours over stock"]
    title = "(c) Latents off, against stock vLLM"
    return PartReport(key="c", title=title, text=TEXT, header=header, rows=rows, bars=bars, raw=raw)
