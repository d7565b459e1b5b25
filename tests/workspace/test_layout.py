"""Tests of the workspace: paths of targets, locks on downloads, and the sweep."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from dpp import EnvironmentStop, FileData
from dpp.workspace.atomic import make_folder, temporary_name, write_atomic
from dpp.workspace.layout import DownloadPaths, Workspace

FILE = FileData(url="https://me:pw@h/data/a.tar.gz?sig=1", id="My id")


def all_of(paths: DownloadPaths) -> list[str]:
    return [getattr(paths, field) for field in DownloadPaths.__slots__]


def test_targets_lie_where_the_design_says():
    space = Workspace(Path("/w"))
    paths = space.download(FILE)
    key = Path(paths.folder).name
    assert paths.folder == f"/w/downloads/{key[-16:-14]}/{key}"
    assert [paths.body, paths.sidecar, paths.part, paths.part_facts] == [
        f"{paths.folder}/{name}" for name in ("a.tar.gz", "a.tar.gz.dpp.json", "a.tar.gz.part", "a.tar.gz.part.dpp.json")
    ]
    made, result, report = (Path(path) for path in (space.pre_processed("f0", FILE), space.processed("f1", FILE), space.report("f2", FILE)))
    assert made.parent.parent == Path("/w/pre_processed/f0")
    assert (result, report) == (
        Path("/w/processed/f1", made.parent.name, f"{made.name}.json"),
        Path("/w/reports/f2", made.parent.name, f"{made.name}.json"),
    )
    assert made.name.startswith("my-id-")
    assert space.batch("b") == Path("/w/batches/b")


def test_files_of_one_url_share_a_download_and_nothing_else():
    space, other = Workspace(Path("/w")), FILE.model_copy(update={"id": "my ID"})
    assert all_of(space.download(FILE)) == all_of(space.download(other))
    assert space.report("f", FILE) != space.report("f", other)


@pytest.mark.parametrize(("name", "expected"), [("a.tar", "a.tar.gz"), ("given.csv", "given.csv"), ("../x", "_x"), ("x.part", "x.part_")])
def test_a_download_has_the_given_name_or_that_of_its_url(name, expected):
    assert Workspace(Path("/w")).download(FILE.model_copy(update={"name": name})).body.rpartition("/")[2] == expected


def test_one_download_is_held_by_one_alone(tmp_path):
    paths, order = Workspace(tmp_path).download(FILE), []
    waits = threading.Thread(target=lambda: hold(paths, order))
    with paths.lock():
        waits.start()
        waits.join(0.2)
        assert waits.is_alive()
        order.append("first")
    waits.join(60)
    assert order == ["first", "second"]


def hold(paths, order) -> None:
    with paths.lock():
        order.append("second")


def test_a_lock_tells_whether_there_is_nothing_of_a_download(tmp_path):
    paths, found = Workspace(tmp_path).download(FILE), []
    for _ in range(2):
        with paths.lock() as is_empty:
            found.append(is_empty)
            Path(paths.part).touch()
    assert found == [True, False]


def test_a_folder_that_somebody_removes_before_it_is_held_is_made_again(tmp_path, monkeypatch):
    made = []

    def make(folder):
        make_folder(folder)
        made.append(folder)
        if len(made) == 1:
            Path(folder).rmdir()

    monkeypatch.setattr("dpp.workspace.locks.make_folder", make)
    with Workspace(tmp_path).download(FILE).lock() as is_empty:
        assert (is_empty, len(made)) == (True, 2)


def test_a_lock_that_can_not_be_had_stops_the_run(tmp_path):
    (tmp_path / "downloads").write_text("")
    with pytest.raises(EnvironmentStop, match="a file is in the way"), Workspace(tmp_path).download(FILE).lock():
        pass


def test_a_folder_that_is_a_link_to_nowhere_stops_the_run(tmp_path):
    paths = Workspace(tmp_path).download(FILE)
    Path(paths.folder).parent.mkdir(parents=True)
    Path(paths.folder).symlink_to("nowhere")
    with pytest.raises(EnvironmentStop, match="No such file"), paths.lock():
        pass


@pytest.fixture
def dead_pid():
    """Yield the id of a zombie: a process that has ended, but was not waited for yet."""
    process = subprocess.Popen(["true"])
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        os.sched_yield()
    yield process.pid
    process.wait()


def test_sweep_removes_what_dead_processes_left_and_nothing_else(tmp_path, dead_pid):
    workspace = Workspace(tmp_path / "w")
    target = tmp_path / "w" / "reports" / "aa" / "a.json"
    write_atomic(target, b"{}")
    mine = Path(temporary_name(target))
    abandoned = mine.with_name(mine.name.replace(f"-{os.getpid()}-", f"-{dead_pid}-"))
    folder = abandoned.with_name(abandoned.name.replace("a.json", "b"))
    elsewhere = abandoned.with_name(re.sub(r"\.[0-9a-f]{6}-", ".000000-", abandoned.name))
    for path in (mine, abandoned, elsewhere):
        path.touch()
    (folder / "inner").mkdir(parents=True)
    part = tmp_path / "w" / "downloads" / "aa" / "a" / "a.part"
    write_atomic(f"{part}.dpp.json", b"{}")
    write_atomic(part.with_name("b.part"), b"")
    write_atomic(part.with_name("b.part.dpp.json"), b"{}")
    workspace.sweep()
    assert sorted(target.parent.iterdir()) == sorted([target, mine, elsewhere])
    assert sorted(path.name for path in part.parent.iterdir()) == ["b.part", "b.part.dpp.json"]


def test_containers_with_one_host_name_do_not_sweep_each_others_files(tmp_path):
    script = "from dpp.workspace.atomic import temporary_name; print(temporary_name('a'), end='')"
    inside = ["unshare", "-Urpf", "--mount-proc", sys.executable, "-c", script]
    if subprocess.run(["unshare", "-Urpf", "--mount-proc", "true"], check=False).returncode:
        pytest.skip("needs user and process namespaces")
    theirs = tmp_path / subprocess.run(inside, capture_output=True, text=True, check=True).stdout
    theirs.touch()
    Workspace(tmp_path).sweep()
    assert theirs.exists()
