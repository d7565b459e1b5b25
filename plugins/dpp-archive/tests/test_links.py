"""Links in archives: rejected, or skipped and reported."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile

import pytest

FILE, FOLDER, LINK, HARD, FIFO = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE


def tar(*members: tuple[str, bytes] | tuple[str, bytes, str]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, kind, *link in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, "".join(link), kind == FILE
            archive.addfile(member, io.BytesIO(b"x"))
    return made.getvalue()


def zipped(*members: tuple[str, int]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, mode in members:
            member = zipfile.ZipInfo(name)
            member.external_attr = mode << 16
            archive.writestr(member, b"x")
    return made.getvalue()


TARGETS = ["v1", "../../up", "/etc/passwd", "", "a\\b", "\udcff"]


@pytest.mark.fault(31)
@pytest.mark.parametrize("kind", [LINK, HARD])
@pytest.mark.parametrize("target", TARGETS)
def test_links_of_a_tar_are_skipped_wherever_they_lead(bench, kind, target, caplog):
    packed = tar(("v1/a", FILE), ("latest", kind, target), ("deep/er", kind, target))
    file = bench.unpack(packed, "t.tar", links="skip")
    assert [path.name for path in sorted(file.local_path.rglob("*"))] == ["v1", "a"]
    assert (file.skipped_links, caplog.messages) == (2, ["a: links of the archive skipped: 2, the first is 'latest'"])
    assert bench.refusal(packed, "t.tar").error_class in ("archive-unsafe", "archive-names")


@pytest.mark.fault(31)
def test_links_of_a_zip_are_skipped(bench):
    packed = zipped(("a", stat.S_IFREG | 0o644), ("latest", stat.S_IFLNK | 0o777))
    file = bench.unpack(packed, "z.zip", links="skip")
    assert ([path.name for path in file.local_path.iterdir()], file.skipped_links) == (["a"], 1)
    assert "links of decompress" in str(bench.refusal(packed, "z.zip"))


def test_a_damaged_link_is_still_damage(bench):
    packed = zipped(("latest", stat.S_IFLNK | 0o777))
    assert bench.refusal(packed.replace(b"latestx", b"latesty"), "z.zip", links="skip").error_class == "archive-corrupt"


@pytest.mark.parametrize("name", ["../up", "/abs", ".", "a", "v1"])
def test_links_need_an_allowed_name_of_their_own(bench, name):
    packed = tar(("a", FILE), ("v1/b", FILE), (name, LINK, "a"))
    assert bench.refusal(packed, "t.tar", links="skip").error_class == "archive-unsafe"


@pytest.mark.fault(31)
@pytest.mark.parametrize(
    "later", [("link", FILE), ("link/evil", FILE), ("link", FOLDER), ("link/d", FOLDER), ("link/l", LINK), ("link", LINK)]
)
def test_nothing_takes_the_place_of_a_skipped_link(bench, later):
    assert bench.refusal(tar(("link", LINK, ".."), later), "t.tar", links="skip").error_class == "archive-unsafe"


def test_hard_links_to_earlier_files_are_still_copied(bench):
    packed = tar(("a", FILE), ("b", HARD, "a"), ("c", LINK, "a"), ("d", HARD, "c"))
    assert bench.content(packed, "t.tar", links="skip") == {"t": None, "t/a": b"x", "t/b": b"x"}


def test_devices_and_pipes_are_no_links(bench):
    assert bench.refusal(tar(("p", FIFO)), "t.tar", links="skip").error_class == "archive-unsafe"
    assert bench.refusal(tar(("p", tarfile.CHRTYPE)), "t.tar", links="skip").error_class == "archive-unsafe"


def test_skipped_links_count_as_members(bench):
    packed = tar(*((f"{number}", LINK, "a") for number in range(11)))
    assert "max_members" in str(bench.refusal(packed, "t.tar", links="skip", max_members=10))


def test_a_batch_reports_skipped_links(site, manifest, run_batch, results, tmp_path):
    (tmp_path / "links.py").write_text("class Links:\n    version = '1'\n    def process(self, file):\n        return file.skipped_links\n")
    files = manifest([{"url": site.add("/a.tar", tar(("v1/a", FILE), ("latest", LINK, "v1")))}])
    options = '{"decompress": {"links": "skip", "explode": true}}'
    run = run_batch(files, "--pre-processors", "decompress", "--processor", "links:Links", "--options", options)
    assert (run.returncode, results()["a"]["result"]) == (0, {"v1/a": 1})
    assert "a: links of the archive skipped: 1" in run.stderr
