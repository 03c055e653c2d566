"""The error tree. An error names a fact, carries a public code, and tells the way out.

OpenPeekError
├── BadRequest 400        the request cannot be understood
├── Unauthorized 401      no key, or one that does not count
├── Forbidden 403         a key that may not do this
├── NotFound 404          nothing of that id or name here
├── Conflict 409          it contradicts the present state
│   └── AlreadyExists     the name is taken
├── TooLarge 413          more bytes than the limit
├── Invalid 422           understood, and wrong
├── Busy 429              too much is waiting already; try again
└── Unavailable 503       a dependency does not answer; try again
    └── StorageFull 507   no room left; free some, then try again
"""

from typing import Any, ClassVar, Final

from domain.json_types import Json

_LONGEST_SHOWN: Final = 200


class OpenPeekError(Exception):
    """A failure that a caller can be told about."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "InternalServerError"
    retryable: ClassVar[bool] = False
    code: str = "internal_error"

    def __init__(self, message: str, *, code: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.details: dict[str, Any] = details


class BadRequest(OpenPeekError):
    """The request cannot be understood as it is."""

    status = 400
    type = "BadRequestError"
    code = "bad_request"


class Unauthorized(OpenPeekError):
    """There is no key, or the key is unknown or revoked."""

    status = 401
    type = "UnauthorizedError"
    code = "unauthorized"


class Forbidden(OpenPeekError):
    """The key is good, but it may not do this."""

    status = 403
    type = "ForbiddenError"
    code = "forbidden"


class NotFound(OpenPeekError):
    """Nothing of that id or name exists where the caller may look."""

    status = 404
    type = "NotFoundError"
    code = "not_found"

    def __init__(self, resource: str, identifier: str, hint: str = "") -> None:
        shown = identifier if len(identifier) <= _LONGEST_SHOWN else identifier[:_LONGEST_SHOWN] + "…"
        message = f"No {resource} {shown!r} was found here."
        super().__init__(f"{message} {hint}".strip(), code=f"{resource}_not_found", resource=resource, id=shown)


class Conflict(OpenPeekError):
    """The request contradicts the present state of things."""

    status = 409
    type = "ConflictError"
    code = "conflict"


class AlreadyExists(Conflict):
    """A name that must be unique is taken."""

    type = "AlreadyExistsError"
    code = "already_exists"

    def __init__(self, resource: str, name: str) -> None:
        message = f"There is already a {resource} named {name!r}. Choose another name, or use that one."
        super().__init__(message, code=f"{resource}_name_taken", resource=resource, name=name)


class TooLarge(OpenPeekError):
    """The body has more bytes than the server takes."""

    status = 413
    type = "PayloadTooLargeError"
    code = "too_large"


class Invalid(OpenPeekError):
    """The request is understood, and something in it is wrong. ``location`` is the path to it."""

    status = 422
    type = "ValidationError"
    code = "invalid"

    def __init__(
        self, message: str, *, location: tuple[str | int, ...] = (), code: str | None = None, **details: Any
    ) -> None:
        problem: dict[str, Json] = {"type": code or self.code, "location": list(location), "message": message}
        super().__init__(message, code=code, validation_errors=[problem], **details)
        self.location = location


class Busy(OpenPeekError):
    """As much is waiting as will be kept waiting. Nothing was done; the same call succeeds a little later."""

    status = 429
    type = "TooManyRequestsError"
    retryable = True
    code = "busy"

    def __init__(self, message: str, *, retry_after_seconds: int) -> None:
        super().__init__(
            f"{message} Try again in {retry_after_seconds} s.", retry_after_seconds=retry_after_seconds, retryable=True
        )


class Unavailable(OpenPeekError):
    """A dependency does not answer. Nothing is lost; the same call may succeed in a moment."""

    status = 503
    type = "ServiceUnavailableError"
    retryable = True
    code = "unavailable"

    def __init__(self, dependency: str, reason: str, *, retry_after_seconds: int = 2, code: str | None = None) -> None:
        super().__init__(
            f"The {dependency} does not answer: {reason}. Try again in {retry_after_seconds} s.",
            code=code or f"{dependency.replace(' ', '_')}_unavailable",
            dependency=dependency,
            retry_after_seconds=retry_after_seconds,
            retryable=True,
        )
        self.retry_after_seconds = retry_after_seconds


class StorageFull(Unavailable):
    """There is no room left on the disk."""

    status = 507
    type = "InsufficientStorageError"

    def __init__(self, dependency: str, reason: str) -> None:
        super().__init__(dependency, reason, retry_after_seconds=30, code="storage_full")


class WeightsMissing(Unavailable):
    """The model's weights are not on this machine. Nothing is lost: work goes on once they are."""

    type = "InferenceServiceUnavailableError"

    def __init__(self, model_id: str, ways: str) -> None:
        super().__init__("model", f"the weights of {model_id} are not on this machine", retry_after_seconds=30)
        self.code = "model_weights_missing"
        self.message = f"The weights of {model_id} are not on this machine. {ways}"
        self.args = (self.message,)
        self.details |= {"model_id": model_id, "ways": ways}


class WeightsBroken(Unavailable):
    """Weights were found, and they are not what the model needs. ``problem`` names the tensors or the file."""

    type = "InferenceServiceUnavailableError"

    def __init__(self, model_id: str, problem: str) -> None:
        super().__init__("model", f"the weights of {model_id} cannot be used", retry_after_seconds=30)
        self.code = "model_weights_broken"
        self.message = f"The weights of {model_id} cannot be used: {problem}"
        self.args = (self.message,)
        self.details |= {"model_id": model_id, "problem": problem}


class EmbeddingsServerAway(WeightsMissing):
    """The operator's embeddings server does not answer now: as with weights that are missing, work waits for it."""

    def __init__(self, model_id: str, reason: str) -> None:
        Unavailable.__init__(self, "embeddings server", reason)
        self.reason = reason
        self.details["model_id"] = model_id


class EmbeddingsServerWrong(WeightsBroken):
    """The embeddings server answered, and not with this model's vectors: work waits until it has been put right."""

    def __init__(self, model_id: str, problem: str) -> None:
        super().__init__(model_id, problem)
        self.code = "embeddings_server_wrong"
        self.message = f"The embeddings server cannot be used for {model_id}: {problem}"
        self.args = (self.message,)


class ObjectFailed(OpenPeekError):
    """One object cannot be processed, now or later; its neighbours can. ``code`` is from a closed list."""

    status = 422
    type = "ProcessingError"
    code = "EXTRACTION_FAILED"
