"""``dpp clean``: only data that is no longer needed is removed."""

from __future__ import annotations

import json
import os

import pytest
from dpp.batch.batch import open_run
from dpp.batch.folder import latest_runs
from dpp.plugins.registry import load_plugins
from dpp.settings import make_settings
from dpp.workspace.atomic import temporary_name
from dpp.workspace.layout import DownloadPaths
from dpp.workspace.locks import BatchLock

from http_site import cut

STEPS = """
class Copies:
    def pre_process(self, file):
        (file.output_dir / "copy.txt").write_bytes(file.local_path.read_bytes())
        file.local_path = file.output_dir / "copy.txt"
        return file

class Fails:
    def process(self, file):
        if file.id == "bad":
            raise ValueError
"""
CHAIN = ("--pre-processors", "cleaning:Copies", "--processor", "cleaning:Fails")


@pytest.fixture
def root(site, manifest, dpp, tmp_path):
    """Make a workspace where one file is ok, one failed in its processor, and one has a partial download."""
    (tmp_path / "cleaning.py").write_text(STEPS)
    site.script("/part", cut(b"x" * 100_000, 70_000))
    urls = [site.add("/good", "good one"), site.add("/bad", "bad one"), f"{site.url}/part"]
    dpp("run", manifest([{"url": url} for url in urls]), *CHAIN, "--attempts", 1)
    return tmp_path / "dpp-workspace"


def names(root, *folders):
    return {path.name for folder in folders for path in (root / folder).rglob("*") if path.is_file()}


def table(out):
    """Return files and bytes by kind."""
    return {row[0]: row[1:3] for row in (line.split("\t") for line in out.splitlines()) if len(row) == 4}


def test_without_a_choice_everything_is_shown_and_nothing_freed(root, dpp):
    before = names(root, ".")
    code, out, _ = dpp("clean")
    rows = table(out)
    assert (code, names(root, ".")) == (0, before)
    assert rows["downloads"] == ["1", "8"]
    assert rows["pre_processed"] == ["1", "8"]
    assert rows["parts"] == ["1", "70000"]
    assert rows["results"] == rows["runs"] == rows["temporary"] == ["0", "0"]
    assert "nothing was freed; choose from --downloads, --pre-processed, --parts" in out


def test_downloads_of_files_that_are_ok_are_freed_and_these_are_not_run_again(root, dpp, site):
    assert "freed: 8 B" in dpp("clean", "--downloads")[1]
    assert names(root, "downloads") == {"bad", "bad.dpp.json", "part.part", "part.part.dpp.json"}
    site.forget()
    assert "1 of 3 ok (1 already done)" in dpp("run", "x.json", *CHAIN, "--attempts", 1)[1]
    assert "/good" not in site.counts()
    assert dpp("verify")[0] == 0


def test_what_was_pre_processed_of_files_that_are_ok_is_freed(root, dpp):
    assert "freed: 8 B" in dpp("clean", "--pre-processed")[1]
    assert [path.stem.rpartition("-")[0] for path in (root / "pre_processed").rglob("*.json")] == ["bad"]
    assert names(root, "downloads") >= {"good", "bad"}


def test_a_file_that_failed_in_another_batch_keeps_its_download(root, dpp, manifest, site):
    (root.parent / "other.py").write_text("class Fails:\n    def process(self, file):\n        raise ValueError\n")
    dpp("run", manifest([{"url": f"{site.url}/good"}], "y.json"), "--processor", "other:Fails")
    assert "freed: 0 B" in dpp("clean", "--downloads")[1]


def test_partial_downloads_are_freed(root, dpp):
    assert "freed: 68.4 KiB" in dpp("clean", "--parts")[1]
    assert names(root, "downloads") == {"good", "good.dpp.json", "bad", "bad.dpp.json"}


def test_a_dry_run_tells_the_same_and_frees_nothing(root, dpp):
    before = names(root, ".")
    dry = dpp("clean", "--parts", "--downloads", "--dry-run")[1]
    assert names(root, ".") == before
    done = dpp("clean", "--parts", "--downloads")[1]
    assert dry.replace("could be freed", "freed") == done


def test_old_runs_are_freed_and_the_newest_kept(root, dpp):
    for _ in range(2):
        dpp("run", "x.json", *CHAIN, "--attempts", 1)
    dpp("clean", "--keep-runs", 2)
    (last,) = latest_runs(root)
    assert sorted(path.name for path in last.folder.parent.iterdir()) == ["2", "3"]
    assert dpp("verify")[0] == 0


VERSIONED = "class Counts:\n    version = '{}'\n    def process(self, file):\n        return 1\n"


def test_what_a_newer_version_of_a_step_replaced_is_freed(root, dpp, command, manifest, site):
    manifest([{"url": f"{site.url}/good"}], "y.json")
    for version in (1, 2):
        (root.parent / "counts.py").write_text(VERSIONED.format(version))
        assert command("dpp", "run", "y.json", "--processor", "counts:Counts", PYTHONDONTWRITEBYTECODE="1").returncode == 0
    new, old = latest_runs(root)[:2]
    (_, *used), (_, *unused) = new.info.fingerprints, old.info.fingerprints
    dpp("clean", "--results", "--keep-runs", 1)
    assert [run.batch for run in latest_runs(root)] == [new.batch, latest_runs(root)[1].batch]
    assert [(root / kind / name).exists() for kind, name in zip(("processed", "reports"), used, strict=True)] == [True, True]
    assert [(root / kind / name).exists() for kind, name in zip(("processed", "reports"), unused, strict=True)] == [False, False]
    assert dpp("verify")[0] == 0


def test_what_other_options_made_stays(root, dpp, manifest, site):
    manifest([{"url": f"{site.url}/good"}], "y.json")
    for algorithm in ("md5", "sha1"):
        dpp("run", "y.json", "--options", json.dumps({"checksum": {"algorithm": algorithm}}))
    assert "results\t0\t0\t" in dpp("clean", "--results")[1]


def test_results_stay_where_a_run_does_not_say_what_it_used(root, dpp):
    (last,) = latest_runs(root)
    (last.folder / "run.json").write_text("{}")
    assert "results\t0\t0\t" in dpp("clean", "--results")[1]


def test_reports_of_tasks_alone_stay_where_no_batch_was_run(command, dpp, tmp_path):
    (tmp_path / "a.txt").write_text("a")
    command("luigi", "--module", "dpp", "Report", "--url", (tmp_path / "a.txt").as_uri(), "--workspace", "dpp-workspace")
    assert len(names(tmp_path / "dpp-workspace", "reports")) == 1
    dpp("clean", "--results")
    assert len(names(tmp_path / "dpp-workspace", "reports")) == 1


def test_what_a_killed_run_was_to_do_is_freed_and_that_of_a_live_one_is_not(root, dpp):
    (plan,) = (batch / "manifest" for batch in root.glob("batches/*"))
    plan.mkdir()
    (plan / "files.jsonl").write_text("secret")
    lock = BatchLock(plan.with_name("lock"))
    lock.exclusive()
    assert table(dpp("clean")[1])["temporary"] == ["0", "0"]
    lock.release()
    assert table(dpp("clean")[1])["temporary"] == ["1", "6"]
    assert "freed: 6 B" in dpp("clean", "--temporary")[1]
    assert not plan.exists()


def test_temporary_files_of_the_dead_are_freed(root, dpp, command):
    script = "from dpp.workspace.atomic import temporary_name; print(temporary_name('reports/a'), end='')"
    dead = root / command("python", "-c", script).stdout
    living = root / temporary_name("reports/a")
    for path in (dead, living):
        path.write_text("1234")
    assert "freed: 4 B" in dpp("clean", "--temporary")[1]
    assert [dead.exists(), living.exists()] == [False, True]


def test_a_batch_that_is_run_is_left_alone(root, dpp, manifest):
    run = open_run([{"url": "file:///etc/passwd"}], make_settings({"workspace": root}), load_plugins())
    before = names(root, ".")
    code, _, err = dpp("clean", "--downloads", "--parts")
    assert (code, names(root, ".")) == (3, before)
    assert "this batch is being run by pid" in err
    run.release()
    assert dpp("clean", "--downloads")[0] == 0


def test_a_download_that_somebody_is_at_is_left(root, dpp):
    (body,) = root.glob("downloads/*/*/good")
    hold = DownloadPaths(str(body.parent), "good").hold()
    assert "freed: 0 B" in dpp("clean", "--downloads")[1]
    hold.release()
    assert body.exists()


def test_a_workspace_that_is_not_there_has_nothing_to_free(dpp, tmp_path):
    assert "could be freed: 0 B" in dpp("clean", "--workspace", "nowhere")[1]
    assert not (tmp_path / "nowhere").exists()


def test_temporary_files_of_other_machines_are_freed_after_a_day(root, dpp):
    old, new = (root / f".{name}.000000-1-1.tmp" for name in ("old", "new"))
    for path in (old, new):
        path.write_text("1234")
    os.utime(old, (0, 0))
    assert "freed: 4 B" in dpp("clean", "--temporary")[1]
    assert [old.exists(), new.exists()] == [False, True]
