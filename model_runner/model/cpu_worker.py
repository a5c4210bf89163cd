"""The worker on a CPU."""

from typing import Any

from vllm.v1.worker.cpu_worker import CPUWorker

from model_runner.model.worker import LatentWorkerMixin


class ILVRWorker(LatentWorkerMixin, CPUWorker):
    def sample_tokens(self, *args: Any, **kwargs: Any) -> Any:
        """Requests whose prompt is not computed to its end do not use their seed yet.

        A token is sampled for them too, and thrown away. vLLM then turns their generator back, which one of a CPU
        cannot be: that would end the engine. Here it is out of reach until the others have sampled.
        """
        runner = self.model_runner
        generators = {} if self.use_v2_model_runner else runner.input_batch.generators
        if not generators:
            return super().sample_tokens(*args, **kwargs)
        unfinished = runner.discard_request_mask.np[: runner.input_batch.num_reqs].nonzero()[0].tolist()
        waiting = {row: generators.pop(row) for row in unfinished if row in generators}
        try:
            return super().sample_tokens(*args, **kwargs)
        finally:
            generators.update(waiting)
