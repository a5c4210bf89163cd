"""Who asks. ``request.state.caller`` is set for every request before a route runs; routes take it as ``CallerDep``."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from fastapi import Depends, Request

from contracts.jobs import RateLimit

Scope = Literal["reason", "images", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """``owner`` is stable, tells nothing of the key, and is empty where keys are off.

    scopes: what it may do. None of them: a request without a right key to a route that is open to all.
    max_open: responses that it may have open at once.
    """

    owner: str
    scopes: frozenset[Scope]
    rate_limit: RateLimit | None = None
    max_open: int | None = None

    @property
    def is_known(self) -> bool:
        """Its key is right, or keys are off."""
        return bool(self.scopes)


# Of every request where keys are off.
ANYONE = Caller(owner="", scopes=frozenset(SCOPES))
# Where keys are on, of a request without a right one to a route that is open to all.
NOBODY = Caller(owner="", scopes=frozenset())


async def _of_request(request: Request) -> Caller:  # async: FastAPI would run a plain function in a thread
    caller: Caller = request.state.caller
    return caller


CallerDep = Annotated[Caller, Depends(_of_request)]
