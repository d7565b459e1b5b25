"""Fuzz targets for the parsers of dpp: each function takes any bytes, and raises AssertionError if a property does not hold.

The fuzzer (``make fuzz``) and the property tests call the same functions.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

from dpp import FetchError, FileData, InputError, Outcome
from dpp.download import http
from dpp.download.downloader import load_download
from dpp.download.partial import PartFile
from dpp.manifest.catalog import read_catalog, write_catalog
from dpp.manifest.readers import as_text, read
from dpp.models import key_of
from dpp.workspace.layout import Workspace
from dpp.workspace.ledger import Ledger, Record, read_records
from urllib3 import HTTPHeaderDict

import plugin_targets

SCHEMES = {"http", "https", "file"}
SUFFIXES = (".json", ".jsonl", ".csv", ".txt", "", ".tsv", ".csv.gz")
ETAG = '"v1"'
SOURCE = "https://h/a"
_AFTER = Outcome(id="after", name="after", url="https://h/", key="after", status="ok")


def manifest(data: bytes) -> None:
    """Read a manifest whose first byte selects the format: it must be rejected, or its files must be in the catalog with safe names."""
    with TemporaryDirectory() as folder:
        path = Path(folder, f"x{SUFFIXES[data[0] % len(SUFFIXES)] if data else ''}")
        path.write_bytes(data[1:])
        try:
            chunks = write_catalog(Path(folder, "catalog"), "x", read(path), SCHEMES, lambda total: max(1, total))
        except InputError as error:
            assert str(error).encode("utf-8", "backslashreplace")
            return
        files = list(read_catalog(Path(folder, "catalog"), chunks[0])) if chunks else []
    assert len({key_of(file).casefold() for file in files}) == len(files)
    for file in files:
        assert FileData.model_validate_json(as_text(file)) == file or "NaN" in as_text(file)
        _stays_inside(file)


def _stays_inside(file: FileData) -> None:
    space = Workspace(Path("/w"))
    download = space.download(file)
    for path in (download.body, download.sidecar, download.part, download.part_facts, space.report("f", file), space.processed("f", file)):
        assert os.path.normpath(path) == path
        assert path.count("/") == 5, path
        assert len(os.fsencode(Path(path).name)) <= 255
        assert not {"\0", "\n", "\x1b"} & set(path)


def ledger(data: bytes) -> None:
    """Open a ledger with any content: no outcome may be added, none lost except in an incomplete last line, and it can be continued."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "0.jsonl")
        torn = Path(folder, "0.jsonl.open")
        torn.write_bytes(data)
        before = list(read_records(torn))
        assert all(row.line in data + b"\n" for row in before)
        opened = Ledger(path)
        kept = list(read_records(torn))
        assert kept == before[: len(kept)]
        assert len(before) - len(kept) <= (not data.endswith(b"\n"))
        opened.append(Record.of(_AFTER))
        opened.finish()
        assert [row.outcome for row in read_records(path)] == [*(row.outcome for row in kept), _AFTER]


def http_response(data: bytes) -> None:
    """Check the headers of a response, one per line: they must announce a valid body, or raise FetchError with a class."""
    status = (200, 206, 429, 301)[data[0] % 4] if data else 200
    lines = data[1:].decode("latin-1").split("\n")
    headers = HTTPHeaderDict()
    for name, _, value in (line.partition(":") for line in lines):
        headers.add(name, value)
    offset = 4 if status == 206 else 0
    try:
        body = http.judge(status, headers, SimpleNamespace(offset=offset, etag=ETAG), offset)
    except FetchError as error:
        assert error.error_class
        assert error.retry_after is None or 0 <= error.retry_after < float("inf")
    else:
        assert body.offset in (0, offset)
        assert body.length is None or body.length >= 0
        assert body.total is None or body.length is None or body.total == body.offset + body.length
    with suppress(FetchError):
        target, _ = http.next_hop("http://h/a", headers.get("Location"), {})
        assert target.lower().startswith(("http://", "https://"))


def sidecar(data: bytes) -> None:
    """Load a download with any sidecar, and a part with any facts: it must be complete or missing."""
    file = FileData(url=SOURCE)
    with TemporaryDirectory() as folder:
        paths = Workspace(Path(folder)).download(file)
        os.makedirs(paths.folder)
        for path, content in ((paths.sidecar, data), (paths.part_facts, data), (paths.body, b"abc"), (paths.part, b"abc")):
            Path(path).write_bytes(content)
        found = load_download(paths, file)
        assert found is None or found.size == len(b"abc")
        part = PartFile(paths)
        part.open_for(file.url)
        headers = http.request_headers(None, part, "agent")
        assert not {"\r", "\n", "\0"} & set("".join(headers.values()))
        part.close()


_PLUGINS = (plugin_targets.tar_archive, plugin_targets.zip_archive, plugin_targets.sftp_server, plugin_targets.openpgp_packets)
TARGETS: dict[str, Callable[[bytes], None]] = {target.__name__: target for target in (manifest, ledger, http_response, sidecar, *_PLUGINS)}
