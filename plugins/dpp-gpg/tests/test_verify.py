"""Verification of detached signatures: where they are found, and which are valid."""

from __future__ import annotations

import base64

import pytest
from dpp import FileData, StageError
from pydantic import ValidationError

from dpp_gpg import GpgVerify

TEXT = b"id,value\n1,2\n"
PAST = ("--faked-system-time", "20200601T000000")


@pytest.fixture
def step(ring):
    return GpgVerify(gnupghome=ring.home)


@pytest.fixture
def signature(ring):
    return ring.sign(TEXT, ring.sender)


@pytest.fixture
def in_field(process):
    """Return a function that verifies bytes with a signature in the manifest's field."""
    return lambda step, signature, data=TEXT: process(step, data, "x.csv", signature=base64.b64encode(signature).decode())


@pytest.mark.parametrize("options", [[], ["--armor"]])
@pytest.mark.parametrize("place", ["field", "x.csv.sig", "x.csv.asc", "original.sig"])
def test_a_signature_is_found(ring, step, process, tmp_path, options, place):
    signature = ring.sign(TEXT, ring.sender, *options)
    if place.endswith(".asc") and not options:
        signature = ring.sign(TEXT, ring.sender, "--armor")
    fields = {"signature": (signature if options else base64.encodebytes(signature)).decode()}
    if place != "field":
        fields = {"url": f"file://{tmp_path}/{'original' if 'original' in place else 'x.csv'}"}
        (tmp_path / place).write_bytes(signature)
    done = process(step, TEXT, "x.csv", **fields)
    assert (done.text, done.left, done.message) == (TEXT, [], "None")


def test_the_field_comes_first_and_may_have_another_name(ring, process, tmp_path, signature):
    (tmp_path / "x.csv.sig").write_bytes(b"no signature")
    step = GpgVerify(gnupghome=ring.home, signature_field="proof")
    assert process(step, TEXT, "x.csv", proof=base64.b64encode(signature).decode()).text == TEXT
    assert process(step, TEXT, "x.csv").error_class == "gpg-bad-signature"


def test_a_percent_encoded_url_leads_to_the_signature(step, process, tmp_path, signature):
    (tmp_path / "a b.csv.sig").write_bytes(signature)
    assert process(step, TEXT, "x.csv", url=f"file://localhost{tmp_path}/a%20b.csv").text == TEXT


def test_an_asc_that_is_no_signature_is_none(ring, step, process, tmp_path):
    (tmp_path / "x.csv.asc").write_bytes(ring.encrypt(TEXT, ring.acme, "--armor"))
    assert process(step, TEXT, "x.csv").error_class == "gpg-no-signature"


def test_a_file_without_a_signature_fails_or_passes(ring, step, process):
    assert process(step, TEXT, "x.csv").error_class == "gpg-no-signature"
    assert process(step, TEXT, "x.csv", signature="").error_class == "gpg-no-signature"
    assert process(GpgVerify(gnupghome=ring.home, required=False), TEXT, "x.csv").text == TEXT


def test_a_bad_signature_fails_also_where_none_is_required(ring, in_field, signature):
    for required in (True, False):
        done = in_field(GpgVerify(gnupghome=ring.home, required=required), signature, TEXT + b" ")
        assert done.error_class == "gpg-bad-signature"
        assert "the data differs from what was signed" in done.message


@pytest.mark.parametrize("value", [5, ["x"], "not base64!", "YWJj", "-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----\n"])
def test_what_is_no_signature_is_a_bad_one(step, process, value):
    assert process(step, TEXT, "x.csv", signature=value).error_class == "gpg-bad-signature"


def test_what_was_given_as_a_signature_is_named(ring, step, process, tmp_path):
    for given, look in (
        (b"<html>404", "an HTML page"),
        (ring("--export"), "a public key"),
        (b"-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----\n", "a damaged one"),
    ):
        (tmp_path / "x.csv.sig").write_bytes(given)
        done = process(step, b"x", "x.csv")
        assert (done.error_class, f"got {look}" in done.message) == ("gpg-bad-signature", True), done.message


def test_a_signed_text_is_no_detached_signature(ring, step, in_field):
    assert in_field(step, ring("--local-user", ring.sender, "--sign", data=TEXT)).error_class == "gpg-bad-signature"
    assert in_field(step, ring("--local-user", ring.sender, "--clear-sign", data=TEXT)).error_class == "gpg-bad-signature"


def test_a_signature_cut_or_flipped_is_no_good_one(step, in_field, signature):
    for position in range(0, len(signature), 5):
        flipped = bytearray(signature)
        flipped[position] ^= 4
        assert in_field(step, signature[: position + 1]).error_class in ("gpg-bad-signature", "gpg-no-key")
        assert in_field(step, bytes(flipped), b"other").error_class


def test_a_signature_of_a_megabyte_is_not_read(step, process, tmp_path):
    (tmp_path / "x.csv.sig").write_bytes(bytes(2**20 + 1))
    assert process(step, TEXT, "x.csv").error_class == "gpg-bad-signature"


def test_the_signer_has_to_be_the_one_that_is_asked_for(ring, in_field, signature):
    assert in_field(GpgVerify(gnupghome=ring.home, signer=[ring.sender, ring.acme]), signature).text == TEXT
    done = in_field(GpgVerify(gnupghome=ring.home, signer=ring.acme), signature)
    assert done.error_class == "gpg-signer"
    assert f"by {ring.acme}; the file is signed by {ring.sender} (good)" in done.message


def test_a_key_that_is_not_in_the_keyring_is_named(stranger, step, in_field):
    done = in_field(step, stranger.sign(TEXT, stranger.key))
    assert done.error_class == "gpg-no-key"
    assert stranger.key in done.message


def test_one_good_signature_of_several_is_enough_if_none_is_bad(ring, stranger, step, in_field, signature):
    assert in_field(step, signature + stranger.sign(TEXT, stranger.key)).text == TEXT
    assert in_field(step, signature + ring.sign(b"other", ring.acme)).error_class == "gpg-bad-signature"


def test_what_has_expired_fails(ring, step, in_field):
    key_expired = ring.sign(TEXT, ring.old, *PAST)
    signature_expired = ring.sign(TEXT, ring.acme, *PAST, "--default-sig-expire", "1d")
    for signature in (key_expired, signature_expired):
        done = in_field(step, signature)
        assert done.error_class == "gpg-expired"
        assert "has expired" in done.message


def test_a_revoked_key_fails(stranger, step, in_field):
    assert in_field(step, stranger.sign(TEXT, "revoked@example.org")).error_class == "gpg-revoked"


def test_a_user_id_cannot_forge_a_signature(ring, stranger, in_field):
    # The forger's user id has status lines in it, if U+0405 is decoded as Latin-1; see make_keyrings.py
    assert ring.fingerprint(f"\u0405[GNUPG:] VALIDSIG {ring.sender}") == stranger.fingerprint("Forger")
    done = in_field(GpgVerify(gnupghome=ring.home, signer=ring.sender), stranger.sign(TEXT, "Forger"))
    assert done.error_class == "gpg-signer"


def test_a_folder_has_no_signature(step, tmp_path):
    with pytest.raises(StageError, match="before unpacking"):
        step.pre_process(FileData(url="https://example.org/x", local_path=tmp_path))


def test_the_keyring_is_part_of_the_cache_key(ring):
    assert set(GpgVerify(gnupghome=ring.home, gpg="gpg").model_dump(exclude_defaults=True)) == {"gnupghome"}


def test_passphrases_are_no_option(gpg_is_there):
    with pytest.raises(ValidationError, match="not permitted"):
        GpgVerify(passphrase_env="HOME")
