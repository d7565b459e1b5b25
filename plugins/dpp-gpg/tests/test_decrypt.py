"""Decryption: plain texts, error classes, and that a failed file leaves nothing behind."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from dpp import FileData
from pydantic import ValidationError

from dpp_gpg import GpgDecrypt
from dpp_gpg.decrypt import plain_name

TEXT = b"id,value\n1,2\n"
LARGE = os.urandom(300_000)


@pytest.fixture
def step(ring):
    return GpgDecrypt(gnupghome=ring.home)


@pytest.fixture
def message(ring):
    return ring.encrypt(TEXT, ring.acme)


@pytest.mark.parametrize("text", [b"", TEXT, LARGE], ids=["empty", "small", "large"])
@pytest.mark.parametrize("options", [[], ["--armor"], ["--throw-keyids"], ["--compress-algo", "none"], ["--set-filename", "/etc/x"]])
def test_a_message_is_decrypted(ring, step, process, text, options):
    done = process(step, ring.encrypt(text, ring.acme, *options))
    assert (done.text, done.file.name, done.left) == (text, "x.csv", ["x.csv"])


def test_a_file_whose_length_its_message_tells_is_decrypted(ring, step, process, tmp_path):
    (tmp_path / "in").write_bytes(LARGE)
    message = ring("--recipient", ring.acme, "--output", "-", "--encrypt", tmp_path / "in")
    assert process(step, message).text == LARGE


def test_a_text_message_gets_the_line_ends_of_this_system(ring, step, process, tmp_path):
    (tmp_path / "in").write_bytes(b"a\nb\n")
    message = ring("--recipient", ring.acme, "--textmode", "--output", "-", "--encrypt", tmp_path / "in")
    assert process(step, message).text == b"a\nb\n"


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("x.csv.gpg", "x.csv"),
        ("X.CSV.PGP", "X.CSV"),
        ("x.asc", "x"),
        ("x.csv", "x.csv"),
        (".gpg", ".gpg"),
        ("..gpg", "..gpg"),
        ("gpg", "gpg"),
    ],
)
def test_the_suffix_of_an_encrypted_file_is_dropped(step, process, message, name, plain):
    assert plain_name(name) == plain
    done = process(step, message, name, name=name)
    assert (done.file.local_path.name, done.file.name) == (plain, plain)


# Passphrases


@pytest.mark.parametrize("kind", ["key", "message"])
@pytest.mark.parametrize("place", ["passphrase_env", "passphrase_file"])
def test_a_passphrase_comes_by_reference(ring, process, monkeypatch, tmp_path, kind, place):
    ring.forget()
    monkeypatch.setenv("SECRET", ring.passphrase)
    secret = tmp_path / "secret"
    secret.write_text(f"{ring.passphrase}\nsecond line\n")
    secret.chmod(0o600)
    step = GpgDecrypt(gnupghome=ring.home, **{place: "SECRET" if place == "passphrase_env" else secret})
    symmetric = [*("--passphrase-file", secret), "--symmetric"]
    message = ring.encrypt(TEXT, ring.locked) if kind == "key" else ring(*symmetric, data=TEXT)
    assert process(step, message).text == TEXT


@pytest.mark.parametrize("given", ["wrong", None])
@pytest.mark.parametrize("kind", ["key", "message"])
def test_a_wrong_or_missing_passphrase_fails_the_file(ring, process, monkeypatch, given, kind):
    ring.forget()
    monkeypatch.setenv("SECRET", given or "")
    step = GpgDecrypt(gnupghome=ring.home, passphrase_env="SECRET" if given else None)
    message = ring.encrypt(TEXT, ring.locked) if kind == "key" else ring("--passphrase-fd", "0", "--symmetric", data=b"pw\ntext")
    ring.forget()
    done = process(step, message)
    assert (done.error_class, done.left) == ("gpg-passphrase", [])
    assert "passphrase_env" in done.message


def test_a_passphrase_that_vanishes_during_the_run_fails_the_file(ring, process, monkeypatch, message):
    monkeypatch.setenv("SECRET", "x")
    step = GpgDecrypt(gnupghome=ring.home, passphrase_env="SECRET")
    monkeypatch.delenv("SECRET")
    assert process(step, message).error_class == "gpg-passphrase"


# Messages that cannot be decrypted


def test_without_the_secret_key_the_message_names_the_keys(ring, stranger, process, message):
    done = process(GpgDecrypt(gnupghome=stranger.home), message)
    keys = stranger("--list-keys", "--with-colons", ring.acme).decode().splitlines()
    encryption_key = next(line.split(":")[4] for line in keys if line.startswith("sub"))
    assert (done.error_class, done.left) == ("gpg-no-key", [])
    assert f"encrypted to {encryption_key};" in done.message


def test_a_hidden_recipient_is_called_so(ring, stranger, process):
    done = process(GpgDecrypt(gnupghome=stranger.home), ring.encrypt(TEXT, ring.acme, "--throw-keyids"))
    assert done.error_class == "gpg-no-key"
    assert "a hidden key" in done.message


def test_a_message_cut_anywhere_fails_and_leaves_nothing(step, process, message):
    for length in range(1, len(message)):
        done = process(step, message[:length])
        assert done.error_class in ("gpg-truncated", "gpg-not-encrypted")
        assert done.error_class == "gpg-truncated" or length <= 2
        assert not done.left


@pytest.mark.parametrize("options", [[], ["--armor"], ["--compress-algo", "none"]])
@pytest.mark.parametrize("lost", [1, 1000, 100_000])
def test_a_large_message_cut_is_truncated_and_leaves_nothing(ring, step, process, options, lost):
    done = process(step, ring.encrypt(LARGE, ring.acme, *options)[: -lost - 60])
    assert (done.error_class, done.left) == ("gpg-truncated", [])


def test_a_message_with_any_bit_flipped_gives_the_right_text_or_fails(step, process, message):
    # gpg ignores some bits, such as those of the key id: it tries its other keys
    classes = set()
    for position in range(len(message)):
        flipped = bytearray(message)
        flipped[position] ^= 1 << position % 8
        done = process(step, bytes(flipped))
        assert done.text in (None, TEXT)
        assert done.text or not done.left
        classes.add(done.error_class)
    assert {"gpg-corrupt", "gpg-no-key"} <= classes


@pytest.mark.parametrize("size", [1, 1000, 100_000])
def test_an_armored_message_whose_checksum_is_wrong_is_corrupt(ring, step, process, size):
    armored = ring.encrypt(TEXT * size, ring.acme, "--armor")
    checksum = armored.rindex(b"\n=") + 2
    done = process(step, armored[:checksum] + b"AAAA" + armored[checksum + 4 :])
    assert (done.error_class, done.left) == ("gpg-corrupt", [])


@pytest.mark.parametrize("after", [b"x", b"\n", b"more text\n", bytes(1000)])
def test_bytes_after_the_message_fail_it(step, process, message, after):
    done = process(step, message + after)
    assert (done.error_class, done.left) == ("gpg-corrupt", [])


@pytest.mark.parametrize("options", [[], ["--armor"]])
def test_two_messages_in_one_file_are_not_taken_for_one(ring, step, process, options):
    done = process(step, 2 * ring.encrypt(TEXT, ring.acme, *options))
    assert (done.error_class, done.left) == ("gpg-corrupt", [])
    assert "one text" in done.message


def test_a_message_without_protection_against_changes_is_refused(ring, step, process):
    done = process(step, ring.encrypt(TEXT, ring.acme, "--rfc2440", "--disable-mdc"))
    assert (done.error_class, done.left) == ("gpg-unprotected", [])


@pytest.mark.parametrize("options", [[], ["--compress-algo", "none"], ["--compress-algo", "bzip2"]])
def test_more_plain_text_than_allowed_is_refused(ring, process, options):
    message = ring.encrypt(bytes(2_000_000), ring.acme, *options)
    done = process(GpgDecrypt(gnupghome=ring.home, max_bytes=1_999_999), message)
    assert (done.error_class, done.left) == ("gpg-limit", [])
    assert len(process(GpgDecrypt(gnupghome=ring.home, max_bytes=2_000_000), message).text) == 2_000_000


@pytest.mark.parametrize("options", [[], ["--compress-algo", "bzip2"]])
def test_a_bomb_is_refused_by_its_ratio(ring, process, options):
    message = ring.encrypt(bytes(20_000_000), ring.acme, *options)
    done = process(GpgDecrypt(gnupghome=ring.home, max_ratio=100), message)
    assert (done.error_class, "raise max_ratio" in done.message, done.left) == ("gpg-limit", True, [])
    assert len(process(GpgDecrypt(gnupghome=ring.home, max_ratio=1e6), message).text) == 20_000_000
    assert len(process(GpgDecrypt(gnupghome=ring.home, max_ratio=1), ring.encrypt(bytes(16_777_216), ring.acme)).text) == 16_777_216


def test_a_bomb_without_plain_text_is_stopped(ring, process, tmp_path, monkeypatch):
    monkeypatch.setattr("dpp_gpg.decrypt.FEWEST_SECONDS", 1)
    monkeypatch.setattr("dpp_gpg.decrypt.BYTES_PER_SECOND", 1 << 40)
    pack = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    size, count = 1024 * 1024, 4000
    # One packet of a private type (RFC 9580, section 5), which gpg skips
    inside = pack.compress(b"\xfc\xff" + (size * count).to_bytes(4, "big")) + pack.flush(zlib.Z_FULL_FLUSH)
    inside += count * (pack.compress(bytes(size)) + pack.flush(zlib.Z_FULL_FLUSH)) + pack.flush()
    (tmp_path / "packets").write_bytes(b"\xc8\xff" + (len(inside) + 1).to_bytes(4, "big") + b"\1" + inside)
    message = ring("--no-literal", "--compress-algo", "none", "--recipient", ring.acme, "-o", "-", "--encrypt", tmp_path / "packets")
    done = process(GpgDecrypt(gnupghome=ring.home), message)
    assert (done.error_class, "processor time" in done.message, done.left) == ("gpg-limit", True, [])


# Files that are not messages


@pytest.mark.parametrize("kind", ["text", "empty", "signed", "clear-signed", "keys", "armored"])
def test_what_is_no_encrypted_message_fails_or_passes(ring, step, process, kind):
    data = {
        "text": lambda: TEXT,
        "empty": lambda: b"",
        "signed": lambda: ring("--local-user", ring.sender, "--sign", data=TEXT),
        "clear-signed": lambda: ring("--local-user", ring.sender, "--clear-sign", data=TEXT),
        "keys": lambda: ring("--export"),
        "armored": lambda: ring("--local-user", ring.sender, "--armor", "--sign", data=TEXT),
    }[kind]()
    done = process(step, data, "x.csv")
    assert (done.error_class, done.left) == ("gpg-not-encrypted", [])
    lenient = GpgDecrypt(gnupghome=ring.home, required=False)
    done = process(lenient, data, "x.csv")
    assert (done.text, done.left) == (data, [])
    assert process(lenient, data, "x.csv.gpg").error_class == "gpg-not-encrypted"


OTHERS = {
    "a detached signature": ["--detach-sign"],
    "a signed OpenPGP message that is not encrypted": ["--compress-algo", "none", "--sign"],
    "a compressed OpenPGP message that is not encrypted": ["--sign"],
    "a clear-signed text": ["--clear-sign"],
    "an OpenPGP message that is not encrypted": ["--compress-algo", "none", "--store"],
}


@pytest.mark.parametrize(("look", "command"), OTHERS.items())
def test_what_is_not_encrypted_is_named(ring, step, process, look, command):
    done = process(step, ring("--local-user", ring.sender, *command, data=TEXT))
    assert f"got {look}" in done.message


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b"> ", b"  "], ids=["byte order mark", "quoted", "indented"])
def test_a_message_behind_marks_is_named(ring, step, process, mark):
    lines = ring.encrypt(TEXT, ring.acme, "--armor").splitlines(keepends=True)
    done = process(step, b"".join(mark + line for line in lines))
    assert "got text with an OpenPGP message in it; remove all text and marks before it" in done.message


def test_other_files_are_named(ring, step, process):
    others = {
        "a public key": ring("--export", ring.sender),
        "a public key;": ring("--armor", "--export", ring.sender),
        "a detached signature": ring("--armor", "--local-user", ring.sender, "--detach-sign", data=TEXT),
        "an armored OpenPGP message that is not": ring("--armor", "--local-user", ring.sender, "--sign", data=TEXT),
        "text with an OpenPGP message in it": b"Dear Sir\n\n" + ring.encrypt(TEXT, ring.acme, "--armor"),
        "an HTML page": b"<!DOCTYPE html>",
        "a zip archive": b"PK\3\4\x14\0",
        "a gzip file": b"\x1f\x8b\x08\0",
        "text": TEXT,
        "an empty file": b"",
        "a file of another format": bytes(100),
    }
    for look, data in others.items():
        done = process(step, data)
        assert (done.error_class, f"got {look}" in done.message) == ("gpg-not-encrypted", True), done.message


def test_a_message_in_a_message_is_reported(ring, step, process, message, caplog):
    twice = ring.encrypt(message, ring.acme)
    assert process(step, twice, "x.csv.gpg.gpg").text == message
    assert caplog.messages == []
    assert process(step, twice, "x.csv.gpg").text == message
    assert ["encrypted once more" in text for text in caplog.messages] == [True]


def test_a_folder_is_no_message(ring, step, tmp_path):
    file = FileData(url="https://example.org/x", local_path=tmp_path, output_dir=tmp_path)
    assert GpgDecrypt(gnupghome=ring.home, required=False).pre_process(file).local_path == tmp_path


# Signers


@pytest.mark.parametrize("written", [str, str.lower, lambda fingerprint: " ".join(fingerprint[at : at + 4] for at in range(0, 40, 4))])
def test_a_signer_is_recognised(ring, process, written):
    step = GpgDecrypt(gnupghome=ring.home, signer=[ring.acme, written(ring.sender)])
    assert process(step, ring.encrypt(TEXT, ring.acme, "--sign", "--local-user", ring.sender)).text == TEXT


def test_data_that_the_signer_did_not_sign_fails(ring, stranger, process, message):
    step = GpgDecrypt(gnupghome=ring.home, signer=ring.sender)
    messages = {
        "the message is not signed": message,
        f"the message is signed by {ring.acme} (good)": ring.encrypt(TEXT, ring.acme, "--sign", "--local-user", ring.acme),
        "(the key is not in the keyring)": stranger.encrypt(TEXT, ring.acme, "--sign", "--local-user", stranger.key),
    }
    for reason, data in messages.items():
        done = process(step, data)
        assert (done.error_class, done.left) == ("gpg-signer", [])
        assert reason in done.message


def test_a_key_that_has_expired_does_not_count(ring, process):
    options = ("--faked-system-time", "20200601T000000", "--sign", "--local-user", ring.old)
    done = process(GpgDecrypt(gnupghome=ring.home, signer=ring.old), ring.encrypt(TEXT, ring.acme, *options))
    assert done.error_class == "gpg-signer"
    assert "expired" in done.message


def test_a_key_that_was_revoked_does_not_count(ring, stranger, process):
    revoked = stranger.fingerprint("revoked@example.org")
    message = stranger.encrypt(TEXT, ring.acme, "--sign", "--local-user", revoked)
    done = process(GpgDecrypt(gnupghome=ring.home, signer=revoked), message)
    assert (done.error_class, "revoked" in done.message, done.left) == ("gpg-signer", True, [])


def test_an_expired_key_of_ours_still_decrypts(ring, step, process):
    message = ring.encrypt(TEXT, ring.old, "--faked-system-time", "20200601T000000")
    assert process(step, message).text == TEXT


def test_without_a_signer_a_key_that_is_not_there_is_not_missed(ring, stranger, step, process):
    assert process(step, stranger.encrypt(TEXT, ring.acme, "--sign", "--local-user", stranger.key)).text == TEXT


# The machine


SCRIPT = """
import sys
import zlib
from pathlib import Path
from dpp import FileData
from dpp_gpg import GpgDecrypt

home, *folders = sys.argv[1:]
for folder in map(Path, folders):
    out = folder / "disk" / "out"
    file = FileData(url="https://example.org/x.gpg", local_path=folder / "x.gpg", output_dir=out)
    try:
        GpgDecrypt(gnupghome=home).pre_process(file)
    except OSError as error:
        print("errno", error.errno, list(out.iterdir()))
"""
FULL_DISK = """
set -e
for folder in "$MIDDLE" "$END"; do
    mount -t tmpfs -o size=256k none "$folder/disk"
    mkdir "$folder/disk/out"
done
head -c 112144 /dev/zero > "$MIDDLE/disk/fill"
head -c 262144 /dev/zero > "$END/disk/fill"
exec "$@"
"""


def test_a_full_disk_stops_the_run_and_leaves_nothing(ring, tmp_path):
    # Once in the middle of a text, once at its end, where gpg still writes DECRYPTION_OKAY
    if not shutil.which("unshare"):
        pytest.fail("unshare not found; install with: apt-get install util-linux")
    folders = {"MIDDLE": tmp_path / "middle", "END": tmp_path / "end"}
    for folder, text in zip(folders.values(), (LARGE, bytes(4096)), strict=True):
        (folder / "disk").mkdir(parents=True)
        (folder / "x.gpg").write_bytes(ring.encrypt(text, ring.acme))
    script = [sys.executable, "-c", SCRIPT, ring.home, *folders.values()]
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", FULL_DISK, "sh", *script],
        env={**os.environ, **folders},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == 2 * f"errno {errno.ENOSPC} []\n", done.stderr


def test_a_write_that_is_cut_short_fails_and_leaves_nothing(ring, process, tmp_path):
    program = tmp_path / "limited-gpg"
    program.write_text('#!/bin/sh\nulimit -f 200\nexec gpg "$@"\n')  # 200 blocks of 512 bytes, less than the 300,000 bytes of LARGE
    program.chmod(0o755)
    done = process(GpgDecrypt(gnupghome=ring.home, gpg=str(program)), ring.encrypt(LARGE, ring.acme))
    assert (done.error_class, done.left) == ("gpg-failed", [])


def test_an_agent_that_cannot_start_is_told_from_a_missing_key(ring, process, tmp_path, message):
    home = tmp_path / ("x" * 110)
    shutil.copytree(ring.home, home, ignore=shutil.ignore_patterns("S.*", "*.lock"))
    done = process(GpgDecrypt(gnupghome=home), message)
    assert done.error_class == "gpg-failed"
    assert "shorter" in done.message


def test_many_threads_decrypt_at_once(ring, tmp_path):
    ring.stop()  # so that all threads start an agent at once
    texts = [os.urandom(1000 * number) for number in range(40)]
    files = []
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.gpg").write_bytes(ring.encrypt(text, ring.acme))
        (tmp_path / f"out{number}").mkdir()
        files.append(FileData(url=f"file:///{number}.gpg", local_path=tmp_path / f"{number}.gpg", output_dir=tmp_path / f"out{number}"))
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda file: GpgDecrypt(gnupghome=ring.home).pre_process(file), files))
    assert [file.local_path.read_bytes() for file in made] == texts


# Secrets


@pytest.fixture
def watched_gpg(tmp_path):
    """A gpg that logs every command line of the machine and its own environment before it starts."""
    program = tmp_path / "watched-gpg"
    log = tmp_path / "watched.log"
    program.write_text(
        f"#!/bin/sh\n(cat /proc/[0-9]*/cmdline; cat /proc/$$/environ) 2>/dev/null | tr '\\0' '\\n' >> '{log}'\nexec gpg \"$@\"\n"
    )
    program.chmod(0o755)
    return program, log


def test_the_passphrase_is_seen_by_nobody_else(ring, process, monkeypatch, watched_gpg, caplog):
    program, log = watched_gpg
    ring.forget()
    caplog.set_level("DEBUG")
    monkeypatch.setenv("SECRET", ring.passphrase)
    step = GpgDecrypt(gnupghome=ring.home, passphrase_env="SECRET", gpg=str(program), debug=True)
    done = process(step, ring.encrypt(TEXT, ring.locked))
    assert done.text == TEXT
    seen = log.read_text(errors="replace")
    assert "--passphrase-fd" in seen
    assert "LC_ALL=C.UTF-8" in seen
    everything = [seen, caplog.text, repr(step), repr(step.__dict__), step.model_dump_json(), done.file.model_dump_json()]
    assert not [text for text in everything if ring.passphrase in text]
    assert not [record for record in caplog.records if record.name == "gnupg"]


def test_where_secrets_are_found_is_no_part_of_the_cache_key(ring, monkeypatch, tmp_path):
    monkeypatch.setenv("SECRET", "x")
    step = GpgDecrypt(gnupghome=ring.home, passphrase_env="SECRET", max_bytes=5)
    assert step.model_dump(exclude_defaults=True) == {"max_bytes": 5}


# Options


def options(tmp_path, monkeypatch):
    """Return wrong options, each with a part of its error message."""
    (tmp_path / "open").write_text("secret\n")
    (tmp_path / "open").chmod(0o640)
    (tmp_path / "blank").write_text("\nsecret\n")
    (tmp_path / "blank").chmod(0o600)
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setenv("TWO_LINES", "x\ny")
    return [
        ({"gpg": "no-such-gpg"}, "apt-get install gnupg"),
        ({"gpg": "true"}, "not GnuPG 2.2.8 or newer"),
        ({"gpg": "false"}, "cannot run"),
        ({"gnupghome": tmp_path / "none"}, "expected the folder of the keyrings"),
        ({"gnupghome": tmp_path / "open"}, "expected the folder of the keyrings"),
        ({"passphrase_env": "NOT_SET"}, "environment variable that is set"),
        ({"passphrase_env": "my secret"}, "environment variable that is set"),
        ({"passphrase_env": "EMPTY"}, "is empty"),
        ({"passphrase_env": "TWO_LINES"}, "line break"),
        ({"passphrase_file": tmp_path / "none"}, "No such file"),
        ({"passphrase_file": tmp_path}, "Is a directory"),
        ({"passphrase_file": tmp_path / "open"}, "mode 640"),
        ({"passphrase_file": tmp_path / "blank"}, "is empty"),
        ({"passphrase_env": "SECRET", "passphrase_file": tmp_path / "blank"}, "is empty"),
        ({"signer": "1234"}, "40 hexadecimal digits"),
        ({"signer": "A" * 40, "required": False}, "remove one of them"),
        ({"max_bytes": 0}, "greater than or equal to 1"),
        ({"passphrase": "x"}, "not permitted"),
    ]


def test_wrong_options_are_refused_when_the_step_is_made(tmp_path, monkeypatch, gpg_is_there):
    for wrong, said in options(tmp_path, monkeypatch):
        with pytest.raises(ValidationError, match=said) as caught:
            GpgDecrypt(**wrong)
        assert "my secret" not in str(caught.value)


def test_a_home_that_the_environment_names_is_checked_too(tmp_path, monkeypatch, gpg_is_there):
    monkeypatch.setenv("GNUPGHOME", str(tmp_path / "none"))
    with pytest.raises(ValidationError, match=r"\$GNUPGHOME: .*not a readable folder"):
        GpgDecrypt()


def test_a_home_that_the_environment_names_is_used(ring, monkeypatch, process, message):
    monkeypatch.setenv("GNUPGHOME", str(ring.home))
    assert process(GpgDecrypt(), message).text == TEXT


def test_several_signers_may_be_one_text(ring):
    assert GpgDecrypt(signer=f"{ring.sender}, {ring.acme}").signer == tuple(sorted([ring.sender, ring.acme]))
