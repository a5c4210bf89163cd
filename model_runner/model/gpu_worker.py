"""The worker on a GPU."""

from vllm.v1.worker.gpu_worker import Worker

from model_runner.model.worker import LatentWorkerMixin


class ILVRWorker(LatentWorkerMixin, Worker): ...
