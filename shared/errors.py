"""One root error. It is raised where something is wrong and reported once, at the boundary."""

from __future__ import annotations

from typing import ClassVar


class RollcallError(Exception):
    """Something an operator or a peer can be told.

    `code` is stable and goes into logs, problem documents and tests; `remedy` says what to do next.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} ({self.remedy})" if self.remedy else self.message


def first_known(group: BaseExceptionGroup[BaseException]) -> RollcallError | None:
    """The first RollcallError that a task group ended with, however deep it sits; None without one."""
    for error in group.exceptions:
        if isinstance(error, RollcallError):
            return error
        if isinstance(error, BaseExceptionGroup) and (known := first_known(error)) is not None:
            return known
    return None


class UsageError(RollcallError):
    """The caller asked for something that does not exist or does not fit."""

    code = "usage"
    exit_code = 2
    http_status = 400


class ConfigError(UsageError):
    """A configuration file is missing, unreadable or wrong."""

    code = "config"


class BadInputError(RollcallError):
    """Bytes from outside that are too large, too deep, malformed or of the wrong shape."""

    code = "bad-input"
    http_status = 400


class TooLargeError(BadInputError):
    """A body above its cap; nothing more of it was read."""

    code = "too-large"
    http_status = 413


class UntrustedError(RollcallError):
    """A signature, certificate, hash or token that does not hold."""

    code = "untrusted"
    http_status = 403


class ExpiredError(UntrustedError):
    """It was signed by the right key, and its time is over."""

    code = "expired"


class NotFoundError(RollcallError):
    """Named, well-formed, and not there."""

    code = "not-found"
    http_status = 404


class ConflictError(RollcallError):
    """Right in itself, but not now: something else is in the way."""

    code = "conflict"
    http_status = 409


class UnavailableError(RollcallError):
    """The other side could not be reached or did not answer in time."""

    code = "unavailable"
    http_status = 503


class CommandError(RollcallError):
    """A child process failed, hung or printed what could not be understood."""

    code = "command"
