"""What a route asks of its caller. A route that is not named here is open to no one without a key."""

from dataclasses import dataclass

from service.auth import Scope
from service.settings import ServiceSettings

OPEN = frozenset({"/healthz", "/readyz", "/version"})
METRICS = frozenset({"/metrics"})
PAGES = frozenset({"/", "/docs", "/docs/oauth2-redirect", "/openapi.json"})
SCOPE_BY_PREFIX: dict[str, Scope] = {
    "/v1/reason": "reason",
    "/v1/chat/completions": "reason",
    "/v1/responses": "reason",
    "/v1/images": "images",
}
# Where a question is asked: refusals are counted.
QUESTIONS = frozenset({"/v1/reason", "/v1/chat/completions", "/v1/responses"})
# What a key's rate limit counts: work and storage. Looking at a response, following and cancelling it are free.
COUNTED = QUESTIONS | {"/v1/images"}


@dataclass(frozen=True, slots=True)
class Access:
    """``scope`` None: any right key will do."""

    is_open: bool = False
    scope: Scope | None = None
    is_counted: bool = False


def access_to(method: str, path: str, settings: ServiceSettings) -> Access:
    """By path alone, before any route is looked up; so what no route answers needs a key as well."""
    if path in OPEN or (path in METRICS and not settings.metrics_need_key):
        return Access(is_open=True)
    if path in PAGES and not settings.docs_need_key:
        return Access(is_open=True)
    if path in METRICS or path in PAGES:
        return Access(scope="admin")
    for prefix, scope in SCOPE_BY_PREFIX.items():
        if path == prefix or path.startswith(prefix + "/"):
            return Access(scope=scope, is_counted=method == "POST" and path in COUNTED)
    return Access()
