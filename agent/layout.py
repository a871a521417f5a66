"""Where things are below the agent's home (DESIGN.md, 3)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shared.durable import private_directory, sweep_temporary
from shared.tls import TlsFiles


@dataclass(frozen=True)
class Layout:
    home: Path
    store: Path | None = None

    @property
    def config(self) -> Path:
        return self.home / "agent.toml"

    @property
    def identity(self) -> Path:
        return self.home / "identity"

    @property
    def node_file(self) -> Path:
        return self.identity / "node.json"

    @property
    def message_key(self) -> Path:
        return self.identity / "message.key"

    @property
    def fleet_file(self) -> Path:
        return self.identity / "fleet.json"

    @property
    def roster_file(self) -> Path:
        return self.identity / "roster.dsse"

    @property
    def tls(self) -> TlsFiles:
        return TlsFiles(self.identity / "tls.pem", self.identity / "authorities.pem")

    @property
    def next_message_key(self) -> Path:
        """Made by a change of keys, and the message key once the roster names it."""
        return self.identity / "message.next.key"

    @property
    def tuf(self) -> Path:
        return self.identity / "tuf"

    @property
    def releases(self) -> Path:
        return self.store or self.home / "releases"

    @property
    def current(self) -> Path:
        return self.home / "current"

    @property
    def bookmarks(self) -> Path:
        return self.home / "bookmarks"

    @property
    def journal(self) -> Path:
        return self.home / "journal"

    @property
    def service(self) -> Path:
        return self.home / "service"

    @property
    def database(self) -> Path:
        return self.home / "agent.db"

    @property
    def addresses(self) -> Path:
        """Where peers answered last: hints for the next start."""
        return self.home / "addresses.json"

    @property
    def socket(self) -> Path:
        return self.home / "agent.sock"

    @property
    def lock(self) -> Path:
        return self.home / "agent.lock"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def scratch(self) -> Path:
        """Homes of npm's runs, each with a name that cannot be guessed and an owner of its own."""
        return self.home / "scratch"

    @property
    def empty(self) -> Path:
        return self.home / "empty"

    @property
    def versions(self) -> Path:
        return self.home / "versions"

    @property
    def active(self) -> Path:
        return self.home / "active"

    @property
    def launcher(self) -> Path:
        return self.home / "launcher"

    def sweep(self) -> None:
        """Leftovers of an agent that was killed; only under the home's lock."""
        for folder in (self.home, self.identity, self.journal, self.service, self.bookmarks):
            sweep_temporary(folder)
        for folder in self.bookmarks.iterdir():
            sweep_temporary(folder)

    def make(self) -> None:
        for path in (
            self.home,
            self.identity,
            self.versions,
            self.bookmarks,
            self.journal,
            self.service,
            self.logs,
            self.scratch,
            self.empty,
        ):
            private_directory(path)
        self.releases.mkdir(mode=0o755, parents=True, exist_ok=True)

    def share(self) -> None:
        """Let another account through to the releases: it may enter the home and list nothing. Files are
        closed to it one by one, agent.db and the lock among them; the launcher must stay a program."""
        for path in self.home.iterdir():
            if path.is_file() and not path.is_symlink():
                path.chmod(0o755 if path == self.launcher else 0o600)
        for path in (self.home, self.scratch, self.empty):
            path.chmod(0o711)
        self.releases.chmod(0o755)
