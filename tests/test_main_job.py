"""The main job as a user types it: ``luigi --module dpp RunBatch``."""

from __future__ import annotations

import hashlib


def test_two_of_twelve_fail_and_only_those_are_fetched_again(site, manifest, run_batch, results):
    entries = [{"url": site.add(f"/f{n}.txt", f"file {n}\n")} for n in range(10)]
    entries.append({"url": f"{site.url}/missing.txt"})
    entries.append({"url": site.add("/changed.txt", "wrong"), "sha256": hashlib.sha256(b"right").hexdigest()})
    files = manifest(entries)

    first = run_batch(files, "--workers", 4)
    assert first.returncode == 1, first.stderr
    rows = results()
    assert sum(row["status"] == "ok" for row in rows.values()) == 10
    assert (rows["missing"]["stage"], rows["missing"]["error_class"], rows["missing"]["http_status"]) == ("download", "http-404", 404)
    assert (rows["changed"]["stage"], rows["changed"]["error_class"]) == ("download", "checksum")
    assert "10 of 12 ok" in first.stderr

    site.add("/missing.txt", "here now")
    site.add("/changed.txt", "right")
    site.forget()
    assert run_batch(files, "--workers", 4).returncode == 0
    assert site.counts() == {"/missing.txt": 1, "/changed.txt": 1}

    site.forget()
    assert run_batch(files, "--workers", 4).returncode == 0
    assert not site.counts()
