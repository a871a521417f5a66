"""How a webhook proves whom it is from, and how its receiver checks that.

`Rollcall-Timestamp` is when it was sent, in whole seconds since the epoch. `Rollcall-Signature` is `v1=` and the
HMAC-SHA256, in hex, over that text, a full stop, and the body as it was sent. The time is under the signature, so
that a recorded request is good for minutes and no longer.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from shared.errors import ExpiredError, UntrustedError

TIMESTAMP = "Rollcall-Timestamp"
SIGNATURE = "Rollcall-Signature"
VERSION = "v1="


def sign_webhook(secret: bytes, body: bytes, now: float) -> dict[str, str]:
    """The two headers."""
    timestamp = str(int(now))
    return {TIMESTAMP: timestamp, SIGNATURE: VERSION + _mac(secret, timestamp, body)}


def verify_webhook(
    secret: bytes, headers: Mapping[str, str], body: bytes, now: float, *, tolerance_s: float = 300
) -> None:
    """For receivers. `headers` by any case of their names; `body` as it came, before anything parsed it.

    Raises UntrustedError for a signature that is missing or another's, ExpiredError for a request of another time.
    """
    found = {name.lower(): value for name, value in headers.items()}
    timestamp, said = found.get(TIMESTAMP.lower(), ""), found.get(SIGNATURE.lower(), "")
    known = VERSION + _mac(secret, timestamp, body)
    if not hmac.compare_digest(known.encode(), said.encode("utf-8", "replace")):
        raise UntrustedError("the webhook's signature does not fit its body and time")
    if not timestamp.isdigit() or abs(now - int(timestamp)) > tolerance_s:
        raise ExpiredError("the webhook was sent at another time: it is late, or sent again")


def _mac(secret: bytes, timestamp: str, body: bytes) -> str:
    text = timestamp.encode("utf-8", "replace") + b"." + body
    return hmac.new(secret, text, hashlib.sha256).hexdigest()
