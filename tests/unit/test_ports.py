"""Ports that are given out before anybody listens there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from scripts.minifleet.ports import SHARE, SHARES, Ports
from shared.errors import UnavailableError
from shared.ports import BELOW_EPHEMERAL, VARIABLE


def test_two_that_ask_are_never_given_the_same_port(tmp_path: Path) -> None:
    """Each holds a share as a process does, by the lock on its file."""
    with closing(Ports(tmp_path)) as one, closing(Ports(tmp_path)) as two:
        first, second = one.take(50), two.take(50)
        assert len({*first, *second}) == 100
        assert not set(first) & set(one.take(50)), "a port comes again only after all others"


def test_a_port_on_which_somebody_listens_is_left_out(tmp_path: Path) -> None:
    with closing(Ports(tmp_path)) as ports, socket.socket() as listener:
        (taken,) = ports.take()
        listener.bind(("127.0.0.1", taken))
        listener.listen()
        assert taken not in ports.take(SHARE - 20)
        assert taken not in ports.take(20)


def test_when_all_shares_are_held_it_says_so(tmp_path: Path) -> None:
    with ExitStack() as stack:
        for _ in SHARES:
            stack.enter_context(closing(Ports(tmp_path)))
        with pytest.raises(UnavailableError, match="have all ports"):
            Ports(tmp_path)


@pytest.mark.parametrize(
    ("named", "among"), [("19001,19002", {19001, 19002}), ("", set(BELOW_EPHEMERAL))]
)
def test_an_agent_chooses_from_the_ports_that_it_is_given(named: str, among: set[int]) -> None:
    words = "from shared.ports import free_port; print(free_port())"
    done = subprocess.run(
        [sys.executable, "-c", words],
        env={**os.environ, VARIABLE: named},
        capture_output=True,
        check=True,
        text=True,
    )
    assert int(done.stdout) in among
