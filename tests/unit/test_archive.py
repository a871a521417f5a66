"""Fault 30: tarballs with every trick, made with the standard library and refused by ours."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.archive import Limits, check_archive
from shared.errors import BadInputError
from shared.npm import Npm, find_tools

Entry = tuple[tarfile.TarInfo, bytes]


def entry(name: str, body: bytes = b"x", **fields: object) -> Entry:
    info = tarfile.TarInfo(name)
    info.size = len(body)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, body


def tar(*entries: Entry, form: int = tarfile.PAX_FORMAT) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=form) as archive:
        for info, body in entries:
            archive.addfile(info, io.BytesIO(body))
    return raw.getvalue()


def tgz(*entries: Entry, form: int = tarfile.PAX_FORMAT) -> bytes:
    return gzip.compress(tar(*entries, form=form), 1)


GOOD = entry("package/package.json", b"{}")


def link(kind: bytes, name: str = "package/x", target: str = "/etc/passwd") -> Entry:
    return entry(name, b"", type=kind, linkname=target)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (entry("/etc/passwd"), "absolute"),
        (entry("package/../../x"), r"'\.\.'"),
        (entry("../x"), r"'\.\.'"),
        (entry("package//etc/x"), "empty"),
        (entry("package/./x"), r"'\.' part"),
        (entry("package\\..\\x"), "backslash"),
        (entry("package/a\nb"), "control"),
        (entry("package/a\x1b[2Jb"), "control"),
        (entry("package/a", pax_headers={"path": "package/a\0b"}), "control"),
        (entry("package/a", pax_headers={"path": "../../a"}), r"'\.\.'"),
        (entry("package/a", pax_headers={"size": "99"}), "two sizes"),
        (entry("package/a", pax_headers={"linkpath": "/etc"}), "linkpath"),
        (entry("package/a", pax_headers={"GNU.sparse.major": "1"}), "sparse"),
        (link(tarfile.SYMTYPE), "a symbolic link"),
        (link(tarfile.SYMTYPE, target="inside"), "a symbolic link"),
        (link(tarfile.LNKTYPE), "a hard link"),
        (link(tarfile.CHRTYPE), "a device"),
        (link(tarfile.BLKTYPE), "a device"),
        (link(tarfile.FIFOTYPE), "a fifo"),
        (link(b"s"), "a socket"),
        (link(tarfile.CONTTYPE), "unknown type"),
        (link(tarfile.GNUTYPE_SPARSE), "unknown type"),
        (entry("package/x", mode=0o4755), "setuid"),
        (entry("package/x", mode=0o2755), "setuid"),
        (entry("elsewhere/x"), "one top folder 'package'"),
        (entry("x"), "one top folder"),
        (entry("package/PACKAGE.json"), "by case"),
        (entry("package/package.json"), "there twice"),
        (entry("package/package.json/x"), "below a file"),
        (entry("package/" + "d/" * 40 + "x"), "without measure"),
        (entry("package/" + "n" * 2000), "without measure"),
    ],
)
def test_each_trick_is_named_and_refused(bad: Entry, said: str) -> None:
    with pytest.raises(BadInputError, match=said):
        check_archive(tgz(GOOD, bad))


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_ordinary_archives_of_all_forms_pass(form: int, tmp_path: Path) -> None:
    folder = entry("package/lib/", b"", type=tarfile.DIRTYPE)
    deep = entry("package/" + "/".join(["folder-with-a-name"] * 7) + "/index.js")
    raw = tgz(GOOD, folder, deep, entry("package/bin", mode=0o755), form=form)
    check_archive(raw)
    path = tmp_path / "x.tgz"
    path.write_bytes(raw)
    check_archive(path)


def test_npm_drops_whatever_the_top_folder_is_called() -> None:
    check_archive(tgz(entry("node-v8/package.json", b"{}"), entry("node-v8/index.js")))


@pytest.mark.parametrize("pair", [("lib/a.js", "LIB/b.js"), ("é", "e\u0301"), ("\u017f", "s")])
def test_two_names_that_apfs_takes_for_one(pair: tuple[str, str]) -> None:
    with pytest.raises(BadInputError, match="by case or Unicode form"):
        check_archive(tgz(*(entry(f"package/{name}") for name in pair)))


def test_what_stands_behind_the_end_is_refused() -> None:
    """One reader of tar stops at the first empty block, another goes on."""
    hidden = gzip.compress(tar(GOOD) + tar(entry("package/hidden.js")))
    with pytest.raises(BadInputError, match="after its end"):
        check_archive(hidden)


def test_a_global_header_may_comment_and_nothing_else() -> None:
    def with_global(headers: dict[str, str]) -> bytes:
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w", pax_headers=headers) as archive:
            archive.addfile(GOOD[0], io.BytesIO(GOOD[1]))
        return gzip.compress(raw.getvalue())

    check_archive(with_global({"comment": "made by git archive"}))
    with pytest.raises(BadInputError, match="names all entries"):
        check_archive(with_global({"path": "package/x"}))


def test_a_bomb_is_found_before_it_has_gone_off(tmp_path: Path) -> None:
    """Fault 28: a gigabyte of zeros in a megabyte, and an extended header as large."""
    path = tmp_path / "bomb.tgz"
    for kind in (tarfile.REGTYPE, tarfile.XHDTYPE):
        info = tarfile.TarInfo("package/bomb")
        info.type, info.size = kind, 1 << 30
        with gzip.open(path, "wb", 1) as file:
            file.write(info.tobuf())
            for _ in range(64):
                file.write(bytes(1 << 20))
        tracemalloc.start()
        with pytest.raises(BadInputError, match=r"more than|without measure"):
            check_archive(path, Limits(unpacked=32 << 20))
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
        tracemalloc.stop()


def test_entries_are_counted() -> None:
    raw = tgz(*(entry(f"package/{number}") for number in range(30)))
    check_archive(raw, Limits(entries=30))
    with pytest.raises(BadInputError, match="more than 29"):
        check_archive(raw, Limits(entries=29))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda raw: raw[: len(raw) // 2],
        lambda raw: gzip.compress(gzip.decompress(raw)[:700]),
        lambda raw: gzip.compress(b"\xff" * 1024),
        lambda raw: gzip.compress(bytes(1024)),
        gzip.decompress,
        lambda raw: raw + b"trailing",
        lambda raw: b"",
    ],
)
def test_what_is_no_whole_tarball(spoil: Callable[[bytes], bytes]) -> None:
    with pytest.raises(BadInputError, match=r"not an npm tarball|empty"):
        check_archive(spoil(tgz(GOOD)))


@given(st.binary(max_size=1500))
def test_noise_is_bad_input_and_nothing_else(noise: bytes) -> None:
    for raw in (noise, gzip.compress(noise), gzip.compress(tar(GOOD)[:512] + noise)):
        with pytest.raises(BadInputError):
            check_archive(raw)


@given(st.integers(0, 511), st.integers(0, 255))
def test_a_header_with_one_byte_changed_is_refused_or_harmless(place: int, value: int) -> None:
    raw = bytearray(tar(GOOD))
    was, raw[place] = raw[place], value
    try:
        check_archive(gzip.compress(bytes(raw)))
    except BadInputError:
        return
    assert was == value or place in range(148, 156), "only the checksum's own padding may vary"


async def test_what_npm_itself_packs_passes(tmp_path: Path) -> None:
    """npm writes extended headers, sizes among them, once a name is long."""
    source = tmp_path / "source"
    long = source / "a-folder-with-a-rather-long-name-in-it" / ("b" * 90)
    long.mkdir(parents=True)
    (long / ("c" * 90 + ".js")).write_text("1")
    (source / "package.json").write_text(json.dumps({"name": "x", "version": "1.0.0"}))
    tarball = await Npm(find_tools()).pack(source, tmp_path)
    check_archive(tarball)
