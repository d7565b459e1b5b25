"""Complete batches, run from the command line as users do."""

from __future__ import annotations

import os

import pytest

from sshd import make_key


def test_a_folder_of_a_server_is_a_batch_and_a_rerun_does_only_what_is_missing(server, outbox, run_batch, results, options):
    for number in range(40):
        outbox(f"{number:02d} ü#?%.gpg", b"%d" % number)
    outbox("left.txt")
    files = f"{server.url(outbox.folder)}?pattern=*.gpg"
    run = run_batch(files, "--workers", 2, *options())
    assert run.returncode == 0, run.stderr
    rows = results()
    assert len(rows) == 40
    assert rows["07 ü#?%.gpg"]["bytes"] == 1
    outbox("new.gpg", b"new")
    assert run_batch(files, "--workers", 2, *options()).returncode == 0
    assert [row["id"] for row in results().values() if not row["cached"]] == ["new.gpg"]


def test_a_small_batch_goes_file_by_file(server, outbox, run_batch, results, options):
    for name in "abc":
        outbox(name, name.encode())
    run = run_batch(server.url(outbox.folder), *options())
    assert run.returncode == 0, run.stderr
    assert {name: row["status"] for name, row in results().items()} == dict.fromkeys("abc", "ok")


def test_a_file_that_is_removed_after_the_listing_fails_alone(server, outbox, manifest, run_batch, results, options):
    entries = [{"url": server.url(outbox(name)), "id": name} for name in "abc"]
    (outbox.folder / "b").unlink()
    run = run_batch(manifest(entries), *options())
    assert run.returncode == 1, run.stderr
    assert {name: row["error_class"] for name, row in results().items()} == {"a": None, "b": "not-found", "c": None}


@pytest.mark.fault(32)
def test_a_changed_host_key_fails_the_file_at_once(server, outbox, manifest, run_batch, results, tmp_path, options, seen):
    make_key(tmp_path / "other")
    (tmp_path / "known").write_text(f"[127.0.0.1]:{server.port} {(tmp_path / 'other.pub').read_text()}")
    files = manifest([{"url": server.url(outbox("a"))}, {"url": outbox("b").as_uri()}])
    run = run_batch(files, *options(known_hosts=str(tmp_path / "known")))
    assert run.returncode == 1, run.stderr
    assert {name: (row["error_class"], row["attempts"]) for name, row in results().items()} == {"a": ("host-key", 1), "b": (None, 1)}
    seen("SFTP: host-key at once")


@pytest.mark.fault(32)
def test_a_batch_that_is_killed_continues_where_it_was(server, proxy, outbox, run_batch, results, options, seen):
    content = os.urandom(8 * 1024 * 1024)
    outbox("big", content)
    proxy.cuts = [0, 6 * 1024 * 1024]
    proxy.cuts[0] = 1024 * 1024  # for the listing, which is shorter
    files = server.url(outbox.folder, proxy.port)
    assert run_batch(files, "--attempts", 1, *options()).returncode == 1
    assert results()["big"]["error_class"] == "truncated"
    run = run_batch(files, *options())
    assert run.returncode == 0, run.stderr
    assert proxy.served[-1] < 5 * 1024 * 1024
    seen("cut in mid-file: continued")


@pytest.mark.fault(32)
def test_a_host_key_that_is_not_known_stops_the_batch_before_it_begins(server, outbox, run_batch, tmp_path, options):
    outbox("a")
    (tmp_path / "empty").write_text("")
    run = run_batch(server.url(outbox.folder), *options(known_hosts=str(tmp_path / "empty")))
    assert run.returncode == 2
    assert f"ssh-keyscan -p {server.port} 127.0.0.1 | ssh-keygen -lf -" in run.stderr


def test_a_wrong_option_stops_the_batch_before_it_begins(manifest, run_batch, options):
    run = run_batch(manifest([{"url": "sftp://127.0.0.1/a"}]), *options(sessions=0))
    assert run.returncode == 2
    assert "options of sftp" in run.stderr


def test_options_may_stand_in_luigi_cfg(server, outbox, run_batch, results, tmp_path):
    outbox("a")
    lines = [f"{name} = {value}\n" for name, value in {**server.options, "sessions": 1}.items()]
    (tmp_path / "luigi.cfg").write_text("[sftp]\n" + "".join(lines))
    run = run_batch(server.url(outbox.folder))
    assert run.returncode == 0, run.stderr
    assert results()["a"]["status"] == "ok"


def test_a_password_in_a_url_is_only_where_it_has_to_be(server, outbox, manifest, run_batch, tmp_path, options):
    url = server.url(outbox("a")).replace("@", ":canary-5ecret@")
    run = run_batch(
        manifest([{"url": url}, {"url": url.replace("/a", "/missing")}]), "--debug", "--log-file", tmp_path / "dpp.log", *options()
    )
    assert run.returncode == 1
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "x.json"]
    assert not [path for path in kept if "canary-5ecret" in path.read_text(errors="replace")]
    assert "canary-5ecret" not in run.stdout + run.stderr


@pytest.mark.parametrize("chunk_size", [1, 4])
@pytest.mark.parametrize("way", ["listed", "named"])
def test_a_file_that_was_replaced_on_the_server_is_processed_again(server, outbox, manifest, run_batch, results, options, way, chunk_size):
    for name in "ab":
        outbox(name, b"first")
    entries = [{"url": server.url(outbox.folder / name)} for name in "ab"]
    files = server.url(outbox.folder) if way == "listed" else manifest(entries)
    given = (*options(), "--chunk-size", chunk_size)
    assert run_batch(files, *given).returncode == 0
    assert run_batch(files, *given).returncode == 0
    assert [row["cached"] for row in results().values()] == [True, True]
    outbox("a", b"other", mtime=1_600_000_000)
    run = run_batch(files, *given)
    assert run.returncode == 0, run.stderr
    assert {name: row["cached"] for name, row in results().items()} == {"a": False, "b": True}


def test_named_files_keep_their_results_while_the_server_is_away(server, proxy, outbox, manifest, run_batch, results, options):
    files = manifest([{"url": server.url(outbox(name), proxy.port)} for name in "abcdef"])
    given = (*options(), "--chunk-size", 3, "--attempts", 1)
    assert run_batch(files, *given).returncode == 0
    proxy.cuts = [0] * 100
    run = run_batch(files, *given)
    assert run.returncode == 0, run.stderr
    assert all(row["cached"] for row in results().values())
    assert "so they count as unchanged" in run.stderr
