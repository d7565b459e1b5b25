"""No archive writes outside its folder, and unpacking returns what was packed."""

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
from dpp import FileData
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dpp_archive import Decompress
from plugin_targets import tar_archive, unpack, zip_archive

PARTS = st.sampled_from(["a", "b", "A", "..", ".", "", "C:", "\\", "é", "\n", "~", "-", "link", "n" * 256, "con", "%2e%2e", "\u202e"])
NAMES = st.one_of(st.lists(PARTS, min_size=1, max_size=4).map("/".join), st.text(max_size=12))
KINDS = st.sampled_from([tarfile.REGTYPE] * 4 + [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
MEMBERS = st.lists(st.tuples(NAMES, KINDS, NAMES, st.binary(max_size=600)), max_size=5)
DIALECTS = st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
MODES = st.sampled_from([0, 0o100644, 0o104755, 0o120777, 0o040755, 0o010644])


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
            except (ValueError, UnicodeError):  # a name that is not valid in this dialect
                continue
    unpack(made.getvalue(), "x.tar")


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
    unpack(made.getvalue(), "x.zip")


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
    (zip_archive if kind == "zip" else tar_archive)(bytes(data))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(list(itertools.chain(["gz", "bz2", "xz", "zst", "tar", "zip", "tar.gz", "txt"]))), st.binary(max_size=1200))
def test_anything_at_all_is_unpacked_refused_or_left_alone(suffix, data):
    unpack(data, f"x.{suffix}")
