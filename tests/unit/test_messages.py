from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

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


with TemporaryDirectory() as folder:
    HERE = make_fleet(Path(folder))
ROSTER_HERE = HERE.roster(revoked=("c",))
GOOD = sign_message(red(HERE), HERE.keys["a"])

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)
fields = st.sampled_from(
    [*Payload.model_fields, "body.type", "body.kind", "body.reason", "body.ref"]
)


def refused_or_whole(raw: bytes) -> None:
    """The parser knows two outcomes: a message whose every byte was signed, or a refusal with a code."""
    try:
        message = open_message(raw, ROSTER_HERE)
    except (BadInputError, UntrustedError):
        return
    assert message.payload.origin in ("a", "b")
    assert message.payload.fleet == HERE.document.fleet
    assert message.payload.canonical(), "fit for a hash and for a database"


@settings(max_examples=300)
@given(position=st.integers(0, len(GOOD.raw) - 1), byte=st.integers(0, 255))
def test_one_changed_byte_anywhere_is_refused_or_changes_nothing(position: int, byte: int) -> None:
    raw = bytearray(GOOD.raw.encode())
    raw[position] = byte
    with contextlib.suppress(BadInputError, UntrustedError):
        assert open_message(bytes(raw), ROSTER_HERE).payload == GOOD.payload


@settings(max_examples=300)
@given(value=json_values)
def test_any_json_under_a_good_signature_is_refused_or_a_message(value: object) -> None:
    refused_or_whole(seal(json.dumps(value).encode(), MESSAGE, HERE.keys["a"]))


@settings(max_examples=500)
@given(field=fields, value=json_values, signer=st.sampled_from(["a", "b", "c"]))
def test_any_value_in_any_field_is_refused_or_a_message(
    field: str, value: object, signer: str
) -> None:
    payload = json.loads(GOOD.payload.model_dump_json())
    place, _, inner = field.partition(".")
    if inner:
        payload[place][inner] = value
    else:
        payload[place] = value
    refused_or_whole(seal(json.dumps(payload).encode(), MESSAGE, HERE.keys[signer]))


@settings(max_examples=300)
@given(value=json_values, field=st.sampled_from(["payload", "payloadType", "signatures"]))
def test_any_json_for_an_envelope_is_refused(value: object, field: str) -> None:
    with pytest.raises((BadInputError, UntrustedError)):
        open_message(json.dumps(value).encode(), ROSTER_HERE)
    envelope = {**json.loads(GOOD.raw), field: value}
    refused_or_whole(json.dumps(envelope).encode())


@settings(max_examples=100)
@given(raw=st.binary(max_size=300), signer=st.sampled_from(["a", "b"]))
def test_any_bytes_under_a_good_signature_are_refused(raw: bytes, signer: str) -> None:
    refused_or_whole(seal(raw, MESSAGE, HERE.keys[signer]))


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: sign_message(red(HERE), SigningKey.generate()).raw, "unknown-key"),
        (lambda: sign_message(red(HERE, "a"), HERE.keys["b"]).raw, "wrong-origin"),
        (lambda: sign_message(red(HERE, of="f" * 64), HERE.keys["a"]).raw, "wrong-fleet"),
        (lambda: sign_message(red(HERE, "c"), HERE.keys["c"]).raw, "revoked"),
        (lambda: seal(b"x" * 70_000, MESSAGE, HERE.keys["a"]).decode(), "bad-input"),
        (lambda: "[" * 10_000, "bad-input"),
    ],
)
def test_each_refusal_has_a_reason_that_is_counted(make: Callable[[], str], code: str) -> None:
    with pytest.raises(RollcallError) as caught:
        open_message(make().encode(), ROSTER_HERE)
    assert caught.value.code == code


def test_two_signatures_of_which_one_is_good_count_once() -> None:
    """A stranger's signature beside it neither helps nor harms."""
    raw = seal(red(HERE).canonical(), MESSAGE, HERE.keys["a"], SigningKey.generate())
    assert open_message(raw, ROSTER_HERE).payload.origin == "a"
    joint = seal(red(HERE).canonical(), MESSAGE, HERE.keys["b"], HERE.keys["a"])
    refused_or_whole(joint)


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
