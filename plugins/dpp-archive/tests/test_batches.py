"""Batches with ``decompress``, run from the command line as users do."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

from dpp_archive.streams import zstd

UNPACK = ("--pre-processors", "decompress", "--processor", "sizes:Sizes")
SIZES = """
from dpp import BaseProcessor

class Sizes(BaseProcessor):
    def process(self, file):
        path = file.local_path
        found = [path] if path.is_file() else [child for child in path.rglob("*") if child.is_file()]
        return {"name": file.name, "sizes": {str(child.relative_to(path.parent)): child.stat().st_size for child in found}}
"""


def tar(**contents: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return made.getvalue()


def zipped(**contents: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return made.getvalue()


@pytest.fixture(autouse=True)
def sizes(tmp_path):
    """Write a processor that accepts files and folders."""
    (tmp_path / "sizes.py").write_text(SIZES)


@pytest.fixture
def files(site, manifest):
    """Serve files of all formats, three of them broken, and return their manifest."""
    bodies = {
        "plain.txt": b"plain\n",
        "one.csv.gz": gzip.compress(b"a\nb\n"),
        "two.csv.zst": zstd.compress(b"a\nb\nc\n"),
        "three.tar.gz": gzip.compress(tar(x=b"1\n", y=b"2\n")),
        "four.zip": zipped(x=b"1\n"),
        "cut.csv.gz": gzip.compress(b"a\nb\n")[:-1],
        "evil.tar": tar(**{"../../evil": b"x"}),
        "bomb.gz": gzip.compress(bytes(20_000_000)),
    }
    return manifest([{"url": site.add(f"/{name}", body), "id": name} for name, body in bodies.items()])


@pytest.mark.fault(31)
@pytest.mark.parametrize("arguments", [(), ("--chunk-size", 4, "--workers", 2)])
def test_a_batch_unpacks_what_it_can_and_names_the_rest(files, run_batch, results, tmp_path, arguments, seen):
    run = run_batch(files, *UNPACK, "--options", '{"decompress": {"max_bytes": "1MB"}}', *arguments)
    assert run.returncode == 1, run.stderr
    rows = results()
    assert {name: row["error_class"] for name, row in rows.items() if row["status"] == "failed"} == {
        "cut.csv.gz": "archive-truncated",
        "evil.tar": "archive-unsafe",
        "bomb.gz": "archive-limit",
    }
    assert {name: row["result"] for name, row in rows.items() if row["status"] == "ok"} == {
        "plain.txt": {"name": "plain", "sizes": {"plain.txt": 6}},
        "one.csv.gz": {"name": "one.csv", "sizes": {"one.csv": 4}},
        "two.csv.zst": {"name": "two.csv", "sizes": {"two.csv": 6}},
        "three.tar.gz": {"name": "three", "sizes": {"three/x": 2, "three/y": 2}},
        "four.zip": {"name": "four", "sizes": {"four/x": 2}},
    }
    made = {path.name for path in tmp_path.glob("dpp-workspace/pre_processed/**/*") if path.is_file() and path.suffix != ".json"}
    assert made == {"one.csv", "two.csv", "x", "y"}
    assert not list(tmp_path.rglob("evil"))
    seen("archive-truncated, -unsafe, -limit; the others unpacked")


def test_a_rerun_unpacks_only_what_was_repaired(files, site, run_batch, results):
    assert run_batch(files, *UNPACK).returncode == 1
    for name, body in {"cut.csv.gz": gzip.compress(b"a"), "evil.tar": tar(good=b"x"), "bomb.gz": gzip.compress(b"small")}.items():
        site.add(f"/{name}", body)
    shutil.rmtree("dpp-workspace/downloads")
    assert run_batch(files, *UNPACK).returncode == 0
    assert {name for name, row in results().items() if not row["cached"]} == {"cut.csv.gz", "evil.tar", "bomb.gz"}


@pytest.mark.parametrize("arguments", [(), ("--chunk-size", 4)])
def test_each_file_of_an_archive_goes_on_as_one_of_its_own(site, manifest, run_batch, results, arguments):
    inner = zipped(**{"deep/x.csv": b"1\n2\n", "y.csv": b"3\n"})
    files = [{"url": site.add("/one.csv.gz", gzip.compress(b"0\n"))}, {"url": site.add("/two.tar", tar(inner=inner, z=b"4\n"))}]
    options = '{"decompress": {"explode": true}}'
    run = run_batch(manifest(files), "--pre-processors", "decompress,decompress", "--options", options, *arguments)
    assert run.returncode == 0, run.stderr
    assert results()["one.csv"]["result"]["size"] == 2
    assert {name: made["size"] for name, made in results()["two"]["result"].items()} == {"inner/deep/x.csv": 4, "inner/y.csv": 2, "z": 2}


def test_the_options_are_part_of_the_cache_key(site, manifest, run_batch, tmp_path):
    files = manifest([{"url": site.add("/a.xlsx", zipped(x=b"1"))}])
    assert run_batch(files, *UNPACK).returncode == 0
    assert run_batch(files, *UNPACK, "--options", '{"decompress": {"required": true}}').returncode == 1
    assert run_batch(files, *UNPACK, "--options", '{"decompress": {"keep": []}}').returncode == 0
    assert len(list(tmp_path.glob("dpp-workspace/pre_processed/*/"))) == 3


def test_a_wrong_option_is_found_before_anything_is_fetched(files, run_batch, tmp_path):
    run = run_batch(files, *UNPACK, "--options", '{"decompress": {"max_byte": 1}}')
    assert run.returncode == 2
    assert "options of decompress:" in run.stderr
    assert not (tmp_path / "dpp-workspace/downloads").exists()


FULL = """
import os, sys
from pathlib import Path
from dpp import FileData
from dpp_archive import Decompress

try:
    Decompress().pre_process(FileData(url="file:///a", local_path=Path(sys.argv[1]), output_dir=Path(sys.argv[2])))
except OSError as error:
    print(error.errno, os.listdir(sys.argv[2]))
"""


@pytest.mark.parametrize(
    ("name", "body"), [("a.gz", gzip.compress(bytes(9_000_000))), ("a.tar", tar(x=bytes(9_000_000))), ("a.zip", zipped(x=bytes(9_000_000)))]
)
def test_a_full_disk_is_not_the_file_s_fault(tmp_path, name, body):
    program = shutil.which("unshare") or pytest.fail("unshare is needed: apt-get install util-linux")
    (tmp_path / name).write_bytes(body)
    (tmp_path / "small").mkdir()
    (tmp_path / "full.py").write_text(FULL)
    script = f"mount -t tmpfs -o size=2m none small && '{sys.executable}' full.py {name} small"
    run = subprocess.run(
        [program, "-Urm", "sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert run.stdout == "28 []\n", run.stderr


def test_results_say_nothing_that_json_cannot_hold(site, manifest, run_batch, results):
    name = tar(n=b"x").replace(b"n\0", b"\xff\0", 1)
    header = bytearray(name[:512])
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    run_batch(manifest([{"url": site.add("/a.tar", bytes(header) + name[512:])}]), *UNPACK)
    assert results()["a"]["error_class"] == "archive-names"
    assert json.dumps(results()["a"]["message"]).isascii()
