"""Runs of the shards of one batch, in several workspaces, merged: rows, counts, pages and exit codes."""

from __future__ import annotations

import json
import re
import shutil
import zlib
from base64 import b64decode

import pytest
from dpp import ConfigurationError
from dpp.batch.folder import RunFolder, find_run
from dpp.batch.merged import MergedRuns, find_runs
from dpp.report.charts import Charts
from dpp.workspace.atomic import write_json

# Times, and the run that processed the file.
OTHERS = {"at", "seconds", "run"}


@pytest.fixture
def local(tmp_path, manifest):
    """Write a number of small local files and a manifest of them; every eleventh file of the manifest is missing."""

    def make(count, name="x.json"):
        folder = tmp_path / "in"
        folder.mkdir(exist_ok=True)
        for number in range(count):
            if number % 11:
                (folder / f"{number}.txt").write_text("x" * (number % 100 + 1))
        return manifest([{"url": (folder / f"{number}.txt").as_uri()} for number in range(count)], name)

    return make


@pytest.fixture
def shards(local, dpp):
    """Run shards of a batch of 40 files, each in a workspace of its own; return the exit code of each."""

    def run(*numbers, count=4, files=None, prefix="w", **more):
        files = files or local(40)
        options = [word for name, value in more.items() for word in (f"--{name}", value)]
        return [dpp("run", files, "--shard", f"{number}/{count}", "--workspace", f"{prefix}{number}", *options)[0] for number in numbers]

    return run


def merged(*places) -> MergedRuns:
    return MergedRuns(find_runs(places)[0])


def comparable(rows):
    """Return rows without what differs between runs, in the order of their keys."""
    return sorted(({name: value for name, value in row.items() if name not in OTHERS} for row in rows), key=lambda row: row["key"])


def rows_of(run):
    return comparable(outcome.model_dump() for outcome in run.results())


def rows_on(page):
    found = re.findall(rb'<script type="text/plain" data-rows="\d+">([^<]*)</script>', page.read_bytes())
    return comparable(json.loads(line) for block in found for line in zlib.decompress(b64decode(block), 31).splitlines())


def counts_of(summary):
    found = summary.model_dump(exclude={"batch", "run", "seconds", "folder", "shards"})
    return {**found, "failures": [(group["stage"], group["error_class"], group["count"]) for group in found["failures"]]}


def stages_on(charts: Charts):
    return [(stage, durations.files) for stage, durations, _ in charts.stages()]


def charts_of(run):
    charts = Charts(0.0)
    for outcome in run.results():
        charts.add(outcome)
    charts.settle()
    return charts


@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_merged_shards_equal_a_single_run_except_for_times(local, shards, dpp, tmp_path, count):
    files = local(count)
    # Which shards have a file that is missing depends on the path of the folder.
    assert set(shards(*range(1, 9), count=8, files=files)) <= {0, 1}
    assert dpp("run", files, "--workspace", "single")[0] == 1
    single, several = find_run(tmp_path / "single"), merged(*(f"w{number}" for number in range(1, 9)))
    assert len(rows_of(several)) == count
    assert rows_of(several) == rows_of(single)
    assert counts_of(several.merged_summary) == counts_of(single.summary())
    assert stages_on(charts_of(several)) == stages_on(charts_of(single))
    assert dpp("report", "w*", "--format", "html", "--output", "all.html")[0] == 1
    assert rows_on(tmp_path / "all.html") == rows_on(single.folder / "report.html")


def test_a_page_of_shards_names_each_of_them(shards, dpp, tmp_path):
    shards(1, 3)
    assert dpp("report", "./w1", "w3", "--format", "html", "--output", "all.html")[0] == 1
    page = (tmp_path / "all.html").read_text()
    assert [page.count(f">{number}/4<") for number in range(1, 5)] == [1] * 4
    assert page.count("<td>missing</td>") == 2
    assert "no run of shard 2/4, 4/4" in page
    assert 'x <span class="run">4 shards</span>' in page


def test_missing_shards_are_named_and_are_not_ok(shards, dpp):
    shards(1, 2, 4)
    code, out, _ = dpp("report", "w*")
    assert code == 1
    assert "  3/4  missing: no run of this shard was given\n" in out
    summary = merged("w*").merged_summary
    assert (summary.missing_shards, summary.total, summary.state) == (["3/4"], 40, "stopped")
    assert summary.ok + summary.failed + summary.missing == 40
    assert summary.missing > 0


def test_the_table_of_a_part_of_the_shards_is_not_all(shards, dpp, tmp_path):
    shards(1, 2, 4)
    code, _, err = dpp("export", "w*", "--output", "all.csv")
    assert (code, "these are not all results: there is no run of shard 3/4" in err) == (1, True)
    assert 1 < len((tmp_path / "all.csv").read_text().splitlines()) < 41


def test_a_missing_shard_without_files_is_not_ok_either(tmp_path, manifest, shards):
    files = manifest([{"url": (tmp_path / "x.json").as_uri()}])
    shards(1, 2, 3, count=3, files=files)
    assert merged("w*").merged_summary.complete
    [full] = [part.shard.number for part in merged("w*").parts if part.summary.total]
    shutil.rmtree(f"w{full % 3 + 1}")
    summary = merged("w*").merged_summary
    assert (summary.missing, summary.complete, summary.state) == (0, False, "stopped")


@pytest.mark.parametrize(("stopped", "failed", "code"), [(False, False, 0), (False, True, 1), (True, True, 3), (True, False, 3)])
def test_the_exit_code_is_the_worst(site, manifest, shards, dpp, tmp_path, stopped, failed, code):
    files = manifest([{"url": site.add(f"/{number}", "x")} for number in range(20)])
    if failed:
        files = manifest([*json.loads(files.read_text()), {"url": f"{site.url}/missing"}])
    shards(1, 2, count=2, files=files)
    if stopped:
        write_json(find_run(tmp_path / "w2").stop_path, {"reason": "the disk is full"})
    assert dpp("report", "w*", "--format", "json")[0] == code
    assert merged("w*").why_stopped() == ("shard 2/2: the disk is full" if stopped else "")


def test_a_run_that_has_not_ended_counts_with_what_it_has_recorded(shards, dpp, tmp_path):
    shards(1, 2, 3, 4)
    run = find_run(tmp_path / "w2")
    (run.folder / "summary.json").unlink()
    run.results_path.unlink()
    assert merged("w*").merged_summary.shards[1].state == "running"  # its process is this one
    info = run.info.model_dump(mode="json") | {"pid": 2**22 + 1}
    write_json(run.folder / "run.json", info)
    assert merged("w*").merged_summary.shards[1].state == "stopped"
    lock = run.new_lock()
    lock.exclusive()
    code, out, _ = dpp("report", "w*")
    assert code == 1
    assert "batch    x, 4 shards (not ended)" in out
    assert re.search(r"  2/4  running: \d+ of \d+ ok", out)
    assert len(dpp("report", "w*", "--format", "jsonl")[1].splitlines()) == 40
    assert len(dpp("export", "w*")[1].splitlines()) == 41


def test_of_several_runs_of_a_shard_one_counts(shards, local, dpp, tmp_path):
    files = local(40)
    shards(1, 2, files=files, count=2)
    for number in range(40):
        (tmp_path / "in" / f"{number}.txt").touch()
        (tmp_path / "in" / f"{number}.txt").write_text("x")
    assert shards(2, files=files, count=2, prefix="again") == [0]
    assert dpp("retry", "--workspace", "w1", "--all")[0] == 0
    summary = merged("w*", "again2").merged_summary
    assert (summary.complete, summary.total) == (True, 40)
    assert "again2" in summary.shards[1].folder
    assert ["w2" in folder for folder in summary.shards[1].unused] == [True]
    assert len(rows_of(merged("w*", "again2"))) == 40
    assert "does not count: " in dpp("report", "w*", "again2")[1]


def test_earlier_runs_of_a_batch_folder_do_not_count(shards, local, dpp):
    files = local(40)
    shards(1, 1, 2, files=files, count=2)
    found = merged("w*/batches/*/runs/*")
    assert [(part.run.number, part.shard.number) for part in found.parts] == [(2, 1), (1, 2)]
    assert [one.unused for one in found.merged_summary.shards] == [[], []]


def test_shards_in_one_workspace_are_merged(local, dpp):
    files = local(40)
    for number in (1, 2, 3):
        dpp("run", files, "--shard", f"{number}/3")
    code, out, _ = dpp("report", "./dpp-workspace")
    assert code == 1
    assert "36 of 40 ok" in out
    assert dpp("run", files)[0] == 1
    assert "batch    x-" in dpp("report", "./dpp-workspace")[1]


def test_copies_of_run_folders_are_merged(shards, tmp_path, dpp):
    shards(1, 2, 3, 4)
    for number in range(1, 5):
        shutil.copytree(find_run(tmp_path / f"w{number}").folder, tmp_path / "collected" / f"shard-{number}")
        shutil.rmtree(f"w{number}")
    code, out, _ = dpp("report", "collected/*")
    assert code == 1
    assert "batch    x, 4 shards\n" in out
    assert "36 of 40 ok" in out
    assert sorted(path.name for path in tmp_path.glob("collected/*")) == [f"shard-{number}" for number in range(1, 5)]


def test_runs_of_other_batches_are_refused(shards, local, dpp, manifest, tmp_path):
    files = local(40)
    shards(1, files=files)
    shards(2, files=files, count=5, prefix="count")
    shards(2, files=local(39, "y.json"), prefix="manifest")
    shards(2, files=files, prefix="steps", options='{"checksum": {"algorithm": "md5"}}')
    dpp("run", files, "--workspace", "whole")
    for place, problem in (
        ("count2", "shard 2/5 is one of 5, shard 1/4 one of 4"),
        ("manifest2", "their manifests differ (y.json lists 39 files, x.json 40)".replace("y.json", str(tmp_path / "y.json"))),
        ("steps2", "their steps differ (checksum 1 "),
        ("whole", "is the run of a whole batch, not of a shard"),
    ):
        code, out, err = dpp("report", "w1", place)
        assert (code, out) == (2, "")
        assert problem.replace("x.json", str(tmp_path / "x.json")) in err


def test_a_manifest_in_another_place_and_another_order_is_the_same(local, shards, tmp_path):
    files = local(40)
    other = tmp_path / "elsewhere" / "list.json"
    other.parent.mkdir()
    other.write_text(json.dumps(json.loads(files.read_text())[::-1]))
    shards(1, count=2, files=files)
    shards(2, count=2, files=other)
    assert merged("w1", "w2").merged_summary.total == 40


def test_the_run_of_a_whole_batch_is_reported_by_its_folder(local, dpp):
    assert dpp("run", local(40))[0] == 1
    code, out, _ = dpp("report", "dpp-workspace/batches/x-*/runs/1")
    assert (code, "run 1\n" in out) == (1, True)
    assert dpp("report")[0] == 0


def test_folders_without_a_run_are_named(shards, dpp, tmp_path):
    shards(1, 2, count=2)
    (tmp_path / "w3").mkdir()
    code, out, err = dpp("report", "w*")
    assert (code, err) == (1, f"no run in {tmp_path}/w3\n")
    assert "2 shards" in out


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("nothing/*",), "nothing/*: no such folder"),
        (("./empty",), "no run in"),
        (("./w1", "w2", "--run", "1"), "--workspace and --run are for a batch, not for folders"),
        (("./w1", "w2", "--workspace", "w1"), "--workspace and --run are for a batch, not for folders"),
        (("w*", "--format", "html"), "choose a file with --output FILE"),
    ],
)
def test_wrong_folders_and_options_are_refused(shards, dpp, tmp_path, arguments, problem):
    shards(1, 2, count=2)
    (tmp_path / "empty").mkdir()
    code, out, err = dpp("report", *arguments)
    assert (code, out) == (2, "")
    assert problem in err


@pytest.mark.parametrize("text", ["{", '{"run": 1, "shard": "x/y"}'])
def test_a_run_without_a_valid_description_is_refused(shards, dpp, tmp_path, text):
    shards(1, 2, count=2)
    (find_run(tmp_path / "w1").folder / "run.json").write_text(text)
    code, _, err = dpp("report", "w*")
    assert (code, "run.json is missing or damaged" in err) == (2, True)


def test_results_that_are_missing_are_reported(shards, dpp, tmp_path):
    shards(1, 2, count=2)
    results = find_run(tmp_path / "w1").results_path
    results.write_bytes(results.read_bytes()[:-20])
    code, _, err = dpp("report", "w*")
    assert (code, "outcomes are missing or damaged" in err) == (1, True)


def test_a_batch_comes_before_a_folder_of_its_name(local, dpp, tmp_path):
    assert dpp("run", local(3))[0] == 1
    (tmp_path / "x").mkdir()
    assert dpp("report", "x")[0] == 0


def test_the_same_run_given_twice_counts_once(shards):
    shards(1, count=2)
    assert merged("w1", "w*", "w1/batches/*").merged_summary.shards[0].unused == []
    assert isinstance(find_runs(["w1"])[0][0], RunFolder)
    with pytest.raises(ConfigurationError, match="no such folder"):
        find_runs(["w9"])
