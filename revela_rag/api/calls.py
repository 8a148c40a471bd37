"""One request to embeddings behind an API: not too early, not for ever, and again where the reason may pass."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

__all__ = ["Pace", "call", "is_transient", "status_of"]

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

_LONGEST_WAIT = 60.0
_LONGEST_ASKED = 600.0  # seconds that a server may ask for
_TRANSIENT = {408, 409, 423, 425, 429, 529}
_PASSING = ("timeout", "timedout", "connect", "throttl", "ratelimit", "overload", "unavailable", "toomanyrequests")
_FINAL = (
    TypeError,
    AttributeError,
    NameError,
    LookupError,
    ImportError,
    NotImplementedError,
    AssertionError,
    ValueError,
)
_back_off = wait_exponential_jitter(initial=1, max=_LONGEST_WAIT, jitter=1)


class Pace:
    """At most so much a minute, spread evenly; shared by threads.

    Args:
        per_minute: how much; None sets no limit.
    """

    def __init__(self, per_minute: float | None) -> None:
        self._seconds = 60 / per_minute if per_minute else 0.0
        self._free = 0.0
        self._lock = threading.Lock()

    def wait(self, amount: float) -> None:
        """Come back when ``amount`` more may be spent."""
        if not self._seconds:
            return
        with self._lock:
            now = time.monotonic()
            start = max(now, self._free)
            self._free = start + amount * self._seconds
        if start > now:
            time.sleep(start - now)

    def __getstate__(self) -> float:
        return self._seconds

    def __setstate__(self, seconds: float) -> None:
        self._seconds, self._free, self._lock = seconds, 0.0, threading.Lock()


def call(send: Callable[[], Answer], *, retries: int, timeout: float | None, before: Callable[[], None]) -> Answer:
    """The answer to a request.

    Args:
        send: makes the request.
        retries: how often it is made again where it failed for a reason that may pass.
        timeout: seconds to wait for an answer; the thread that waits for a later one is left to itself.
        before: called before each attempt.

    Raises:
        Exception: what the last attempt raised; TimeoutError where no answer came.
    """

    def attempt() -> Answer:
        before()
        return send() if timeout is None else _within(timeout, send)

    retrying = Retrying(
        stop=stop_after_attempt(1 + retries),
        wait=_wait,
        retry=retry_if_exception(is_transient),
        before_sleep=_told,
        reraise=True,
    )
    return retrying(attempt)


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later.

    By its HTTP status where it has one; else every error may pass but those of programs and values. A quota that is
    used up is a 429, too, and does not pass.
    """
    if not isinstance(error, Exception) or "insufficient_quota" in str(error):
        return False
    status = status_of(error)
    if status is not None:
        return status in _TRANSIENT or status >= 500
    if isinstance(error, OSError | json.JSONDecodeError):
        return True
    name = type(error).__name__.lower()
    return any(word in name for word in _PASSING) or not isinstance(error, _FINAL)


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error of any client library carries."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        response = response.get("ResponseMetadata", {})
        return response.get("HTTPStatusCode") if isinstance(response.get("HTTPStatusCode"), int) else None
    values = (
        getattr(of, name, None) for of in (error, response) for name in ("status_code", "http_status", "status", "code")
    )
    return next((value for value in values if isinstance(value, int) and 100 <= value < 600), None)


def _wait(state: RetryCallState) -> float:
    """What the server asks for, or twice as long as last time."""
    error = state.outcome.exception() if state.outcome else None
    return max(_back_off(state), min(_asked(error), _LONGEST_ASKED))


def _asked(error: BaseException | None) -> float:
    headers = getattr(getattr(error, "response", None), "headers", None) or getattr(error, "headers", None) or {}
    try:
        return max(0.0, float(headers.get("retry-after") or headers.get("Retry-After") or 0))
    except (AttributeError, TypeError, ValueError):  # a date
        return 0.0


def _told(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    wait = state.next_action.sleep if state.next_action else 0.0
    logger.info("Attempt %d failed (%s: %s); again in %.1f s", state.attempt_number, type(error).__name__, error, wait)


def _within(seconds: float, send: Callable[[], Answer]) -> Answer:
    answered = threading.Event()
    found: dict[str, Any] = {}

    def run() -> None:
        try:
            found["answer"] = send()
        except BaseException as error:
            found["error"] = error
        answered.set()

    threading.Thread(target=run, name="revela-request", daemon=True).start()
    if not answered.wait(seconds):
        raise TimeoutError(f"no answer within {seconds:g} seconds")
    if "error" in found:
        raise found["error"]
    answer: Answer = found["answer"]
    return answer
