"""Every error that Freehold raises on purpose.

    FreeholdError
    ├── Refused                 the request is at fault (4xx)
    │   ├── BadRequest          400  cannot be read, or asks for something with a wrong value
    │   │   ├── Unsupported     400  understood, but neither Freehold nor this engine does it
    │   │   ├── ContextExceeded 400  the prompt is longer than the context
    │   │   └── Sensitive       400  holds a secret or personal data that may not go there
    │   ├── Unauthenticated     401  no key, or one that is unknown, revoked or past its end
    │   ├── Forbidden           403  the key is good, the caller may not do this
    │   ├── NotFound            404  no such path
    │   │   └── ModelNotFound   404  no such model
    │   ├── MethodNotAllowed    405
    │   ├── TooSlow             408  the request did not arrive in time
    │   ├── Conflict            409  it cannot be done as things stand
    │   ├── BodyTooLarge        413
    │   ├── WrongMediaType      415
    │   ├── RateLimited         429  the caller has as many calls or tokens as it may have
    │   │   ├── BudgetSpent     429  the caller or its team has used what it may have for the day or the month
    │   │   ├── QueueFull       429  the line is full, and this call is the last in it
    │   │   └── LockedOut       429  too many wrong keys came, and nobody there may try for a while
    │   ├── HeadersTooLarge     431
    │   └── UpstreamRefused     4xx  an upstream refused the request, and its reason is the message
    ├── Failed                  our side is at fault (5xx)
    │   ├── EngineFailed        502  the engine died or broke off
    │   ├── EngineUnready       503  the engine is not there, and does not come
    │   ├── Stopping            503  the gateway takes no new calls
    │   ├── Overloaded          503  more is arriving than there is room for
    │   └── Unaccountable       503  the ledger cannot be written, so nothing is served
    └── CannotDo                a command cannot do what it was asked (exit code 2)
        ├── BadConfig           ├── HomeInUse      ├── NotRunning
        ├── BadModel            ├── PortTaken      ├── SealMissing
        ├── AcquireFailed       ├── UnsafeBind     ├── StoreFailed
        ├── BadTask             ├── BadTraffic     ├── NotDecidable
        └── ChainBroken         └── WrongKey

Each carries a stable ``code`` for programs, an HTTP ``status``, a message that says what and why, and a
``hint`` that says what to do next.
"""

from __future__ import annotations


class FreeholdError(Exception):
    """The root. ``str(error)`` is a sentence for a person."""

    code = "internal_error"
    status = 500
    hint = ""
    retry_after: int | None = None
    headers: tuple[tuple[str, str], ...] = ()  # of the answer that says it

    def __init__(
        self, message: str, *, hint: str | None = None, param: str | None = None, retry_after: int | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ):  # fmt: skip
        super().__init__(message)
        self.headers = headers
        self.message = message
        self.param = param
        if retry_after is not None:
            self.retry_after = retry_after
        if hint is not None:
            self.hint = hint

    def sentence(self) -> str:
        """The message and the next step, as one paragraph."""
        return f"{self.message} {self.hint}".strip()


class Refused(FreeholdError):
    """The request is at fault."""

    code = "invalid_request"
    status = 400


class BadRequest(Refused):
    """The request cannot be read, or a field has a value it may not have."""


class Unsupported(BadRequest):
    """The request is understood, but asks for something that is not done here."""

    code = "unsupported"


class ContextExceeded(BadRequest):
    """The prompt has more tokens than the model's context holds."""

    code = "context_length_exceeded"
    hint = "Shorten the prompt, or raise engine.context in freehold.toml if the model allows it."

    def __init__(self, prompt_tokens: int, limit: int, *, hint: str | None = None):
        super().__init__(f"The prompt has {prompt_tokens} tokens and the context holds {limit}.", hint=hint)


class Sensitive(BadRequest):
    """The request holds a secret or personal data that may not go where it is sent. The message says of which kind it
    is and where it stands, and never what it is."""

    code = "sensitive_content"
    hint = "Take it out, or have whoever runs Freehold allow or mask it in [guard]; see docs/guides/guard.md."


class Unauthenticated(Refused):
    """No key, or one that is unknown, revoked or past its end."""

    code = "invalid_api_key"
    status = 401
    hint = "Send a key as 'Authorization: Bearer fh_...' or 'x-api-key: fh_...'; 'freehold keys create NAME' makes one."


class Forbidden(Refused):
    """The caller is known and may not do this."""

    code = "permission_denied"
    status = 403


class NotFound(Refused):
    """No such path."""

    code = "not_found"
    status = 404


class ModelNotFound(NotFound):
    """No model of that name is served."""

    code = "model_not_found"


class MethodNotAllowed(Refused):
    """The path exists, but not with this method."""

    code = "method_not_allowed"
    status = 405


class TooSlow(Refused):
    """The request did not arrive in time."""

    code = "request_timeout"
    status = 408


class Conflict(Refused):
    """The request is good, but what it asks for cannot be done as things stand."""

    code = "conflict"
    status = 409


class BodyTooLarge(Refused):
    """The body is over the limit."""

    code = "request_too_large"
    status = 413


class WrongMediaType(Refused):
    """The body is not JSON, or is compressed."""

    code = "unsupported_media_type"
    status = 415


class RateLimited(Refused):
    """The caller has as many calls as it may have, at once or in a minute, or as many tokens in a minute."""

    code = "rate_limit_exceeded"
    status = 429
    hint = "Send it again when Retry-After has passed."
    retry_after = 1


class BudgetSpent(RateLimited):
    """The caller or its team has used what it may have for the day or the month."""

    code = "budget_spent"
    hint = "Send it again when Retry-After has passed, or ask whoever runs Freehold for more."


class QueueFull(RateLimited):
    """The line is full, and this call is the last in it."""

    code = "queue_full"


class LockedOut(RateLimited):
    """Too many wrong keys came: from this address, or from all together; nobody there may log in for a while."""

    code = "locked_out"
    hint = "Try again when Retry-After has passed."


class HeadersTooLarge(Refused):
    """The request line and headers are over the limit."""

    code = "headers_too_large"
    status = 431


class UpstreamRefused(Refused):
    """An upstream refused the request; ``status``, ``code`` and message are its own."""

    code = "upstream_refused"

    def __init__(self, message: str, *, status: int, code: str = "", param: str | None = None, retry_after: int | None):
        super().__init__(message, param=param, retry_after=retry_after)
        self.status = status
        self.code = code or self.code


class Failed(FreeholdError):
    """Our side is at fault."""


class EngineFailed(Failed):
    """The engine died or broke off before its answer was complete."""

    code = "engine_failed"
    status = 502
    hint = "The engine is being restarted; send the request again."


class EngineUnready(Failed):
    """The engine is not there, and does not come."""

    code = "engine_unready"
    status = 503
    hint = "Send the request again in a few seconds; /readyz says when the engine is back."
    retry_after = 2


class Stopping(Failed):
    """The gateway is stopping and takes no new calls."""

    code = "stopping"
    status = 503
    hint = "Send the request to another instance, or again when this one is back."
    retry_after = 5


class Overloaded(Failed):
    """More is arriving than there is room for."""

    code = "overloaded"
    status = 503
    hint = "Send it again in a moment."
    retry_after = 1


class Unaccountable(Failed):
    """The ledger cannot be written. What cannot be accounted for is not served."""

    code = "ledger_unavailable"
    status = 503
    hint = "Free space where the ledger is kept, or see 'freehold status'."
    retry_after = 5


class CannotDo(FreeholdError):
    """A command cannot do what it was asked to do."""

    code = "cannot_do"


class BadConfig(CannotDo):
    """A setting is unknown, has a wrong value, or its file cannot be read."""

    code = "bad_config"


class BadModel(CannotDo):
    """A model file is missing, damaged or not what it was said to be."""

    code = "bad_model"


class AcquireFailed(CannotDo):
    """A model could not be fetched."""

    code = "acquire_failed"


class HomeInUse(CannotDo):
    """Another server runs on this home."""

    code = "home_in_use"


class PortTaken(CannotDo):
    """The address is in use, or may not be used."""

    code = "port_taken"


class UnsafeBind(CannotDo):
    """Listening beyond this machine needs TLS or a proxy in front."""

    code = "unsafe_bind"


class NotRunning(CannotDo):
    """The command needs a running server and there is none."""

    code = "not_running"
    hint = "Start one with 'freehold up'."


class SealMissing(CannotDo):
    """``seal = "required"`` and the kernel lacks a layer."""

    code = "seal_missing"


class StoreFailed(CannotDo):
    """The database cannot be opened or written."""

    code = "store_failed"


class WrongKey(CannotDo):
    """Recorded calls are encrypted, and the key is missing or another one."""

    code = "wrong_key"
    hint = (
        "Set traffic.key_file or FREEHOLD_TRAFFIC_KEY to the right key; to exchange keys, give "
        "'freehold traffic encrypt' the old one too."
    )


class BadTask(CannotDo):
    """A task's file, or its scorer, is not as it must be."""

    code = "bad_task"


class BadTraffic(CannotDo):
    """Recorded calls cannot be read, or are not enough for what was asked."""

    code = "bad_traffic"


class NotDecidable(CannotDo):
    """The calls do not bear a verdict: too few groups, or nothing to compare."""

    code = "not_decidable"


class ChainBroken(CannotDo):
    """The audit chain does not hold, or does not agree with a signed checkpoint."""

    code = "chain_broken"
    hint = "'freehold audit verify' names the first bad event. Put the database back from a copy."
