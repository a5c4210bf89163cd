"""The worker on a CPU."""

from vllm.v1.worker.cpu_worker import CPUWorker

from model_runner.model.worker import LatentWorkerMixin


class ILVRWorker(LatentWorkerMixin, CPUWorker): ...
