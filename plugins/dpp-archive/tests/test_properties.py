"""Whatever an archive holds, nothing appears outside of its folder, and what is unpacked is what was packed."""

from __future__ import annotations

import io
import itertools
import os
import tarfile
import tempfile
import warnings
import zipfile
from pathlib import Path

import pytest
from dpp import FileData, StageError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dpp_archive import Decompress

PARTS = st.sampled_from(["a", "b", "A", "..", ".", "", "C:", "\\", "é", "\n", "~", "-", "link", "n" * 256, "con", "%2e%2e", "\u202e"])
NAMES = st.one_of(st.lists(PARTS, min_size=1, max_size=4).map("/".join), st.text(max_size=12))
KINDS = st.sampled_from([tarfile.REGTYPE] * 4 + [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
MEMBERS = st.lists(st.tuples(NAMES, KINDS, NAMES, st.binary(max_size=600)), max_size=5)
DIALECTS = st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
MODES = st.sampled_from([0, 0o100644, 0o104755, 0o120777, 0o040755, 0o010644])


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return the mode of everything below a folder, and what the files hold."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        found[str(path.relative_to(folder))] = (status.st_mode, path.read_bytes() if path.is_file() and not path.is_symlink() else b"")
    return found


def unpacked(file: FileData) -> Path | None:
    """Return what a file is unpacked to, or None where it is refused."""
    try:
        return Decompress(max_bytes=100_000, max_members=20).pre_process(file).local_path
    except StageError:
        return None


def check(data: bytes, name: str) -> None:
    """Unpack in a folder that has another one around it, and compare everything around before and after."""
    with tempfile.TemporaryDirectory() as root:
        around = Path(root)
        into = around / "up/out"
        into.mkdir(parents=True)
        (around / "up/a").write_bytes(b"keep")
        (around / name).write_bytes(data)
        before = snapshot(around)
        file = FileData(url="file:///a", local_path=around / name, output_dir=into)
        made = unpacked(file)
        after = snapshot(around)
        if made is None:
            assert after == before
            return
        inside = {path: facts for path, facts in after.items() if path.startswith("up/out/")}
        assert {path: facts for path, facts in after.items() if path not in inside} == before
        assert all(mode & 0o7000 == 0 and mode >> 12 in (0o10, 0o04) for mode, _ in inside.values())
        assert made == around / name or made.parent == into


@pytest.mark.fault(31)
@settings(max_examples=300, deadline=None)
@given(MEMBERS, DIALECTS)
@example([("link", tarfile.SYMTYPE, "..", b""), ("link/evil", tarfile.REGTYPE, "", b"x")], tarfile.PAX_FORMAT)
@example([("link", tarfile.LNKTYPE, "../a", b""), ("link", tarfile.REGTYPE, "", b"x")], tarfile.GNU_FORMAT)
def test_tars_stay_in_their_folder(members, dialect):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=dialect, errors="surrogateescape") as archive:
        for name, kind, link, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.mode = kind, link, 0o6777
            member.size = len(content) if kind == tarfile.REGTYPE else 0
            try:
                archive.addfile(member, io.BytesIO(content))
            except (ValueError, UnicodeError):  # a name that this dialect cannot have
                continue
    check(made.getvalue(), "x.tar")


@pytest.mark.fault(31)
@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(NAMES, MODES, st.binary(max_size=600)), max_size=5))
def test_zips_stay_in_their_folder(members):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, mode, content in members:
            member = zipfile.ZipInfo(name or "empty")
            member.external_attr = mode << 16
            try:
                archive.writestr(member, content)
            except (ValueError, UnicodeError):  # a lone surrogate
                continue
    check(made.getvalue(), "x.zip")


WHOLE = [tarfile.PAX_FORMAT, "zip"]


def packed(kind: object, content: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in content.items():
                archive.writestr(name, data)
        return made.getvalue()
    with tarfile.open(fileobj=made, mode="w", format=kind) as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return made.getvalue()


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(WHOLE), st.dictionaries(st.from_regex(r"[a-zé]{1,120}", fullmatch=True), st.binary(max_size=2000), max_size=4))
def test_what_is_packed_is_what_is_unpacked(kind, content):
    with tempfile.TemporaryDirectory() as root:
        path, into = Path(root, "x"), Path(root, "out")
        into.mkdir()
        path.write_bytes(packed(kind, content))
        made = Decompress().pre_process(FileData(url="file:///x", local_path=path, output_dir=into)).local_path
        if content or kind == "zip":
            assert {child.name: child.read_bytes() for child in made.iterdir()} == content


@pytest.mark.fault(31)
@settings(max_examples=300, deadline=None)
@given(st.sampled_from(WHOLE), st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=6))
def test_damaged_archives_stay_in_their_folder(kind, damage):
    data = bytearray(packed(kind, {"a/b": b"x" * 700, "c": os.urandom(20), "d": b""}))
    for where, value in damage:
        data[int(where * len(data))] = value
    check(bytes(data), "x.zip" if kind == "zip" else "x.tar")


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(list(itertools.chain(["gz", "bz2", "xz", "zst", "tar", "zip", "tar.gz", "txt"]))), st.binary(max_size=1200))
def test_anything_at_all_is_unpacked_refused_or_left_alone(suffix, data):
    check(data, f"x.{suffix}")
