from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.envelope import MESSAGE, ROSTER, seal
from shared.errors import BadInputError, RollcallError, UntrustedError
from shared.keys import SigningKey
from shared.messages import Message, Payload, Red, RedKind, open_message, sign_message
from shared.roster import Roster, open_roster, sign_roster
from tests.support.trustkit import TestFleet, make_fleet


@pytest.fixture
def fleet(tmp_path: Path) -> TestFleet:
    return make_fleet(tmp_path)


def red(
    fleet: TestFleet, origin: str = "a", *, sequence: int = 1, of: str | None = None
) -> Payload:
    return Payload(
        fleet=of or fleet.document.fleet,
        origin=origin,
        epoch=1,
        sequence=sequence,
        issued=1.0,
        body=Red(kind=RedKind.READINESS, reason="gateway: down"),
    )


def test_a_signed_message_opens_with_its_very_bytes(fleet: TestFleet) -> None:
    sent = sign_message(red(fleet), fleet.keys["a"])
    assert open_message(sent.raw.encode(), fleet.roster()) == sent


def test_a_changed_byte_of_the_payload_is_refused(fleet: TestFleet) -> None:
    value = json.loads(sign_message(red(fleet), fleet.keys["a"]).raw)
    value["payload"] = value["payload"].replace("e", "f", 1)
    with pytest.raises(RollcallError):
        open_message(json.dumps(value).encode(), fleet.roster())


def test_strangers_impostors_and_the_revoked_are_refused(fleet: TestFleet) -> None:
    stranger = sign_message(red(fleet), SigningKey.generate())
    impostor = sign_message(red(fleet, "a"), fleet.keys["b"])
    revoked = sign_message(red(fleet, "a"), fleet.keys["a"])
    for message, roster in (
        (stranger, fleet.roster()),
        (impostor, fleet.roster()),
        (revoked, fleet.roster(revoked=("a",))),
    ):
        with pytest.raises(UntrustedError):
            open_message(message.raw.encode(), roster)


def test_a_valid_signature_from_another_fleet_is_refused(fleet: TestFleet) -> None:
    other = sign_message(red(fleet, of="f" * 64), fleet.keys["a"])
    with pytest.raises(UntrustedError, match="another fleet"):
        open_message(other.raw.encode(), fleet.roster())


def test_an_envelope_of_another_type_is_refused(fleet: TestFleet) -> None:
    raw = seal(red(fleet).canonical(), ROSTER, fleet.keys["a"])
    with pytest.raises(UntrustedError, match="type"):
        open_message(raw, fleet.roster())


@settings(max_examples=200)
@given(raw=st.binary(max_size=300))
def test_noise_is_refused_and_nothing_else_happens(raw: bytes) -> None:
    with pytest.raises((BadInputError, UntrustedError)):
        open_message(raw, Roster(fleet="0" * 64, epoch=1, issued=0, nodes=[]))


def test_a_signed_payload_of_the_wrong_shape_is_bad_input(fleet: TestFleet) -> None:
    raw = seal(b'{"fleet": 1}', MESSAGE, fleet.keys["a"])
    with pytest.raises(BadInputError):
        open_message(raw, fleet.roster())


def test_a_roster_needs_the_fleets_key(fleet: TestFleet) -> None:
    assert open_roster(sign_roster(fleet.roster(), fleet.roster_key), fleet.document)
    with pytest.raises(UntrustedError):
        open_roster(sign_roster(fleet.roster(), SigningKey.generate()), fleet.document)


def test_a_messages_key_is_origin_epoch_sequence(fleet: TestFleet) -> None:
    message: Message = sign_message(red(fleet, sequence=7), fleet.keys["a"])
    assert message.key == "a:1:7"
