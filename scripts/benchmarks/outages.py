"""What a gateway answered, over time, and how long it did not: pure arithmetic on a prober's records.

An outage lasts from the last good answer before it to the first good answer after it; so the prober's
own period is in it, the same for everybody. A stretch that is not over by a good answer is no outage
with an end, and an error.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any

from shared.errors import BadInputError, RollcallError


class Answer(StrEnum):
    """To `GET /readyz`."""

    GOOD = "good"
    """200, application/json, `"ready": true`."""
    UNREADY = "unready"
    """JSON that says anything else: starting, draining."""
    STRANGE = "strange"
    """HTTP, but not OpenClaw's: unknown paths answer 200 with HTML."""
    REFUSED = "refused"
    BROKEN = "broken"
    """Connected, and no answer in time."""


@dataclass(frozen=True)
class Asked:
    """One answer, and when it was there: seconds of the system's monotonic clock."""

    at: float
    answer: Answer


@dataclass(frozen=True)
class Silence:
    """All outages of one record. `gaps` are the seconds of each, in order; `by_answer` shares them out,
    every moment to the answer that was the last one before it, or to the first bad one after a good."""

    gaps: tuple[float, ...]
    span: float
    """From the beginning of the first to the end of the last: longer than `seconds` when it flapped."""
    by_answer: dict[str, float]

    @property
    def seconds(self) -> float:
        return sum(self.gaps)

    def document(self) -> dict[str, Any]:
        return {
            "seconds": round(self.seconds, 3),
            "span_s": round(self.span, 3),
            "gaps_s": [round(gap, 3) for gap in self.gaps],
            "by_answer_s": {name: round(spent, 3) for name, spent in self.by_answer.items()},
        }


def parse(lines: Iterable[str]) -> list[Asked]:
    """`SECONDS ANSWER` a line, as the prober writes them; a last line that was cut short is left out."""
    found = []
    for line in lines:
        if not line.endswith("\n"):
            break
        at, _, answer = line.strip().partition(" ")
        try:
            found.append(Asked(float(at), Answer(answer)))
        except ValueError:
            raise BadInputError(f"the prober wrote {line!r}") from None
    return found


def silence(asked: Sequence[Asked]) -> Silence:
    """Raises RollcallError unless the first answer and the last one are good."""
    if not asked or {asked[0].answer, asked[-1].answer} != {Answer.GOOD}:
        raise RollcallError("the gateway was not ready when its watching began or ended")
    gaps: list[float] = []
    shares: defaultdict[str, float] = defaultdict(float)
    first = last = began = asked[0].at
    for before, now in pairwise(asked):
        down_before, down_now = before.answer is not Answer.GOOD, now.answer is not Answer.GOOD
        if down_now and not down_before:
            began = before.at
            first = began if not gaps else first
        if down_before or down_now:
            whose = before if down_before else now
            shares[whose.answer.value] += now.at - before.at
        if down_before and not down_now:
            last = now.at
            gaps.append(last - began)
    return Silence(tuple(gaps), last - first if gaps else 0.0, dict(shares))
