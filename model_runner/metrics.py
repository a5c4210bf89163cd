"""All Prometheus metrics of the runner. Nothing else in ``model_runner`` creates one."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from contracts.responses import LatentStep, Response

# 5 ms to 10.24 s, doubling: first steps land in the middle, a stuck queue is still on the scale.
LATENCY_BUCKETS_S = tuple(0.005 * 2**i for i in range(12))


class RunnerMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.responses = Counter(
            "ilvr_runner_responses",
            "Responses that ended, by outcome: completed, incomplete, cancelled or an error code.",
            labelnames=("outcome",),
            registry=registry,
        )
        self.in_flight = Gauge("ilvr_runner_in_flight_responses", "Responses being worked on.", registry=registry)
        self.is_ready = Gauge("ilvr_runner_ready", "1 while the engine answers.", registry=registry)
        self.text_tokens = Counter("ilvr_runner_output_text_tokens", "Tokens that are not latents.", registry=registry)
        self.latent_steps = Counter("ilvr_runner_latent_steps", "Latent steps (pads of blocks).", registry=registry)
        self.latent_blocks = Counter(
            "ilvr_runner_latent_blocks",
            "Latent blocks that ended, by exit: full, early, restart or cut.",
            labelnames=("exit",),
            registry=registry,
        )
        self.time_to_first_step = Histogram(
            "ilvr_runner_time_to_first_step_seconds",
            "From submission to the start of the first step.",
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.engine = Gauge(
            "ilvr_runner_engine_count",
            "Counts of the engine since its start: images_encoded, preemptions, and of latents of a prompt that were "
            "computed in a step with the token before them: replays (steps), replayed_pads, replay_passes, "
            "replayed_tokens. Latents that get a step each, as all do with --max-replayed-pads 0, are not counted.",
            labelnames=("count",),
            registry=registry,
        )

    def count(self, response: Response) -> None:
        """Count an ended response, once."""
        self.responses.labels(response.error.code if response.error else response.status).inc()
        self.text_tokens.inc(response.usage.output_text_tokens)
        self.latent_steps.inc(response.usage.latent_steps)
        for step in response.steps:
            if isinstance(step, LatentStep):
                self.latent_blocks.labels(step.exit).inc()
        if response.timings.time_to_first_step_ms is not None:
            self.time_to_first_step.observe(response.timings.time_to_first_step_ms / 1000)
