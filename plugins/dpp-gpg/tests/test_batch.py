"""Complete batches, run from the command line as users do."""

from __future__ import annotations

import base64
import json
import tomllib
from pathlib import Path

import dpp_gpg

PROJECT = Path(__file__).parents[1]
TEXT = b"id,value\n1,2\n"
MAIN = ("--pre-processors", "gpg-decrypt")


def as_options(**options):
    return ("--options", json.dumps({"gpg-decrypt": options}))


def everything_under(folder):
    return b"\n".join(path.read_bytes() + str(path).encode() for path in folder.rglob("*") if path.is_file())


def test_the_entry_point_names_the_module():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["dpp"] == {"gpg": dpp_gpg.__name__}
    assert [(cls.name, cls.version) for cls in dpp_gpg.dpp_pre_processors()] == [("gpg-decrypt", "1"), ("gpg-verify", "1")]


def test_a_batch_of_good_and_broken_files(ring, stranger, site, manifest, run_batch, results, tmp_path):
    whole = ring.encrypt(TEXT * 1000, ring.acme)
    bodies = {
        "good": whole,
        "cut": whole[:-100],
        "foreign": stranger.encrypt(TEXT, stranger.key),
        "bomb": ring.encrypt(bytes(1_000_000), ring.acme),
        "plain": TEXT,
    }
    files = manifest([{"url": site.add(f"/{name}.csv.gpg", body), "id": name} for name, body in bodies.items()])
    run = run_batch(files, *MAIN, *as_options(gnupghome=str(ring.home), max_bytes=500_000), "--workers", 2)
    assert run.returncode == 1, run.stderr
    found = {name: row["error_class"] for name, row in results().items()}
    failed = {"cut": "gpg-truncated", "foreign": "gpg-no-key", "bomb": "gpg-limit", "plain": "gpg-not-encrypted"}
    assert found == {"good": None, **failed}
    assert results()["good"]["result"]["size"] == len(TEXT) * 1000
    plain = [path.name for path in tmp_path.glob("dpp-workspace/pre_processed/**/*") if path.suffix != ".json" and path.is_file()]
    assert plain == ["good.csv"]


def test_another_keyring_lets_a_rerun_do_what_is_missing(ring, stranger, site, manifest, dpp, results):
    messages = {"ours": ring.encrypt(TEXT, ring.acme), "foreign": stranger.encrypt(TEXT, stranger.key)}
    files = manifest([{"url": site.add(f"/{name}.csv.gpg", body), "id": name} for name, body in messages.items()])
    assert dpp("run", files, *MAIN, *as_options(gnupghome=str(ring.home)))[0] == 1
    code, _, err = dpp("run", files, *MAIN, *as_options(gnupghome=str(stranger.home)))
    assert code == 0, err
    assert {name: row["cached"] for name, row in results().items()} == {"ours": True, "foreign": False}
    # Downloaded again: the sender may have encrypted it to the wrong key, and replaced it
    assert site.counts() == {"/ours.csv.gpg": 1, "/foreign.csv.gpg": 2}


def test_the_passphrase_is_nowhere(ring, site, manifest, run_batch, tmp_path):
    ring.forget()
    entries = [{"url": site.add(f"/{number}.csv.gpg", ring.encrypt(TEXT, ring.locked))} for number in range(6)]
    (tmp_path / "luigi.cfg").write_text(f"[gpg-decrypt]\ngnupghome={ring.home}\npassphrase_env=SECRET\n")
    run = run_batch(manifest(entries), *MAIN, "--chunk-size", 2, "--workers", 2, "--debug", "--log-file", "x.log", SECRET=ring.passphrase)
    assert run.returncode == 0, run.stderr
    secret = ring.passphrase.encode()
    assert secret not in (run.stdout + run.stderr).encode()
    assert secret not in everything_under(tmp_path)
    assert base64.b64encode(secret) not in everything_under(tmp_path)


def test_wrong_options_stop_the_run_before_anything_is_fetched(gpg_is_there, site, manifest, dpp):
    files = manifest([{"url": site.add("/a.csv.gpg", b"x")}])
    for wrong in ({"passphrase_env": "NOT_SET"}, {"gnupghome": "/nowhere"}, {"gpg": "no-such-gpg"}, {"passphrase_file": "/nowhere"}):
        code, _, err = dpp("run", files, *MAIN, *as_options(**wrong))
        assert code == 2
        assert f"options of gpg-decrypt:\n  {next(iter(wrong))}: " in err
    assert not site.counts()


def test_files_are_verified_and_then_decrypted(ring, site, manifest, dpp, results):
    message = ring.encrypt(TEXT, ring.acme)
    good = base64.b64encode(ring.sign(message, ring.sender)).decode()
    other = base64.b64encode(ring.sign(b"other", ring.sender)).decode()
    signatures = {"good": good, "bad": other, "none": None}
    entries = [{"url": site.add(f"/{name}.csv.gpg", message), "id": name, "signature": text} for name, text in signatures.items()]
    home = {"gnupghome": str(ring.home)}
    options = json.dumps({"gpg-verify": {**home, "signer": ring.sender}, "gpg-decrypt": home})
    code, _, err = dpp("run", manifest(entries), "--pre-processors", "gpg-verify,gpg-decrypt", "--options", options)
    assert code == 1, err
    found = {name: row["error_class"] for name, row in results().items()}
    assert found == {"good": None, "bad": "gpg-bad-signature", "none": "gpg-no-signature"}
