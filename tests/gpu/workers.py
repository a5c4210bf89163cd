"""The workers of production, which here also say how vLLM ran their steps, and may take the other latent-step kernels.

They are named in the engine argument ``worker_cls``, so the engine process imports this file.
"""

from collections import Counter
from dataclasses import fields
from typing import Any

from torch import Tensor

from model_runner.kernels.latent_step import Implementation, latent_step
from model_runner.model.cpu_worker import ILVRWorker as OfCpu
from model_runner.model.gpu_worker import ILVRWorker as OfGpu


class Told:
    """Mixin. ``implementation``: of the latent step; None: what the model class takes on this device."""

    implementation: Implementation | None = None

    def load_model(self, **kwargs: Any) -> None:
        super().load_model(**kwargs)  # type: ignore[misc]
        if self.implementation is not None:
            model = self.model_runner.get_model()  # type: ignore[attr-defined]
            model.inject, model.commit, model.decide, model.mask_logits = latent_step(self.implementation)

    def initialize_from_config(self, kv_cache_config: Any) -> None:
        super().initialize_from_config(kv_cache_config)  # type: ignore[misc]
        runner: Any = self.model_runner  # type: ignore[attr-defined]
        self.modes: Counter[str] = Counter()
        chooser = runner.cudagraph_manager if self.use_v2_model_runner else runner.cudagraph_dispatcher  # type: ignore[attr-defined]
        dispatch = chooser.dispatch

        def counted(*args: Any, **kwargs: Any) -> Any:
            found = dispatch(*args, **kwargs)
            mode = found.cg_mode if self.use_v2_model_runner else found[0]  # type: ignore[attr-defined]
            self.modes[mode.name] += 1
            return found

        chooser.dispatch = counted
        self._watch_addresses(runner.get_model())

    def _watch_addresses(self, model: Any) -> None:
        decode = model.decode
        self.addresses: set[tuple[int, ...]] = set()

        def watched(*arguments: Any) -> Tensor:
            *inputs, state = arguments
            kept = [getattr(state, field.name) for field in fields(state)]
            rows_R3 = getattr(model, "feed_rows_R3", None)
            tensors = [one for one in (*inputs, *kept, rows_R3) if isinstance(one, Tensor)]
            self.addresses.add(tuple(one.data_ptr() for one in tensors))
            hidden_TD: Tensor = decode(*arguments)
            return hidden_TD

        model.decode = watched

    def num_addresses(self) -> int:
        """At how many sets of addresses decode steps found what they read and write: a captured graph keeps its own."""
        return len(self.addresses)

    def take_modes(self) -> dict[str, int]:
        """How many steps ran in each CUDA graph mode since this was last asked."""
        modes, self.modes = self.modes, Counter()
        return dict(modes)

    def kernels(self) -> str:
        """The module whose ``inject`` the model calls, and which runner calls the model."""
        model = self.model_runner.get_model()  # type: ignore[attr-defined]
        name = model.inject.__module__.rpartition(".")[2]
        return f"{name} on V{2 if self.use_v2_model_runner else 1}"  # type: ignore[attr-defined]


class CpuWorker(Told, OfCpu): ...


class CpuTritonWorker(Told, OfCpu):
    implementation = "triton"


class GpuWorker(Told, OfGpu): ...


class GpuReferenceWorker(Told, OfGpu):
    implementation = "reference"
