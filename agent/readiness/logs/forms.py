"""The forms of errors that each release had, kept over restarts: which of them are new with this one.

New is what the release before did not have. Where there is none before, or where a node went back to a
release, nothing is new: the forms of its time before were not all seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from agent.readiness.logs.follow import Place
from agent.readiness.logs.masking import example_of, template_of
from shared.durable import write_durable
from shared.errors import BadInputError
from shared.wire import Sha256, Wire

MAX_FORMS = 300
"""Of one release. What does not fit is only counted."""
MAX_RELEASES = 4
MAX_FILE = 4 << 20


class Form(Wire):
    """One kind of error. Times are wall times of the reading; `count` starts anew when its release does."""

    template: str
    example: str
    count: int
    first: float
    last: float
    new: bool = False


class Known(Wire):
    """What was seen of one release. `before` is the release that it took over from, if that is told."""

    since: float
    before: Sha256 | None = None
    forms: dict[str, Form] = {}
    more: int = 0
    """Errors of forms that did not fit."""


class _File(Wire):
    schema_version: int = 1
    current: Sha256 | None = None
    releases: dict[Sha256, Known] = {}
    places: dict[str, tuple[int, Annotated[int, Field(ge=0)]]] = {}


class LogReport(Wire):
    """For people: `new_errors` lines of new forms since this release was switched to, at `since`. `files` are
    the logs that are followed, `skipped` the bytes of them that were passed over."""

    schema_version: int = 1
    release: Sha256 | None = None
    since: float | None = None
    before: Sha256 | None = None
    new_errors: int = 0
    forms: list[Form] = []
    more: int = 0
    files: list[str] = []
    refused: list[str] = []
    skipped: int = 0


class Forms:
    """Changed in memory; `save` makes it durable. Blocking where it touches the disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._current: str | None = None
        self._releases: dict[str, Known] = {}
        self.places: dict[str, Place] | None = None
        """Where an earlier agent ended in each file; None where there was none."""

    def load(self) -> None:
        """What cannot be read is begun anew."""
        try:
            found = _File.from_bytes(self._path.read_bytes(), max_bytes=MAX_FILE)
        except (FileNotFoundError, BadInputError):
            return
        self._current, self._releases = found.current, dict(found.releases)
        self.places = {path: Place(*place) for path, place in found.places.items()}

    def save(self, places: Mapping[str, Place]) -> None:
        self.places = dict(places)
        kept = _File(
            current=self._current,
            releases=self._releases,
            places={path: (place.inode, place.offset) for path, place in places.items()},
        )
        write_durable(self._path, kept.canonical())

    def runs(self, release: str, now: float) -> bool:
        """This release is the one whose errors follow. True when it was not before."""
        if release == self._current:
            return False
        left, known = self._current, self._releases.pop(release, Known(since=now))
        back = left is not None and (
            left not in self._releases or self._releases[left].before == release
        )
        forms = {name: form.model_copy(update={"count": 0}) for name, form in known.forms.items()}
        self._releases[release] = Known(since=now, before=None if back else left, forms=forms)
        self._current = release
        while len(self._releases) > MAX_RELEASES:
            self._releases.pop(next(iter(self._releases)))
        return True

    def note(self, message: str, now: float) -> None:
        """One error of the release that runs."""
        if self._current is None:
            return
        known, template = self._releases[self._current], template_of(message)
        form = known.forms.get(template)
        if form is not None:
            form = form.model_copy(update={"count": form.count + 1, "last": now})
        elif len(known.forms) < MAX_FORMS:
            example = example_of(message)
            form = Form(template=template, example=example, count=1, first=now, last=now)
        if form is None:
            known = known.model_copy(update={"more": known.more + 1})
        else:
            known = known.model_copy(update={"forms": {**known.forms, template: form}})
        self._releases[self._current] = known

    def report(self) -> LogReport:
        """Newest forms first, those that are new with this release before the others."""
        if self._current is None:
            return LogReport()
        known = self._releases[self._current]
        before = self._releases.get(known.before) if known.before is not None else None
        old = known.forms.keys() if before is None else before.forms.keys()
        forms = [
            form.model_copy(update={"new": form.template not in old})
            for form in known.forms.values()
            if form.count
        ]
        forms.sort(key=lambda form: (not form.new, -form.last))
        return LogReport(
            release=self._current,
            since=known.since,
            before=known.before,
            new_errors=sum(form.count for form in forms if form.new),
            forms=forms,
            more=known.more,
        )
