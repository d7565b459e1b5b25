"""Shards on the command lines: each a run of its own, which together run every file once."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import luigi
import pytest
from dpp import RunBatch

COUNT = 4


@pytest.fixture
def twenty(tmp_path, manifest):
    """A manifest of twenty local files."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number}.txt").write_text("x" * number)
    return manifest([{"url": path.as_uri()} for path in sorted(folder.iterdir())])


def info_of(tmp_path, workspace):
    return json.loads(next(tmp_path.glob(f"{workspace}/batches/*/runs/*/run.json")).read_text())


def test_shards_run_every_file_once(twenty, dpp, results, tmp_path):
    for number in range(1, COUNT + 1):
        assert dpp("run", twenty, "--shard", f"{number}/{COUNT}", "--workspace", f"w{number}")[0] == 0
    found = [name for number in range(1, COUNT + 1) for name in results(f"w{number}")]
    assert sorted(found, key=int) == [str(number) for number in range(20)]
    infos = [info_of(tmp_path, f"w{number}") for number in range(1, COUNT + 1)]
    assert [info["shard"] for info in infos] == ["1/4", "2/4", "3/4", "4/4"]
    assert sum(info["total"] for info in infos) == 20
    assert {info["listed"] for info in infos} == {20}
    assert len({info["manifest"] for info in infos}) == 1


def test_luigi_and_its_configuration_take_a_shard(twenty, run_batch, dpp, results, tmp_path):
    assert run_batch(twenty, "--shard", "2/4", "--workspace", "a").returncode == 0
    (tmp_path / "luigi.cfg").write_text("[RunBatch]\nshard=2/4\n")
    assert run_batch(twenty, "--workspace", "b").returncode == 0
    assert dpp("run", twenty, "--shard", "2/4", "--workspace", "c")[0] == 0
    assert results("a").keys() == results("b").keys() == results("c").keys()
    assert len(results("a")) < 20


@pytest.mark.parametrize("shard", ["0/8", "9/8", "3", "x"])
def test_a_wrong_shard_is_refused_with_advice(twenty, dpp, run_batch, tmp_path, shard):
    code, _, err = dpp("run", twenty, "--shard", shard)
    assert code == 2
    assert "shard: should be NUMBER/COUNT, such as 3/8 for the third of 8 shards" in err
    assert not (tmp_path / "dpp-workspace").exists()
    if shard == "0/8":
        assert "add 1 to an array index that starts at 0" in err
        assert run_batch(twenty, "--shard", shard).returncode == 2


def test_the_plan_is_that_of_the_shard(twenty, dpp, results):
    plan = json.loads(dpp("plan", twenty, "--shard", "1/4", "--format", "json")[1])
    assert dpp("run", twenty, "--shard", "1/4")[0] == 0
    assert plan["total"] == len(results())
    assert plan["batch"].startswith("x-1of4-")


def test_a_shard_without_files_is_ok_but_a_manifest_without_files_is_not(manifest, dpp, tmp_path):
    files = manifest([{"url": (tmp_path / "x.json").as_uri()}])
    outs = [dpp("run", files, "--shard", f"{number}/3") for number in (1, 2, 3)]
    assert [code for code, _, _ in outs] == [0, 0, 0]
    assert sorted("0 of 0 ok" in out for _, out, _ in outs) == [False, True, True]
    code, _, err = dpp("run", manifest([]), "--shard", "1/3")
    assert (code, "the list names no files" in err) == (2, True)


def test_every_shard_reports_the_problems_of_the_whole_manifest(manifest, dpp):
    files = manifest([{"url": f"nowhere://h/{number}"} for number in range(3)])
    code, _, err = dpp("run", files, "--shard", "1/50")
    assert (code, err.count("no fetcher for nowhere: URLs")) == (2, 3)


def test_shards_in_one_workspace_are_batches_of_their_own(twenty, dpp, tmp_path):
    for shard in ("1/2", "2/2", "1/2"):
        assert dpp("run", twenty, "--shard", shard)[0] == 0
    runs = sorted(path.relative_to(tmp_path / "dpp-workspace/batches") for path in tmp_path.glob("dpp-workspace/batches/*/runs/*"))
    assert [(path.parts[0].split("-")[1], path.name) for path in runs] == [("1of2", "1"), ("1of2", "2"), ("2of2", "1")]
    assert dpp("verify")[0] == 0


def test_shards_can_run_in_one_workspace_at_the_same_time(twenty, command, tmp_path):
    with ThreadPoolExecutor() as threads:
        runs = list(threads.map(lambda number: command("dpp", "run", twenty, "--shard", f"{number}/4", "--chunk-size", "3"), (1, 2, 3, 4)))
    assert [run.returncode for run in runs] == [0] * 4
    report = command("dpp", "report", "./dpp-workspace")
    assert (report.returncode, "20 of 20 ok (0 already done)" in report.stdout) == (0, True)
    assert command("dpp", "verify").returncode == 0


def test_a_program_can_run_several_shards(twenty, tmp_path):
    tasks = [RunBatch(files=str(twenty), shard=f"{number}/2", chunk_size=4) for number in (1, 2)]
    assert len({task.task_id for task in tasks}) == 2
    assert luigi.build(tasks, local_scheduler=True)
    assert len(list(tmp_path.glob("dpp-workspace/reports/*/*/*.json"))) == 20


def test_retry_keeps_the_shard(site, manifest, dpp, results):
    files = manifest([{"url": f"{site.url}/{number}"} for number in range(20)])
    assert dpp("run", files, "--shard", "2/2")[0] == 1
    failed = set(results())
    for name in failed:
        site.add(f"/{name}", name)
    assert dpp("retry", "--all")[0] == 0
    assert set(results()) == failed


def test_files_that_the_destination_has_count_in_their_own_shard(twenty, dpp, tmp_path):
    (tmp_path / "out").mkdir()
    for number in range(10):
        (tmp_path / "out" / f"{number}.txt").touch()
    assert dpp("run", twenty, "--shard", "1/2", "--workspace", "w1", "--skip-existing", "out")[0] == 0
    (tmp_path / "out" / "10.txt").touch()
    assert dpp("run", twenty, "--shard", "2/2", "--workspace", "w2", "--skip-existing", "out")[0] == 0
    one, two = info_of(tmp_path, "w1"), info_of(tmp_path, "w2")
    assert one["manifest"] == two["manifest"]
    assert one["skipped"] + two["skipped"] in (10, 11)
    assert one["skipped"] + two["skipped"] + one["total"] + two["total"] == 20
