"""Checks of gpg's output, for outputs that no message of the tests produces."""

from __future__ import annotations

import errno

import pytest
from dpp import StageError

from dpp_gpg.output import GpgOutput
from dpp_gpg.verdicts import check_decrypted, check_detached

KEY = "A" * 40
GOOD = """[GNUPG:] BEGIN_DECRYPTION
[GNUPG:] DECRYPTION_INFO 2 9 0
[GNUPG:] PLAINTEXT 62 0 x
[GNUPG:] PLAINTEXT_LENGTH 6
[GNUPG:] DECRYPTION_OKAY
[GNUPG:] GOODMDC
[GNUPG:] END_DECRYPTION
"""
SIGNED = f"""[GNUPG:] NEWSIG
[GNUPG:] GOODSIG {KEY[:16]} x
[GNUPG:] VALIDSIG {KEY} 2020-01-01 0 0 4 0 22 8 00 {KEY}
"""


@pytest.fixture
def judge(tmp_path):
    """Return a function that checks the output of a decryption and returns the error class, or None."""
    (tmp_path / "x").write_bytes(b"\xd2\x01\x01")

    def run(text, returncode=0, written=6, signer=()):
        try:
            check_decrypted(GpgOutput(text, returncode), tmp_path / "x", written, signer)
        except StageError as error:
            return error.error_class
        return None

    return run


def test_a_good_decryption_is_good(judge):
    assert judge(GOOD) is None
    assert judge(GOOD + SIGNED, signer=[KEY]) is None
    assert judge(GOOD.replace("INFO 2 9 0", "INFO 0 9 2")) is None


def test_a_text_shorter_or_longer_than_its_header_says_is_not_whole(judge):
    assert judge(GOOD, written=5) == "gpg-corrupt"
    assert judge(GOOD, written=7) == "gpg-corrupt"
    assert judge(GOOD.replace("PLAINTEXT 62", "PLAINTEXT 74"), written=5) is None


@pytest.mark.parametrize("missing", ["BEGIN_DECRYPTION", "DECRYPTION_OKAY", "GOODMDC", "PLAINTEXT 62 0 x"])
def test_every_part_of_a_good_answer_is_needed(judge, missing):
    assert judge(GOOD.replace(f"[GNUPG:] {missing}\n", "")) == "gpg-corrupt"


@pytest.mark.parametrize("added", ["PLAINTEXT 62 0 y", "DECRYPTION_OKAY", "BEGIN_DECRYPTION", "DECRYPTION_FAILED"])
def test_nothing_may_come_twice(judge, added):
    assert judge(f"{GOOD}[GNUPG:] {added}\n") == "gpg-corrupt"


def test_an_exit_code_fails_what_looks_good(judge):
    assert judge(GOOD, returncode=2) == "gpg-corrupt"


def test_a_signal_that_ended_gpg_is_told(judge):
    assert judge("[GNUPG:] BEGIN_DECRYPTION\n", returncode=-9) == "gpg-failed"


def test_gpg_that_says_nothing_failed_itself(judge):
    assert judge("gpg: keyblock resource '/x': file open error\n", returncode=2) == "gpg-failed"


@pytest.mark.parametrize("reason", ["No space left on device", "Input/output error"])
def test_an_error_of_the_machine_is_no_failure_of_the_file(judge, reason):
    with pytest.raises(OSError, match=reason) as caught:
        judge(f"gpg: error writing to '/x': {reason}\n{GOOD}", returncode=2)
    assert caught.value.errno in (errno.ENOSPC, errno.EIO)


def test_another_error_of_writing_is_one(judge):
    assert judge(f"gpg: error closing '/x': File too large\n{GOOD}", returncode=2) == "gpg-failed"


@pytest.mark.parametrize("verdict", ["BADSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG"])
def test_only_a_good_signature_counts(judge, verdict):
    other = SIGNED.replace("GOODSIG", verdict)
    assert judge(GOOD + other, signer=[KEY]) == "gpg-signer"
    with pytest.raises(StageError):
        check_detached(GpgOutput(other, 0), [KEY], "text")


def test_a_second_signature_that_is_bad_fails_a_message(judge):
    second = "[GNUPG:] NEWSIG\n[GNUPG:] BADSIG BBBBBBBBBBBBBBBB x\n"
    assert judge(GOOD + SIGNED + second, returncode=1, signer=[KEY]) == "gpg-signer"


def test_a_validsig_belongs_to_its_own_verdict_only():
    output = GpgOutput(f"[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG {KEY[:16]} x\n[GNUPG:] NEWSIG\n[GNUPG:] VALIDSIG {KEY}\n", 0)
    assert [signature.is_good for signature in output.signatures()] == [False]


def test_a_signature_of_an_unknown_algorithm_is_no_missing_key():
    with pytest.raises(StageError) as caught:
        check_detached(GpgOutput(f"[GNUPG:] ERRSIG {KEY[:16]} 99 8 00 0 4 -\n", 2), [], "text")
    assert caught.value.error_class == "gpg-bad-signature"


def test_what_is_shown_of_gpg_s_words_is_printable_and_no_debugging():
    output = GpgOutput("gpg: bad \x1b[31m thing\ngpg: DBG: chan_4 -> D secret\n", 2)
    assert output.last_line() == "bad ?[31m thing"
    assert "exit code 3" in GpgOutput("", 3).last_line()
