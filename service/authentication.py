"""Who asks is known, may ask, and has not asked too often, before a byte of the body is read.

Of a refused request nothing is kept: no list of addresses, no count for each key that was tried.
"""

from contextlib import nullcontext

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from contracts.errors import IlvrError, NotAuthenticated, NotPermitted
from service.access import QUESTIONS, Access, access_to
from service.auth import ANYONE, NOBODY, Caller
from service.errors import answer_for
from service.gateway import Gateway
from service.key_source import KeySource

BEARER = "bearer "


class AuthenticationMiddleware:
    """Sets ``request.state.caller``. ``keys`` None: keys are off, and everybody is the same caller."""

    def __init__(self, app: ASGIApp, gateway: Gateway, keys: KeySource | None) -> None:
        self._app = app
        self._gateway = gateway
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        is_question = request.method == "POST" and scope["path"] in QUESTIONS
        try:
            # Other refusals of a question are counted by its route, which is not reached from here.
            with self._gateway.metrics.counting_refusals() if is_question else nullcontext():
                request.state.caller = await self._admit(request)
        except IlvrError as error:
            await answer_for(request, error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _admit(self, request: Request) -> Caller:
        """Raises ``NotAuthenticated``, ``NotPermitted``, ``RateLimited``, ``BrokerUnavailable``."""
        if self._keys is None:
            return ANYONE
        # The path that routes are looked up by. ``request.url`` is put together with what the Host header says.
        access = access_to(request.method, request.scope["path"], self._gateway.settings)
        token = token_of(request.headers)
        caller = self._keys.now().find(token) if token else None
        if caller is None:
            if access.is_open:
                return NOBODY
            raise NotAuthenticated(
                "The API key is not known here." if token else "An API key is needed: 'Authorization: Bearer KEY'."
            )
        _check_scope(caller, access)
        if access.is_counted and caller.rate_limit is not None:
            await self._gateway.broker.spend(caller.owner, caller.rate_limit)
        return caller


def token_of(headers: Headers) -> str:
    """From ``Authorization: Bearer`` or else ``X-API-Key``; never from the address, which is written into logs."""
    given = headers.get("authorization")
    if given is None:
        return headers.get("x-api-key", "").strip()
    return given[len(BEARER) :].strip() if given[: len(BEARER)].lower() == BEARER else ""


def _check_scope(caller: Caller, access: Access) -> None:
    if access.scope is not None and access.scope not in caller.scopes:
        raise NotPermitted(f"This API key has no scope {access.scope!r}.")
