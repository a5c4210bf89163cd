"""The gateway as an ASGI app. Whoever composes it owns the broker and closes it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from contracts.broker import Broker
from service import errors
from service.authentication import AuthenticationMiddleware
from service.body_limit import BodyLimitMiddleware
from service.gateway import Gateway
from service.key_source import open_keys
from service.observe import ObserveMiddleware
from service.openapi import DescribedApp
from service.request_id import RequestIdMiddleware
from service.routes import chat, health, images, models, openai_responses, pages, reason, responses
from service.settings import ServiceSettings
from service.write_timeout import STATE

DESCRIPTION = """\
Questions about pictures, answered by a model that reasons in text and in latent visual steps. Each step is streamed as
it happens; a stream can be left and resumed.

Errors have one shape, `{"error": {"type", "code", "message", "param", "request_id"}}`; `code` is stable.
"""


def create_app(broker: Broker, settings: ServiceSettings, registry: CollectorRegistry) -> FastAPI:
    """``registry`` gets the gateway's metrics; ``/metrics`` shows all that is in it.

    Raises ``BadSettings`` if the API keys cannot be read.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, object]]:
        yield {STATE: settings.write_timeout_s}
        await gateway.aclose()

    gateway = Gateway(broker, settings, registry)
    app = DescribedApp(
        title="ILVR", version=version("ilvr"), description=DESCRIPTION, redoc_url=None, lifespan=lifespan
    )
    app.state.gateway = gateway
    for routes in (reason, responses, chat, openai_responses, images, models, health, pages):
        app.include_router(routes.router)
    errors.install(app)
    # The last one added is the outermost.
    app.add_middleware(BodyLimitMiddleware, max_body_bytes=settings.max_body_bytes, timeout_s=settings.body_timeout_s)
    app.add_middleware(AuthenticationMiddleware, gateway=gateway, keys=open_keys(settings))
    app.add_middleware(ObserveMiddleware, gateway=gateway)
    app.add_middleware(RequestIdMiddleware)
    return app
