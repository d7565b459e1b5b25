"""Tests of names: for any manifest, a name is one path component inside the workspace, and differs from others."""

from __future__ import annotations

import functools
import os
import unicodedata
from pathlib import Path

import pytest
from dpp import names
from dpp.models import FileData, expected_digest
from dpp.workspace.layout import Workspace
from hypothesis import assume, example, given
from hypothesis import strategies as st

URL = "https://example.org/data/a.csv"
NASTY = ["/", "..", "../../etc/passwd", "\0", "a\0b", "x" * 300, "🙂" * 100, "é" * 150, ".", " ", "", "\ud800", "a/.part", "C:\\x", "-rf"]
texts = st.text(max_size=400) | st.sampled_from(NASTY)


def is_one_component(name: str) -> bool:
    return name not in {"", ".", ".."} and not {"/", "\0", "\\"} & set(name) and len(os.fsencode(name)) <= 200


@given(texts)
@example("x" * 179 + ".part")
@example("x." + "é" * 300)
@example("x" * 300 + ".\ud800")
def test_any_text_makes_a_safe_name_and_a_safe_key(text):
    assert is_one_component(names.safe_name(text))
    assert is_one_component(names.file_key(text, URL))
    assert is_one_component(names.slug(text))


@given(texts)
def test_a_safe_name_is_never_taken_for_a_part_or_a_sidecar(text):
    for suffix in names.RESERVED_SUFFIXES:
        assert not names.safe_name(text).endswith(suffix)
        assert not names.safe_name(text + suffix).endswith(suffix)


@given(texts, texts)
@example("A", "a")
@example("caf\u00e9", "cafe\u0301")
@example("x" * 300 + "1", "x" * 300 + "2")
@example("a/b", "a-b")
@example("🙂", "🙃")
def test_different_ids_have_keys_that_differ_even_where_case_does_not_count(one, other):
    assume(one != other)
    assert names.file_key(one, URL).casefold() != names.file_key(other, URL).casefold()


@given(st.sampled_from(NASTY), st.sampled_from(NASTY))
def test_targets_stay_in_the_workspace_whatever_id_and_name_are(file_id, name):
    assume(file_id and name)
    file = FileData(url=URL, id=file_id, name=name)
    space = Workspace(Path("/w"))
    paths = space.download(file)
    downloads = map(Path, (paths.body, paths.sidecar, paths.part, paths.part_facts))
    targets = map(Path, (space.pre_processed("f", file), space.processed("f", file), space.report("f", file)))
    for path in (*downloads, *targets):
        assert os.path.normpath(path) == str(path)
        # kind/shard/key/name or kind/fingerprint/shard/key
        assert len(path.relative_to("/w").parts) == 4


@pytest.mark.parametrize(
    ("given_name", "expected"),
    [
        ("report.csv", "report.csv"),
        ("a/b\\c:d", "a_b_c_d"),
        ("..", "file"),
        ("...hidden. ", "hidden"),
        ("a\0b\x1f", "a_b_"),
        ("x.part", "x.part_"),
        ("x.dpp.json", "x.dpp.json_"),
        ("x.part.", "x.part_"),
        ("caf\udce9.txt", "caf_.txt"),
        ("cafe\u0301", "caf\u00e9"),
        ("🙂.txt", "🙂.txt"),
    ],
)
def test_safe_names_are_as_near_to_the_given_as_is_safe(given_name, expected):
    assert names.safe_name(given_name) == expected


def test_long_names_keep_their_suffix_and_stay_apart():
    one, other = names.safe_name("x" * 300 + "1.csv"), names.safe_name("x" * 300 + "2.csv")
    assert one != other
    assert len(one) == len(other) == names.NAME_BYTES
    assert (one[:100], one[-4:]) == ("x" * 100, ".csv")


def test_a_long_suffix_is_cut_like_any_text():
    cut = names.safe_name("x." + "y" * 300)
    assert len(cut) == names.NAME_BYTES
    assert cut.startswith("x.yyy")


def test_cutting_never_splits_a_character():
    cut = names.safe_name("é" * 150)
    assert set(cut.partition("-")[0]) == {"é"}
    assert unicodedata.is_normalized("NFC", cut)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Grüße & Co.", "grusse-co"), ("a b", "a-b"), ("---", "file"), ("", "file"), ("日本", "file"), ("a" * 99, "a" * 40)],
)
def test_slugs_are_short_plain_ascii(text, expected):
    assert names.slug(text.replace("ß", "ss")) == expected


@pytest.mark.parametrize(
    ("url", "base", "stem"),
    [
        ("https://h/a/b.tar.gz?x=1#y", "b.tar.gz", "b.tar"),
        ("https://h/a%20b.txt", "a b.txt", "a b"),
        ("https://h/..%2F..%2Fetc%2Fpasswd", "passwd", "passwd"),
        ("https://h/%ff.bin", "\ufffd.bin", "\ufffd"),
        ("https://me:pw@Host.org/?sig=1", "host.org", "host"),
        ("https://h/folder/", "folder", "folder"),
        ("file:///", "file", "file"),
        ("https://h/.bashrc", ".bashrc", ".bashrc"),
    ],
)
def test_names_come_from_the_last_part_of_the_path(url, base, stem):
    assert (names.basename(url), names.stem(url)) == (base, stem)


def test_a_new_password_is_no_new_file_but_another_query_is():
    assert names.download_key("https://me:old@h/a") == names.download_key("HTTPS://you:new@h/a#part")
    assert names.download_key("https://h/a?v=1") != names.download_key("https://h/a?v=2")
    assert names.file_key("a", "https://h/a") != names.file_key("a", "https://g/a")


def test_with_a_digest_a_new_query_is_no_new_file_but_another_digest_or_path_is():
    signed, again = "https://me:pw@h/a?sig=1", "https://h/a?sig=2&e=3"
    for key in (names.download_key, functools.partial(names.file_key, "a")):
        assert key(signed, "0" * 64) == key(again, "0" * 64)
        assert len({key(signed), key(again), key(signed, "0" * 64), key(signed, "1" * 64), key("https://h/b?sig=1", "0" * 64)}) == 5
        assert key("https://h/a", "0" * 64) == key("https://h/a")


def test_the_longest_digest_of_a_manifest_counts_and_sha256_before_all():
    digests = {"md5": "0" * 32, "sha512": "1" * 128, "sha1": "2" * 40}
    assert expected_digest(FileData(url=URL)) is None
    assert expected_digest(FileData(url=URL, digests=digests)) == "sha512=" + "1" * 128
    assert expected_digest(FileData(url=URL, digests=digests, sha256="3" * 64)) == "sha256=" + "3" * 64


def test_a_digest_keeps_its_parts_apart():
    assert names.digest("ab", "c") != names.digest("a", "bc")
    assert len(names.digest("x", digits=8)) == 8


def test_the_shard_is_the_beginning_of_the_digest():
    assert names.subfolder("some-id-0123456789abcdef") == "01"


def test_users_of_a_server_have_files_of_their_own_but_not_of_the_web():
    assert names.identity("sftp://a:1@h/x") == names.identity("SFTP://a:2@h/x#y") == "sftp://a@h/x"
    assert names.identity("sftp://a@h/x") != names.identity("sftp://b@h/x")
    assert names.identity("https://a:1@h/x") == names.identity("https://h/x") == "https://h/x"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("line-cuont", "did you mean 'line-count'?"),
        ("LINE_COUNT", "did you mean 'line-count'?"),
        ("zzz", "choose from checksum, line-count, or use MODULE:CLASS"),
    ],
)
def test_an_unknown_name_gets_a_near_one_or_all(name, said):
    assert names.suggestion(name, ["line-count", "checksum", "checksum"], also="MODULE:CLASS") == said


def test_where_nothing_is_known_that_is_said():
    assert names.suggestion("a", []) == "none is available"
    assert names.close_match("a", []) == ""
