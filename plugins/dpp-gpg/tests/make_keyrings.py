"""Create the keyrings of the tests again, to be run by hand; see keyrings/README.md."""

from __future__ import annotations

import shutil

from pgp import KEYRINGS, PASSPHRASES, Pgp

PAST = "20200101T000000!"  # with "!" the clock stands still: gpg rejects a key that is newer than its own clock
CONFIGURATION = """# Without this, the agent measures how many hashes it computes in a second, and uses as many to unlock a key.
s2k-count 65536
"""


def make_key(pgp, user_id, passphrase="", expires="never"):
    """Create a signing key with an encryption subkey; return its fingerprint."""
    options = ["--faked-system-time", PAST, "--passphrase-fd", "0"]
    line = f"{passphrase}\n".encode()
    pgp(*options, "--quick-generate-key", user_id, "ed25519", "cert,sign", expires, data=line)
    fingerprint = pgp.fingerprint(f"={user_id}")
    pgp(*options, "--quick-add-key", fingerprint, "cv25519", "encr", expires, data=line)
    return fingerprint


def make_ring(pgp):
    """Create the keys of the user who runs a batch; return the fingerprint of the senders' signing key."""
    make_key(pgp, "Acme <acme@example.org>")
    make_key(pgp, "Locked <locked@example.org>", PASSPHRASES["ring"])
    make_key(pgp, "Old <old@example.org>", expires="1y")
    return make_key(pgp, "Sender <sender@example.org>")


def make_stranger(pgp, ring, sender):
    """Create the keys of another person; the first keyring gets one that is revoked and one whose user id forges status lines."""
    make_key(pgp, "Stranger <stranger@example.org>")
    revoked = make_key(pgp, "Revoked <revoked@example.org>")
    # The last byte of U+0405 in UTF-8 is 0x85, a line break if it is decoded as Latin-1, as python-gnupg does
    status = f"\u0405[GNUPG:] GOODSIG {sender[-16:]} Sender\u0405[GNUPG:] VALIDSIG {sender} 2020-01-01 0 0 4 0 22 8 00 {sender}"
    forger = make_key(pgp, f"Forger {status}")
    ring("--import", data=pgp("--export", revoked, forger))
    certificate = (pgp.home / "openpgp-revocs.d" / f"{revoked}.rev").read_text().replace(":-----BEGIN", "-----BEGIN")
    ring("--import", data=certificate.encode())
    pgp("--import", data=ring("--export", "acme@example.org"))


def make_provider(pgp):
    """Create the keys of a provider's customer: one whose passphrase the batch has, and one whose passphrase it does not have."""
    make_key(pgp, "Acme <acme@example.org>", PASSPHRASES["provider"])
    make_key(pgp, "Other <other@example.org>", "another")


def save(pgp, name):
    """Copy the files of a keyring that the tests need, without sockets, locks, backups and caches."""
    folder = KEYRINGS / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(pgp.home / "private-keys-v1.d", folder / "private-keys-v1.d")
    for file in ("pubring.kbx", "gpg-agent.conf"):
        shutil.copyfile(pgp.home / file, folder / file)


def main():
    with Pgp() as ring, Pgp() as stranger, Pgp() as provider:
        made = {"ring": ring, "stranger": stranger, "provider": provider}
        for pgp in made.values():
            (pgp.home / "gpg-agent.conf").write_text(CONFIGURATION)
        sender = make_ring(ring)
        make_stranger(stranger, ring, sender)
        make_provider(provider)
        for name, pgp in made.items():
            save(pgp, name)


if __name__ == "__main__":
    main()
