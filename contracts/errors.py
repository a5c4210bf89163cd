"""Every failure a caller can see.

IlvrError
├── RequestError             the request is at fault; sending it again cannot help
│   ├── MalformedBody
│   ├── InvalidRequest
│   ├── NotSupportedYet
│   ├── PromptTooLong
│   ├── BodyTooLarge
│   ├── BodyTooSlow
│   ├── ImageTooLarge
│   ├── NotAnImage
│   ├── ImageNotFound
│   ├── ModelNotFound
│   ├── ResponseNotFound
│   ├── ResponseNotFinished
│   ├── IdempotencyConflict
│   ├── ResponseCancelled    where an answer cannot say so otherwise
│   ├── NotAuthenticated
│   ├── NotPermitted         the key is right, its scopes do not include this
│   ├── UrlNotAllowed
│   └── UrlNotFetched
├── CapacityError            nothing was started; the same request may work later
│   ├── Overloaded
│   ├── RateLimited          this key only
│   ├── BrokerUnavailable
│   └── NotReady
├── EngineError              work was started and lost
│   ├── DeadlineExceeded     this request only: its own time is up
│   ├── GenerationFailed     this request only
│   ├── ImageLost            this request only: a picture of it is gone, although it was kept for it
│   └── EngineDead           every request; the process has to be replaced
└── StartError               the process refuses to start; never an HTTP answer
    ├── BadSettings
    └── BadCheckpoint

``code`` is public API: it is the JSON error code and the metric label. HTTP status codes are not here;
``service.errors`` owns them.
"""

from typing import ClassVar


class IlvrError(Exception):
    """Root of the tree. ``str(error)`` is one sentence for a person that says what to do.

    ``param`` names the request field at fault, in dotted form (``images.0.data``), if one is.
    """

    code: ClassVar[str]
    is_retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class RequestError(IlvrError): ...


class MalformedBody(RequestError):
    code = "malformed_body"


class InvalidRequest(RequestError):
    code = "invalid_request"


class NotSupportedYet(RequestError):
    code = "not_supported_yet"


class PromptTooLong(RequestError):
    code = "prompt_too_long"


class BodyTooLarge(RequestError):
    code = "body_too_large"


class BodyTooSlow(RequestError):
    code = "body_too_slow"


class ImageTooLarge(RequestError):
    code = "image_too_large"


class NotAnImage(RequestError):
    code = "not_an_image"


class ImageNotFound(RequestError):
    code = "image_not_found"


class ModelNotFound(RequestError):
    code = "model_not_found"


class ResponseNotFound(RequestError):
    code = "response_not_found"


class ResponseNotFinished(RequestError):
    code = "response_not_finished"


class IdempotencyConflict(RequestError):
    code = "idempotency_conflict"


class ResponseCancelled(RequestError):
    code = "response_cancelled"


class NotAuthenticated(RequestError):
    code = "not_authenticated"


class NotPermitted(RequestError):
    code = "not_permitted"


class UrlNotAllowed(RequestError):
    code = "url_not_allowed"


class UrlNotFetched(RequestError):
    code = "url_not_fetched"


class CapacityError(IlvrError):
    """``retry_after_s``: whole seconds after which to try again."""

    is_retryable = True
    default_retry_after_s: ClassVar[int] = 1

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(message, param=param)
        self.retry_after_s = self.default_retry_after_s if retry_after_s is None else retry_after_s


class Overloaded(CapacityError):
    code = "overloaded"


class RateLimited(CapacityError):
    code = "rate_limited"


class BrokerUnavailable(CapacityError):
    code = "broker_unavailable"
    default_retry_after_s = 5


class NotReady(CapacityError):
    code = "not_ready"
    default_retry_after_s = 10


class EngineError(IlvrError):
    is_retryable = True


class DeadlineExceeded(EngineError):
    code = "deadline_exceeded"
    is_retryable = False


class GenerationFailed(EngineError):
    code = "generation_failed"


class ImageLost(EngineError):
    code = "image_lost"


class EngineDead(EngineError):
    code = "engine_dead"


class StartError(IlvrError): ...


class BadSettings(StartError):
    code = "bad_settings"


class BadCheckpoint(StartError):
    code = "bad_checkpoint"
