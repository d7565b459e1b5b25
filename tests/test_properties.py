"""Property tests of the fuzzer's invariants, with bytes that are nearly valid."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from dpp import Outcome, names
from hypothesis import example, given
from hypothesis import strategies as st

import targets

SEEDS = sorted(Path(__file__).parents[1].glob("fuzz/corpus/*/*"))
URL = "https://h/data/a.csv"
HEADERS = ["Content-Length", "Content-Range", "Transfer-Encoding", "Content-Encoding", "ETag", "Retry-After", "Location"]
TRICKY = ["../../etc/passwd", "\0", "x" * 300, "\ud800", "A", "a", "caf\u00e9", "cafe\u0301", "\u202e", "\x1b[31m", "NUL", " ", "9" * 5000]

texts = st.text(max_size=12) | st.sampled_from(TRICKY)
numbers = st.integers() | st.floats() | st.sampled_from([1e308 * 10, 10**400, -1])
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
urls = st.sampled_from([URL, "HTTPS://h", "http://h:99999/", "file:///x/%2e%2e/%00", "https://[", "//h/a", "https://h/%ff/.part"]) | texts
entries = st.fixed_dictionaries(
    {"url": urls},
    optional={"id": values, "name": texts, "size": values, "sha256": texts, "headers": values, "urls": st.lists(urls), "x": values},
)


def cells(rows):
    quoted = (",".join('"' + str(row.get(name, "")).replace('"', '""') + '"' for name in ("url", "id", "x")) for row in rows)
    return "\n".join(["url,id,x", *quoted])


written = st.lists(entries, max_size=4).flatmap(
    lambda rows: st.sampled_from(
        [
            b"\0" + json.dumps(rows).encode(),
            b"\0" + json.dumps(rows, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass"),
            b"\1" + "\n".join(map(json.dumps, rows)).encode(),
            b"\2" + cells(rows).encode("utf-8", "surrogatepass"),
            b"\3" + "\n".join(row["url"] for row in rows).encode("utf-16", "surrogatepass"),
            b"\4\xef\xbb\xbf" + json.dumps(rows).encode(),
            b"\4" + json.dumps({"n": 1, "files": rows}, indent=1).encode(),
            b"\5" + cells(rows).replace(",", "\t").encode("utf-16", "surrogatepass"),
            b"\6" + gzip.compress(cells(rows).encode("utf-8", "surrogatepass")),
        ]
    )
)


@st.composite
def damaged(draw, whole):
    """Truncate bytes, change one, or repeat one."""
    data = bytearray(draw(whole))
    for where in draw(st.lists(st.integers(0, max(0, len(data) - 1)), max_size=2)):
        data[where : where + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@given(written | damaged(written) | st.binary(max_size=60))
@example(b"\0" + b"[" * 100_000)
@example(b"\1" + b'{"a":' * 100_000)
@example(b'\0[{"url": "https://h/a", "url": "https://h/b"}]')
@example(b'\0[{"url": "https://h/a", "x": NaN, "y": -Infinity, "z": 1e999}]')
@example(b'\0[{"url": "https://h/a", "id": "\\ud83d\\ude00"}, {"url": "https://h/a", "id": "\\ud83d"}]')
def test_any_manifest_is_refused_or_read(data):
    targets.manifest(data)


outcomes = st.builds(
    lambda key, text, result: Outcome(id=text, name=text, url=URL, key=key, status="ok", result=result),
    texts.filter(lambda text: "\ud800" not in text),
    texts.filter(lambda text: "\ud800" not in text),
    st.lists(st.integers() | st.text(st.characters(codec="utf-8")), max_size=2),
)
ledgers = st.lists(outcomes, max_size=4).map(lambda rows: b"".join(row.model_dump_json().encode() + b"\n" for row in rows))


@given(ledgers | damaged(ledgers) | st.binary(max_size=60))
@example(b"\n" * 3)
@example(b"\xff" * 10)
def test_any_ledger_keeps_its_whole_lines_and_goes_on(data):
    targets.ledger(data)


lines = st.builds(
    lambda name, value: f"{name}: {value}",
    st.sampled_from(HEADERS),
    st.sampled_from(["5", "5, 5", "bytes 4-9/10", "chunked", "gzip", '"v1"', "86400", "Wed, 21 Oct 2015 07:28:00 GMT", "http://[", "//h/b"])
    | st.from_regex(r"(bytes )?-?[0-9]{1,30}-[0-9]{1,30}/([0-9]{1,30}|\*)", fullmatch=True)
    | st.text(st.characters(codec="latin-1", exclude_characters="\n"), max_size=20),
)


@given(st.integers(0, 3), st.lists(lines, max_size=5))
def test_any_headers_are_an_answer_or_a_failure(status, sent):
    targets.http_response(bytes([status]) + "\n".join(sent).encode("latin-1"))


facts = st.dictionaries(st.sampled_from(["url", "size", "sha256", "etag", "total", "source"]), values, max_size=6).map(
    lambda found: json.dumps(found | {"source": names.digest(names.identity(targets.SOURCE))}).encode()
)


@given(facts | damaged(facts) | st.binary(max_size=60))
@example(b'{"size": 3, "sha256": "x", "etag": 5}')
@example(b'{"size": true, "sha256": []}')
def test_any_sidecar_is_that_of_a_whole_download_or_of_none(data):
    targets.sidecar(data)


@pytest.mark.parametrize("name", targets.TARGETS)
def test_the_fuzzer_s_targets_take_no_bytes_at_all(name):
    targets.TARGETS[name](b"")


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: f"{seed.parent.name}-{seed.name}")
def test_the_fuzzer_s_seeds_hold(seed):
    targets.TARGETS[seed.parent.name](seed.read_bytes())
