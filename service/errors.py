"""The only place that turns an error into an HTTP answer, in the shape that OpenAI's clients read."""

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from msgspec import Struct
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from contracts import errors as e
from contracts.responses import ErrorInfo
from service.validation import invalid_request

STATUS_BY_ERROR: Mapping[type[e.IlvrError], HTTPStatus] = {
    e.MalformedBody: HTTPStatus.BAD_REQUEST,
    e.InvalidRequest: HTTPStatus.UNPROCESSABLE_ENTITY,
    e.NotSupportedYet: HTTPStatus.UNPROCESSABLE_ENTITY,
    e.PromptTooLong: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    e.BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    e.BodyTooSlow: HTTPStatus.REQUEST_TIMEOUT,
    e.ImageTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    e.NotAnImage: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    e.ImageNotFound: HTTPStatus.NOT_FOUND,
    e.ModelNotFound: HTTPStatus.NOT_FOUND,
    e.ResponseNotFound: HTTPStatus.NOT_FOUND,
    e.ResponseNotFinished: HTTPStatus.CONFLICT,
    e.IdempotencyConflict: HTTPStatus.CONFLICT,
    e.ResponseCancelled: HTTPStatus.BAD_REQUEST,  # no 409: OpenAI's clients would send it again
    e.NotAuthenticated: HTTPStatus.UNAUTHORIZED,
    e.NotPermitted: HTTPStatus.FORBIDDEN,
    e.UrlNotAllowed: HTTPStatus.FORBIDDEN,
    e.UrlNotFetched: HTTPStatus.UNPROCESSABLE_ENTITY,
    e.Overloaded: HTTPStatus.TOO_MANY_REQUESTS,
    e.RateLimited: HTTPStatus.TOO_MANY_REQUESTS,
    e.BrokerUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    e.NotReady: HTTPStatus.SERVICE_UNAVAILABLE,
    e.DeadlineExceeded: HTTPStatus.GATEWAY_TIMEOUT,
    e.GenerationFailed: HTTPStatus.INTERNAL_SERVER_ERROR,
    e.ImageLost: HTTPStatus.SERVICE_UNAVAILABLE,
    e.EngineDead: HTTPStatus.SERVICE_UNAVAILABLE,
}
ERROR_BY_CODE: Mapping[str, type[e.IlvrError]] = {error.code: error for error in STATUS_BY_ERROR}

TYPE_BY_BRANCH = {
    e.RequestError: "invalid_request_error",
    e.CapacityError: "overloaded_error",
    e.EngineError: "server_error",
}
# Of what is not in the tree: a defect of the gateway, or an engine error with a code that this gateway does not know.
INTERNAL_CODE = "internal_error"
# Counted and logged, never sent: nobody is there to read it.
CLIENT_GONE = 499
HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}


class ErrorDetail(Struct, frozen=True, kw_only=True):
    """``code`` is stable; ``param`` names the field at fault, in dotted form; quote ``request_id`` in a report."""

    type: str
    code: str
    message: str
    param: str | None = None
    request_id: str = ""


class ErrorBody(Struct, frozen=True, kw_only=True):
    error: ErrorDetail


def answer_for(request: Request, error: e.IlvrError) -> Response:
    """The answer to a request that ended in an error of the tree."""
    retry_after_s = error.retry_after_s if isinstance(error, e.CapacityError) else None
    return _answer(request, type(error), error.code, str(error), param=error.param, retry_after_s=retry_after_s)


def answer_for_failed(request: Request, info: ErrorInfo) -> Response:
    """The answer to a request whose response failed before a byte of it was sent."""
    return _answer(request, ERROR_BY_CODE.get(info.code), info.code, info.message)


def error_body(info: ErrorInfo, request_id: str) -> bytes:
    """The same as JSON, for where an answer has begun and has no status left to say it."""
    kind = ERROR_BY_CODE.get(info.code)
    detail = ErrorDetail(type=_branch(kind), code=info.code, message=info.message, request_id=request_id)
    return msgspec.json.encode(ErrorBody(error=detail))


def install(app: FastAPI) -> None:
    """Every way out of a handler that is not its return value."""
    app.add_exception_handler(e.IlvrError, _on_ilvr_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ClientDisconnect, _on_client_gone)
    # Starlette sends this answer and raises the error again, so that the server logs it with its trace.
    app.add_exception_handler(Exception, _on_defect)


async def _on_ilvr_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, e.IlvrError)
    return answer_for(request, error)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return answer_for(request, invalid_request(error.errors(), skip_first="query"))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = error.detail
    if error.status_code in HTTP_CODES:
        message = f"There is no {request.method} {request.url.path} here; /docs lists what there is."
    answer = _encode(request, error.status_code, "invalid_request_error", _http_code(error.status_code), message)
    answer.headers.update(error.headers or {})
    return answer


async def _on_client_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_GONE)


async def _on_defect(request: Request, error: Exception) -> Response:
    return _encode(request, 500, "server_error", INTERNAL_CODE, "The gateway failed; its log says why.")


def _branch(kind: type[e.IlvrError] | None) -> str:
    return next((name for base, name in TYPE_BY_BRANCH.items() if kind and issubclass(kind, base)), "server_error")


def _http_code(status: int) -> str:
    return HTTP_CODES.get(status, HTTPStatus(status).phrase.lower().replace(" ", "_"))


def _answer(
    request: Request,
    kind: type[e.IlvrError] | None,
    code: str,
    message: str,
    *,
    param: str | None = None,
    retry_after_s: int | None = None,
) -> Response:
    status = STATUS_BY_ERROR[kind] if kind else HTTPStatus.INTERNAL_SERVER_ERROR
    answer = _encode(request, status, _branch(kind), code, message, param)
    if status == HTTPStatus.SERVICE_UNAVAILABLE and retry_after_s is None:
        retry_after_s = e.NotReady.default_retry_after_s
    if status == HTTPStatus.UNAUTHORIZED:
        answer.headers["WWW-Authenticate"] = 'Bearer realm="ilvr"'
    if status == HTTPStatus.REQUEST_TIMEOUT:
        answer.headers["Connection"] = "close"  # the rest of the body would hold it for as long as it likes
    if retry_after_s is not None:
        answer.headers["Retry-After"] = str(retry_after_s)
    if kind is not None and not kind.is_retryable:
        answer.headers["X-Should-Retry"] = "false"  # OpenAI's clients would send a 409 or 504 again, whatever it is
    return answer


def _encode(request: Request, status: int, kind: str, code: str, message: str, param: str | None = None) -> Response:
    request_id: str = getattr(request.state, "request_id", "")
    detail = ErrorDetail(type=kind, code=code, message=message, param=param, request_id=request_id)
    return Response(
        msgspec.json.encode(ErrorBody(error=detail)),
        status_code=status,
        media_type="application/json",
        headers={"X-Request-Id": request_id},
    )
