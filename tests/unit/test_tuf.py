"""What operators signed and what agents take: the TUF client against honest and hostile repositories."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata

from coordinator.bundle import Bundle
from coordinator.ceremony import Change, add_release, begin, change, withdraw
from coordinator.cli.shown import describe
from coordinator.home import make_next_keys, open_home
from coordinator.repository import Repository
from shared.canonical import sha256_hex
from shared.errors import (
    BadInputError,
    ConflictError,
    ExpiredError,
    NotFoundError,
    RollcallError,
    UnavailableError,
    UntrustedError,
)
from shared.keys import SealedKey, SigningKey
from shared.metadata import (
    FLEET,
    moment,
    new_targets,
    online_key,
    read_targets,
    read_timestamp,
    sign,
    to_bytes,
)
from shared.tufclient import TrustView, TufClient
from tests.conftest import ManualClock
from tests.support.tufkit import URL, Operator, SignedRepository, manifest_of

DAY = 86400.0


@pytest.fixture
def signed(tmp_path: Path) -> SignedRepository:
    return SignedRepository(tmp_path)


def client_of(signed: SignedRepository, folder: Path) -> TufClient:
    client = TufClient.create(folder / "client", signed.first_root)
    client.refresh(signed.repository.read)
    return client


def refreshed(client: TufClient, signed: SignedRepository) -> TrustView:
    return client.refresh(signed.repository.read)[0]


def test_a_release_is_trusted_once_operators_signed_it(
    signed: SignedRepository, tmp_path: Path
) -> None:
    client = client_of(signed, tmp_path)
    release = signed.release("2026.9.6")
    view = refreshed(client, signed)
    entry = view.release(release.id)
    assert client.target(entry, signed.repository.read) == release.manifest.canonical()
    assert client.kept(release.id) == release.manifest.canonical()
    with pytest.raises(UntrustedError, match="not among those"):
        view.release("0" * 64)
    signed.publish(withdraw(signed.published, "2026.9.6", signed.clock.now()))
    with pytest.raises(UntrustedError, match="not among those"):
        refreshed(client, signed).release(release.id)
    assert client.kept(release.id), "what runs already can still be looked at, and rolled back to"


def thief_of(signed: SignedRepository) -> Callable[[str, bytes], None]:
    """Writes into the stolen coordinator's repository."""

    def write(path: str, raw: bytes) -> None:
        (signed.paths.repository / path).write_bytes(raw)

    return write


def publish_as_thief(signed: SignedRepository, targets: bytes, version: int) -> None:
    """Everything that the online keys can do: a fresh snapshot and timestamp over these targets."""
    thief_of(signed)(f"{version}.targets.json", targets)
    repository = signed.repository
    repository.targets = read_targets(targets)
    repository._sign_online(new_snapshot=True)


@pytest.mark.parametrize("key", ["online", "roster", "own"])
def test_a_stolen_coordinator_cannot_add_a_release(
    signed: SignedRepository, tmp_path: Path, key: str
) -> None:
    """Fault 33: whatever it signs with, its targets are not the operators'."""
    client = client_of(signed, tmp_path)
    keys = signed.ring.current
    forger = {"online": keys.online, "roster": keys.roster, "own": SigningKey.generate()}[key]
    raw = b'{"name": "evil"}'
    forged = new_targets([("evil.release.json", raw)], 2e9, base=signed.published.targets.signed)
    sign(forged, [forger])
    thief_of(signed)(f"targets/{sha256_hex(raw)}.evil.release.json", raw)
    publish_as_thief(signed, to_bytes(forged), forged.signed.version)
    with pytest.raises(UntrustedError, match="refused"):
        refreshed(client, signed)
    assert set(client.view().targets) == {FLEET}  # type: ignore[union-attr]


def test_a_stolen_coordinator_cannot_change_a_signed_release(
    signed: SignedRepository, tmp_path: Path
) -> None:
    client = client_of(signed, tmp_path)
    release = signed.release("2026.9.6")
    path = f"targets/{release.id}.2026.9.6.release.json"
    evil = release.manifest.canonical().replace(b">=24", b">=25")
    thief_of(signed)(path, evil)
    entry = refreshed(client, signed).release(release.id)
    with pytest.raises(UntrustedError, match="not what was signed"):
        client.target(entry, signed.repository.read)


def test_older_metadata_is_not_taken_back(signed: SignedRepository, tmp_path: Path) -> None:
    """Rollback attack: the withdrawn release cannot be brought back with what was signed before."""
    backup = tmp_path / "backup"
    release = signed.release("2026.9.6")
    shutil.copytree(signed.paths.repository, backup)
    client = client_of(signed, tmp_path)
    signed.publish(withdraw(signed.published, "2026.9.6", signed.clock.now()))
    refreshed(client, signed)

    def old(path: str) -> bytes:
        try:
            return (backup / path).read_bytes()
        except FileNotFoundError:
            raise NotFoundError(path) from None

    with pytest.raises(UntrustedError, match="refused"):
        client.refresh(old)
    publish_as_thief(signed, (backup / "2.targets.json").read_bytes(), 2)
    with pytest.raises(UntrustedError, match="refused"):
        refreshed(client, signed)
    with pytest.raises(UntrustedError):
        client.view().release(release.id)  # type: ignore[union-attr]


def test_frozen_metadata_expires_and_then_nothing_is_installed(tmp_path: Path) -> None:
    """Fault 25: a coordinator that hands out the same timestamp for ever."""
    clock = ManualClock(now=1_600_000_000)
    signed = SignedRepository(tmp_path, clock=clock)
    with pytest.raises(ExpiredError, match="expired"):
        client_of(signed, tmp_path)


def test_the_cache_tells_when_it_is_too_old(signed: SignedRepository, tmp_path: Path) -> None:
    client = client_of(signed, tmp_path)
    view = refreshed(client, signed)
    view.check_fresh(signed.clock.now() + 0.9 * DAY)
    with pytest.raises(ExpiredError, match="expired"):
        view.check_fresh(signed.clock.now() + 1.1 * DAY)


def test_the_coordinator_keeps_timestamp_and_snapshot_young(tmp_path: Path) -> None:
    clock = ManualClock()
    signed = SignedRepository(tmp_path, clock=clock)
    repository = signed.repository
    assert not repository.keep_fresh()
    for days, snapshots in ((0.6, 1), (3.5, 2)):
        clock.advance(days * DAY)
        assert repository.keep_fresh()
        timestamp = read_timestamp(repository.read("timestamp.json")).signed
        assert timestamp.expires.timestamp() > clock.now() + 0.9 * DAY
        assert timestamp.snapshot_meta.version == snapshots


def test_the_coordinator_knows_when_what_operators_signed_expires(tmp_path: Path) -> None:
    clock = ManualClock()
    repository = SignedRepository(tmp_path, clock=clock).repository
    days = {name: (ends - clock.now()) / DAY for name, ends in repository.expiries().items()}
    assert days == {"root": pytest.approx(365, abs=1), "targets": pytest.approx(180, abs=10)}
    (authority,) = repository.authority_expiries()
    assert (authority - clock.now()) / DAY == pytest.approx(3650, abs=2)


def test_the_repository_is_the_same_after_a_restart(
    signed: SignedRepository, tmp_path: Path
) -> None:
    release = signed.release("2026.9.6")
    again = type(signed.repository)(
        signed.paths.repository, signed.ring, signed.clock, lambda sha256: True
    )
    assert [each.id for each in again.releases] == [release.id]
    assert (again.fleet, again.number) == (signed.fleet, signed.repository.number)


@pytest.mark.parametrize("missed", [1, 5])
def test_roots_are_followed_over_missed_rotations(
    signed: SignedRepository, tmp_path: Path, missed: int
) -> None:
    """Each rotation replaces the operator; the client was away for all of them."""
    client = client_of(signed, tmp_path)
    for number in range(missed):
        following = Operator(f"operator{number}")
        asked = Change(add=(following.public,), remove=(signed.operators[0].name,))
        keys = signed.ring.current.public(URL)
        bundle = change(signed.published, keys, asked, signed.clock.now())
        before = signed.published.root.signed
        assert bundle.missing(before) == 1
        signed.operators[0].sign(bundle, before)
        assert bundle.missing(before) == 1, "the new operator signs as well"
        signed.publish(bundle, [following])
        signed.operators = [following]
    release = signed.release("2026.9.6")
    view = refreshed(client, signed)
    assert view.root_version == 1 + missed
    view.release(release.id)


def test_two_of_three_operators_sign(tmp_path: Path) -> None:
    alice, bob, carol = (Operator(name) for name in ("alice", "bob", "carol"))
    stranger = Operator("mallory")
    signed = SignedRepository(tmp_path, [alice, bob, carol], threshold=2)
    client = client_of(signed, tmp_path)
    published = signed.published
    manifest = signed.release("2026.8.1").manifest.model_copy(update={"name": "2026.8.1+1"})
    bundle = add_release(signed.published, manifest, {}, signed.clock.now())
    root = published.root.signed
    alice.sign(bundle, root)
    alice.sign(bundle, root)
    assert (bundle.missing(root), bundle.signed_by(root)) == (1, ["alice"])
    with pytest.raises(UntrustedError, match="lacks 1 signature"):
        signed.repository.publish(bundle.offer())
    with pytest.raises(UntrustedError, match="not among those that may sign"):
        stranger.sign(bundle, root)
    folder = tmp_path / "on-a-stick"
    bundle.save(folder)
    carried = Bundle.load(folder)
    carol.sign(carried, root)
    assert carried.missing(root) == 0
    signed.repository.publish(carried.offer())
    assert len(refreshed(client, signed).targets) == 3


def test_a_bundle_that_was_tampered_with_is_not_signed(
    signed: SignedRepository, tmp_path: Path
) -> None:
    manifest = signed.release("2026.8.1").manifest.model_copy(update={"name": "x"})
    bundle = add_release(
        signed.published, manifest, {sha256_hex(b"lock"): b"lock"}, signed.clock.now()
    )
    for path, reason in (
        ("files/x.release.json", "not what targets.json names"),
        (f"blobs/{sha256_hex(b'lock')}", "not what its name says"),
    ):
        folder = tmp_path / "bundle"
        shutil.rmtree(folder, ignore_errors=True)
        bundle.save(folder)
        (folder / path).write_bytes(b"evil")
        with pytest.raises(BadInputError, match=reason):
            Bundle.load(folder)
    with pytest.raises(BadInputError, match="not a bundle"):
        Bundle.load(tmp_path)
    (tmp_path / "bundle" / "root.json").symlink_to("/etc/passwd")
    with pytest.raises(BadInputError, match="not a plain file"):
        Bundle.load(tmp_path / "bundle")


def test_what_the_repository_refuses(signed: SignedRepository) -> None:
    clock, published = signed.clock, signed.published
    operator = signed.operators[0]
    manifest = signed.release("2026.8.1").manifest.model_copy(update={"name": "2026.8.0"})
    stale = add_release(published, manifest, {}, clock.now())
    operator.sign(stale, published.root.signed)
    signed.release("2026.8.2")
    with pytest.raises(ConflictError, match="is next"):
        signed.repository.publish(stale.offer())
    other = SigningKey.generate().public
    keys = signed.ring.current.public(URL).model_copy(update={"online_key": other})
    strange = change(signed.published, keys, Change(), clock.now())
    operator.sign(strange, signed.published.root.signed)
    with pytest.raises(BadInputError, match="not name this coordinator's keys"):
        signed.repository.publish(strange.offer())
    root = begin(keys, [operator.public], 1, clock.now())
    operator.sign(root, None)
    with pytest.raises(ConflictError, match="other content"):
        signed.repository.publish(root.offer())
    manifest = signed.release("2026.8.3").manifest.model_copy(update={"name": "other"})
    bundle = add_release(signed.published, manifest, {}, clock.now())
    operator.sign(bundle, signed.published.root.signed)
    with pytest.raises(BadInputError, match="its file is missing"):
        signed.repository.publish(bundle.offer().model_copy(update={"files": {}}))
    with pytest.raises(ConflictError, match="exists"):
        add_release(
            signed.published,
            manifest.model_copy(update={"name": "2026.8.3", "created": 1.0}),
            {},
            clock.now(),
        )


def test_a_release_whose_files_were_not_uploaded_is_refused(tmp_path: Path) -> None:
    signed = SignedRepository(tmp_path, has_blob=lambda sha256: False)
    with pytest.raises(ConflictError, match="is missing"):
        signed.release("2026.9.6")


@pytest.mark.parametrize("overlap", [True, False])
def test_the_coordinators_keys_are_replaced(
    signed: SignedRepository, tmp_path: Path, overlap: bool
) -> None:
    """The online key, the roster key and the authority change together, and are used only then."""
    client = client_of(signed, tmp_path)
    before = signed.ring.current
    following = make_next_keys(signed.paths, signed.clock.now())
    signed.ring.look_again()
    assert signed.ring.following is not None
    with pytest.raises(ConflictError, match="under way"):
        make_next_keys(signed.paths, signed.clock.now())
    asked = Change(overlap=overlap)
    keys = before.public(URL, signed.ring.following)
    signed.publish(change(signed.published, keys, asked, signed.clock.now()))
    assert signed.ring.current.online.public == following.online.public
    assert not signed.paths.next_keys.exists()
    view, fleet = client.refresh(signed.repository.read)
    assert view.root_version == 2
    assert (fleet.version, fleet.roster_key) == (2, following.roster.public)
    assert fleet.authorities[0].strip() == following.authority.pem.strip()
    assert len(fleet.authorities) == (2 if overlap else 1)
    stolen = read_timestamp(signed.repository.read("timestamp.json"))
    stolen.signed.version += 100
    stolen.signatures.clear()
    sign(stolen, [before.online])
    thief_of(signed)("timestamp.json", to_bytes(stolen))
    with pytest.raises(UntrustedError, match="refused"):
        client.refresh(signed.repository.read)


def test_a_cache_that_lost_power_still_holds_together(
    signed: SignedRepository, tmp_path: Path
) -> None:
    """Leftovers of a refresh that was cut short are swept; what was verified before stays."""
    client = client_of(signed, tmp_path)
    folder = tmp_path / "client"
    before = client.view()
    (folder / "generation-dead").mkdir()
    (folder / "generation-dead" / "timestamp.json").write_bytes(b"")
    assert client.view() == before
    signed.release("2026.9.6")
    refreshed(client, signed)
    assert len(list(folder.glob("generation-*"))) == 1
    for name in ("timestamp.json", "snapshot.json", "targets.json", "root.json"):
        (folder / "current" / name).unlink()
        (folder / "current" / name).write_bytes(b"\0" * 10)
        assert client.view() is None
        assert len(refreshed(client, signed).targets) == 2


@pytest.mark.parametrize("after", [1, 2, 3, 4, 5, 6])
def test_a_publication_that_was_cut_short_is_finished_by_the_next_start(
    signed: SignedRepository, tmp_path: Path, after: int
) -> None:
    """A change of keys, killed after each of its writes: the offer is kept before the first."""
    client = client_of(signed, tmp_path)
    make_next_keys(signed.paths, signed.clock.now())
    signed.ring.look_again()
    keys = signed.ring.current.public(URL, signed.ring.following)
    bundle = change(signed.published, keys, Change(), signed.clock.now())
    signed.operators[0].sign(bundle, signed.published.root.signed)
    writes = 0

    class CutError(Exception):
        pass

    class Cut(Repository):
        def _write(self, path: str, raw: bytes) -> None:
            nonlocal writes
            writes += 1
            if writes > after:
                raise CutError
            super()._write(path, raw)

    dying = Cut(signed.paths.repository, signed.ring, signed.clock, lambda sha256: True)
    cut = False
    try:
        dying.publish(bundle.offer())
    except CutError:
        cut = True
    assert cut == (writes > after)
    ring = open_home(signed.paths, "test", 0.0)
    again = Repository(signed.paths.repository, ring, signed.clock, lambda sha256: True)
    view, fleet = client.refresh(again.read)
    assert (view.root_version, fleet.version) == ((2, 2) if after >= 1 else (1, 1))
    assert ring.current.online.public == online_key(again.root.signed)  # type: ignore[union-attr]
    assert ring.following is None
    assert not (signed.paths.repository / "offer.json").exists()


def test_an_operator_who_missed_a_rotation_is_told_what_to_fetch(signed: SignedRepository) -> None:
    missed = signed.published
    keys = signed.ring.current.public(URL)
    for _ in range(2):
        signed.publish(change(signed.published, keys, Change(), signed.clock.now()))
    bundle = change(signed.published, keys, Change(), signed.clock.now())
    with pytest.raises(UntrustedError, match="does not follow"):
        bundle.missing(missed.root.signed)


def test_a_withdrawal_that_is_rebased_still_withdraws(
    signed: SignedRepository, tmp_path: Path
) -> None:
    signed.release("2026.8.1")
    withdraw(signed.published, "2026.8.1", signed.clock.now()).save(tmp_path / "bundle")
    signed.release("2026.9.6")
    rebased = Bundle.load(tmp_path / "bundle").rebased(signed.published.targets.signed)
    signed.publish(rebased)
    assert [each.manifest.name for each in signed.repository.releases] == ["2026.9.6"]
    root = change(signed.published, signed.ring.current.public(URL), Change(), signed.clock.now())
    with pytest.raises(BadInputError, match="can be rebased"):
        root.rebased(signed.published.targets.signed)


def forged_root(signed: SignedRepository, trick: str) -> Bundle:
    keys = signed.ring.current.public(URL)
    bundle = change(signed.published, keys, Change(), signed.clock.now())
    root = bundle.root.signed  # type: ignore[union-attr]
    mallory = SigningKey.generate().public.for_verifying()
    if trick == "threshold":
        root.roles["root"].threshold = 2
        root.add_key(mallory, "root")
    elif trick == "extra":
        root.add_key(mallory, "targets")
    elif trick == "online":
        root.add_key(mallory, "timestamp")
    elif trick == "double":
        operator = signed.operators[0].public
        twin = Operator(operator.name).public
        for role, key in (("root", twin.root), ("targets", twin.targets)):
            made = key.for_verifying()
            made.unrecognized_fields["x-rollcall-name"] = operator.name
            root.add_key(made, role)
    return bundle


@pytest.mark.parametrize("trick", ["threshold", "extra", "online", "double"])
def test_a_root_with_something_that_is_not_shown_is_neither_signed_nor_published(
    signed: SignedRepository, tmp_path: Path, trick: str
) -> None:
    """Otherwise one operator could draft a root by which two of three become one."""
    bundle = forged_root(signed, trick)
    bundle.save(tmp_path / "bundle")
    with pytest.raises(UntrustedError, match="root version 2"):
        Bundle.load(tmp_path / "bundle")
    signed.operators[0].sign(bundle, signed.published.root.signed)
    with pytest.raises(UntrustedError, match="root version 2"):
        signed.repository.publish(bundle.offer())


def test_what_a_signature_would_mean_is_said_in_full(signed: SignedRepository) -> None:
    now, before = signed.clock.now(), signed.published
    overlay = {"*": {"gateway": {"bind": "lan"}}}
    manifest = manifest_of("2026.9.6", b"{}", now, overlay=overlay, allow_scripts=["openclaw"])
    shown = "\n".join(describe(add_release(before, manifest, {}, now), before))
    for word in ("adds release 2026.9.6", "lock_sha256", '"bind": "lan"', "allow_scripts"):
        assert word in shown
    make_next_keys(signed.paths, now)
    signed.ring.look_again()
    keys = signed.ring.current.public(URL, signed.ring.following)
    asked = Change(add=(Operator("bob").public, Operator("carol").public), threshold=2)
    shown = "\n".join(describe(change(before, keys, asked, now), before))
    for word in (
        "2 of bob, carol, operator",
        "new: bob, keys",
        "threshold from 1 to 2",
        "online key",
    ):
        assert word in shown
    assert "CHANGES the fleet document" in shown


def test_two_processes_share_one_cache(signed: SignedRepository, tmp_path: Path) -> None:
    client_of(signed, tmp_path)
    for number in range(4):
        signed.release(f"2026.9.{number + 1}")
        clients = [TufClient(tmp_path / "client") for _ in range(4)]
        with ThreadPoolExecutor(4) as threads:
            views = list(threads.map(lambda client: refreshed(client, signed), clients))
        assert all(len(view.targets) == number + 2 for view in views)


def test_a_failing_source_says_why(signed: SignedRepository, tmp_path: Path) -> None:
    client = client_of(signed, tmp_path)

    def unreachable(path: str) -> bytes:
        raise UnavailableError(f"no answer for {path}")

    with pytest.raises(UnavailableError, match="no answer"):
        client.refresh(unreachable)
    for junk in (b"", b"{}", b"[" * 5000, b"\xff", b"0" * 600_000):
        with pytest.raises(RollcallError):
            client.refresh(lambda path, junk=junk: junk)  # type: ignore[misc]


def test_a_cache_hands_on_what_it_has(signed: SignedRepository, tmp_path: Path) -> None:
    """A second client that only knows the first, coordinator off."""
    release = signed.release("2026.9.6")
    client = client_of(signed, tmp_path)
    client.target(refreshed(client, signed).release(release.id), signed.repository.read)
    other = TufClient.create(tmp_path / "other", signed.first_root)
    view, fleet = other.refresh(client.serve)
    assert fleet == signed.fleet
    assert other.target(view.release(release.id), client.serve) == release.manifest.canonical()
    for path in ("9.root.json", "9.targets.json", f"targets/{'0' * 64}.{FLEET}"):
        with pytest.raises(NotFoundError):
            client.serve(path)


def test_keys_on_an_operators_disk_are_under_a_passphrase() -> None:
    key = SigningKey.generate()
    sealed = key.seal("correct horse battery")
    raw = sealed.canonical()
    assert SealedKey.from_bytes(raw).open("correct horse battery").public == key.public
    with pytest.raises(UntrustedError, match="does not open"):
        sealed.open("correct horse batterx")
    with pytest.raises(RollcallError, match="at least 12"):
        key.seal("short")
    other = SigningKey.generate()
    swapped = sealed.model_copy(update={"public": other.public})
    with pytest.raises(UntrustedError, match="not the one that it names"):
        swapped.open("correct horse battery")


def test_metadata_with_odd_content_is_refused(signed: SignedRepository, tmp_path: Path) -> None:
    operator = signed.operators[0]
    base = signed.published.targets.signed
    for odd in (
        {"../../x.release.json": b"{}"},
        {"x.txt": b"{}"},
    ):
        targets = new_targets(odd.items(), 2e9, base=base)
        sign(targets, [operator.targets])
        offer = Bundle(None, targets, odd).offer()
        with pytest.raises(RollcallError):
            signed.repository.publish(offer)
    past = new_targets([], 1.0, base=base)
    sign(past, [operator.targets])
    with pytest.raises(BadInputError, match="expired already"):
        signed.repository.publish(Bundle(None, past).offer())
    without = new_targets([], 2e9, base=base, without=[FLEET])
    sign(without, [operator.targets])
    with pytest.raises(BadInputError, match=FLEET):
        signed.repository.publish(Bundle(None, without).offer())


async def test_metadata_can_be_asked_for_from_a_thread(signed: SignedRepository) -> None:
    """python-tuf is blocking: it never runs on the loop."""
    raw = await asyncio.to_thread(signed.repository.read, "timestamp.json")
    assert Metadata.from_bytes(raw).signed.expires > moment(signed.clock.now())
