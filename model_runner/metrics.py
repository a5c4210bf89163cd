"""All Prometheus metrics of the runner. Nothing else in ``model_runner`` creates one; docs/metrics.md lists them."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from contracts.loop_histogram import LoopHistogram
from contracts.responses import LatentStep, Response
from model_runner.collectors import EngineCounters, VllmMetrics

# 5 ms to 82 s, doubling: first steps land in the middle, a stuck queue is still on the scale.
LATENCY_BUCKETS_S = tuple(0.005 * 2**i for i in range(15))
# 10 ms to 5.5 min: a whole answer, of a tiny model or a large one.
RESPONSE_BUCKETS_S = tuple(0.010 * 2**i for i in range(16))
# 1 ms to 4.1 s, by steps of 1.4: a token is some 5 ms on a laptop and 10 to 40 ms of a large model on a GPU.
TOKEN_BUCKETS_S = tuple(round(0.001 * 2 ** (i / 2), 5) for i in range(25))
# 2 ms to 8.2 s: K latent steps at the price of a token each.
BLOCK_BUCKETS_S = tuple(0.002 * 2**i for i in range(13))
STEP_BUCKETS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89)

# By the name under which the engine counts them.
ENGINE_COUNTS = {
    "images_encoded": "Images that the vision encoder ran on.",
    "encoder_cache_hits": "Images of prompts for which the encoder did not have to run: their features, or the KV "
    "cache of their tokens, were still there.",
    "preemptions": "Requests that lost their KV blocks to others and began again.",
    "replays": "Steps that computed latents of a prompt together with the token before them.",
    "replayed_pads": "Latents computed so.",
    "replay_passes": "Passes of the language model that this took beyond the ordinary one of the step.",
    "replayed_tokens": "Tokens computed in those passes.",
}


class RunnerMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.responses = Counter(
            "ilvr_runner_responses",
            "Responses that ended here, by outcome: completed, incomplete, cancelled or an error code.",
            labelnames=("outcome",),
            registry=registry,
        )
        self.not_ended = Counter(
            "ilvr_runner_attempts_not_ended",
            "Attempts that did not end their response: handed back, or taken over by another runner.",
            registry=registry,
        )
        self.in_flight = Gauge("ilvr_runner_responses_in_flight", "Responses being worked on.", registry=registry)
        self.max_in_flight = Gauge(
            "ilvr_runner_max_responses_in_flight", "As many as it takes at once (--max-num-seqs).", registry=registry
        )
        self.is_ready = Gauge("ilvr_runner_ready", "1 while the engine answers and takes work.", registry=registry)
        self.is_engine_alive = Gauge(
            "ilvr_runner_engine_alive", "1 while the engine process is there.", registry=registry
        )
        self.heard_at = Gauge(
            "ilvr_runner_last_heartbeat_timestamp_seconds",
            "When the broker last heard of this runner, in seconds since the epoch.",
            registry=registry,
        )
        self.input_tokens = Counter(
            "ilvr_runner_input_tokens", "Tokens of prompts, those of images included.", registry=registry
        )
        self.image_tokens = Counter("ilvr_runner_image_tokens", "Tokens of images in prompts.", registry=registry)
        self.cached_tokens = Counter(
            "ilvr_runner_cached_tokens", "Tokens of prompts found in the KV cache.", registry=registry
        )
        self.text_tokens = Counter("ilvr_runner_output_text_tokens", "Tokens that are not latents.", registry=registry)
        self.latent_steps = Counter("ilvr_runner_latent_steps", "Latent steps (pads of blocks).", registry=registry)
        self.latent_blocks = Counter(
            "ilvr_runner_latent_blocks",
            "Latent blocks that ended, by exit: full, early, restart or cut.",
            labelnames=("exit",),
            registry=registry,
        )
        self.block_time = Histogram(
            "ilvr_runner_latent_block_seconds",
            "From the start of a latent block to its end, as the runner sees them.",
            buckets=BLOCK_BUCKETS_S,
            registry=registry,
        )
        self.response_steps = Histogram(
            "ilvr_runner_response_steps",
            "Steps of a response, text and latent.",
            buckets=STEP_BUCKETS,
            registry=registry,
        )
        self.queue_time = Histogram(
            "ilvr_runner_queue_seconds",
            "From submission, by the broker's clock, until the engine scheduled it.",
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.time_to_first_step = Histogram(
            "ilvr_runner_time_to_first_step_seconds",
            "From submission to the start of the first step.",
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.response_time = Histogram(
            "ilvr_runner_response_seconds",
            "From submission to the end.",
            buckets=RESPONSE_BUCKETS_S,
            registry=registry,
        )
        self.text_gap = LoopHistogram(
            "ilvr_runner_text_gap_seconds",
            "From one token of a text step to the next, as the engine hands them to the runner; tokens that come "
            "together share the time.",
            TOKEN_BUCKETS_S,
        )
        self.engine = EngineCounters(ENGINE_COUNTS)
        for collector in (self.text_gap, self.engine, VllmMetrics()):
            registry.register(collector)

    def count(self, response: Response) -> None:
        """Count an ended response, once."""
        usage, timings = response.usage, response.timings
        self.responses.labels(response.error.code if response.error else response.status).inc()
        self.input_tokens.inc(usage.input_tokens)
        self.image_tokens.inc(usage.image_tokens)
        self.cached_tokens.inc(usage.cached_tokens)
        self.text_tokens.inc(usage.output_text_tokens)
        self.latent_steps.inc(usage.latent_steps)
        self.response_steps.observe(len(response.steps))
        for step in response.steps:
            if isinstance(step, LatentStep):
                self.latent_blocks.labels(step.exit).inc()
                self.block_time.observe(step.duration_ms / 1000)
        for histogram, time_ms in (
            (self.queue_time, timings.queue_ms),
            (self.time_to_first_step, timings.time_to_first_step_ms),
            (self.response_time, timings.total_ms),
        ):
            if time_ms is not None:
                histogram.observe(time_ms / 1000)
