"""What the routes share. One per app, in ``app.state``; there is no global one."""

import time
from typing import Annotated

from fastapi import Depends, Request
from prometheus_client import CollectorRegistry

from contracts.broker import Broker, RunnerStatus
from contracts.errors import ModelNotFound, NotReady, ResponseNotFound
from contracts.jobs import Job
from service.auth import Caller
from service.disconnect import Readers
from service.image_fetch import ImageFetcher
from service.intake import Intake
from service.metrics import GatewayMetrics
from service.outcomes import Outcomes
from service.settings import ServiceSettings


class Gateway:
    def __init__(self, broker: Broker, settings: ServiceSettings, registry: CollectorRegistry) -> None:
        self.started_at = int(time.time())
        self.broker = broker
        self.settings = settings
        self.registry = registry
        self.metrics = GatewayMetrics(registry)
        self.intake = Intake(settings)
        self.readers = Readers(broker, settings.disconnect_grace_s)
        self.outcomes = Outcomes(broker, self.metrics)
        self.image_fetcher = ImageFetcher(settings)
        self.is_stopping = False

    def begin_stop(self) -> None:
        """From now on ``/readyz`` says that this gateway will soon be gone; all else goes on."""
        self.is_stopping = True

    async def ready_runners(self) -> list[RunnerStatus]:
        """At least one. Raises ``NotReady`` with what is known of the reason."""
        runners = await self.broker.runners()
        ready = [runner for runner in runners if runner.is_ready]
        if not ready:
            details = "; ".join(f"{runner.runner_id}: {runner.detail or 'not ready'}" for runner in runners)
            raise NotReady(f"No model is ready to answer ({details or 'no runner has reported yet'}).")
        return ready

    async def job_of(self, response_id: str, caller: Caller) -> Job:
        """Raises ``ResponseNotFound``, also where the response is another caller's."""
        job = await self.broker.job(response_id)
        if job.owner != caller.owner:
            raise ResponseNotFound(f"No response {response_id} is known (any more).")
        return job

    async def choose_model(self, wanted: str | None) -> str:
        """The model that is asked for, or the first that is ready. Raises ``NotReady``, ``ModelNotFound``."""
        names = [runner.model for runner in await self.ready_runners()]
        if wanted is None:
            return names[0]
        if wanted not in names:
            served = ", ".join(sorted(set(names)))
            raise ModelNotFound(f"model: {wanted!r} is not served here; {served} is.", param="model")
        return wanted

    async def aclose(self) -> None:
        await self.readers.aclose()
        await self.outcomes.aclose()


async def _of_request(request: Request) -> Gateway:  # async: FastAPI would run a plain function in a thread
    gateway: Gateway = request.app.state.gateway
    return gateway


GatewayDep = Annotated[Gateway, Depends(_of_request)]
