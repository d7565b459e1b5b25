"""Judging what gpg said: either all is well, or an error that says what is not.

Nothing here runs anything, so that each rule can be tried alone.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection
from pathlib import Path

from dpp import StageError

from dpp_gpg.answer import Answer, Signature
from dpp_gpg.packets import is_cut

# Codes of libgpg-error, in the lower 16 bits: bad passphrase, bad PIN, no pinentry, cancelled, no passphrase
_PASSPHRASE_CODES = {11, 87, 85, 99, 177}
_CODE_MASK = 0xFFFF
_BINARY = "62"  # "b", the format of a literal data packet whose bytes are written as they are (RFC 9580, section 5.9)
_MACHINE = {os.strerror(code): code for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE)}
_NOT_SHOWN = "0" * 16  # the key id of a recipient that the sender hid


def check_decrypted(answer: Answer, source: Path, written: int, signer: Collection[str] = ()) -> None:
    """Make sure that a decryption went well in every respect.

    Args:
        answer: What gpg said.
        source: The message, to find out what is wrong with it.
        written: Bytes of plain text in the file.
        signer: Fingerprints, one of which must have signed; none accepts any data.

    Raises:
        StageError: Something is wrong with the message or its keys.
        OSError: The machine is at fault, such as a full disk.
    """
    _check_output(answer)
    if "DECRYPTION_OKAY" not in answer or "GOODMDC" not in answer:
        raise _undecrypted(answer, source)
    if signer:
        _check_signer(answer, signer)
    if answer.returncode or not _is_whole(answer, written):
        raise _incomplete(answer, written)


def _check_output(answer: Answer) -> None:
    """Look for what gpg calls good although it did not write everything: it tells that to people only."""
    if answer.logged("(exceeded --max-output limit)"):
        raise StageError("the plain text is larger than max_bytes allows; raise that option if the file is what it should be", "gpg-limit")
    reason = answer.logged(r"^gpg: error (?:writing to|closing|creating) .*: (.*)")
    if reason in _MACHINE:
        raise OSError(_MACHINE[reason], reason)
    if reason:
        raise StageError(f"gpg could not write the plain text: {reason}", "gpg-failed")


def _is_whole(answer: Answer, written: int) -> bool:
    """Whether there was one message with one text, and its length is what its packet says, where that does."""
    texts = answer.values("PLAINTEXT")
    lengths = answer.values("PLAINTEXT_LENGTH")
    is_counted = bool(lengths) and texts[:1] != [] and texts[0][0] == _BINARY
    return (
        len(answer.values("BEGIN_DECRYPTION")) == len(answer.values("DECRYPTION_OKAY")) == len(texts) == 1
        and "DECRYPTION_FAILED" not in answer
        and (not is_counted or lengths == [[str(written)]])
    )


def _incomplete(answer: Answer, written: int) -> StageError:
    other = next((signature for signature in answer.signatures() if not signature.is_good), None)
    if other is not None:
        return StageError(f"a signature of the data is not good: {other}", "gpg-signer")
    said = ", ".join(words[0] for words in answer.values("PLAINTEXT_LENGTH")) or "an unknown number of"
    expected = f"expected one text of {said} bytes, and nothing before or after it"
    return StageError(f"{expected}; got {written} bytes of plain text; gpg: {answer.last_words()}", "gpg-corrupt")


def _undecrypted(answer: Answer, source: Path) -> StageError:
    """Say why there is no plain text."""
    return (
        _no_program(answer)
        or _no_passphrase(answer)
        or _no_key(answer)
        or _no_protection(answer)
        or (
            StageError("the message is truncated: its end is missing; its sender should send a whole one", "gpg-truncated")
            if is_cut(source)
            else StageError(f"the message is broken or was changed; gpg: {answer.last_words()}", "gpg-corrupt")
        )
    )


def _no_program(answer: Answer) -> StageError | None:
    reason = answer.logged(r"^gpg: ((?:can't connect to|failed to start|error running).*agent.*)")
    if reason:
        advice = "Is gpg-agent installed, and is the path of gnupghome shorter than 90 characters?"
        return StageError(f"gpg has no agent, which has the secret keys: {reason}. {advice}", "gpg-failed")
    if answer.returncode < 0:
        return StageError(f"gpg was ended by signal {-answer.returncode}", "gpg-failed")
    is_read = answer.said_anything() or answer.logged("(CRC error)")  # of a short armored message, all that gpg says is that
    return None if is_read else StageError(f"gpg failed: {answer.last_words()}", "gpg-failed")


def _no_passphrase(answer: Answer) -> StageError | None:
    codes = {_code(words[1]) for words in answer.values("ERROR") if words[1:]}
    if not codes & _PASSPHRASE_CODES:
        return None
    what = "message" if "NEED_PASSPHRASE_SYM" in answer else "secret key"
    advice = "name the right one with passphrase_env or passphrase_file"
    return StageError(f"the {what} needs another passphrase than it got, or any at all; {advice}", "gpg-passphrase")


def _code(word: str) -> int:
    """Return an error code, which may have its name or its source with it: ``11_BAD_PASSPHRASE``, ``67108875``."""
    digits = word.partition("_")[0]
    return int(digits) & _CODE_MASK if digits.isdecimal() else 0


def _no_key(answer: Answer) -> StageError | None:
    if "NO_SECKEY" not in answer or "DECRYPTION_INFO" in answer:
        return None
    keys = [words[0] if words[0] != _NOT_SHOWN else "a hidden key" for words in answer.values("ENC_TO")]
    advice = "import one with gpg --import, or choose its folder with gnupghome"
    return StageError(f"no secret key: the message is encrypted to {', '.join(keys)}; {advice}", "gpg-no-key")


def _no_protection(answer: Answer) -> StageError | None:
    """Look for a message that anybody could have changed: neither MDC (RFC 9580, section 5.13.1) nor AEAD."""
    if not any(words[0] == "0" and words[2:] in ([], ["0"]) for words in answer.values("DECRYPTION_INFO")):
        return None
    advice = "its sender should use a newer program, or not switch that off"
    return StageError(f"the message is not protected against changes (no MDC); {advice}", "gpg-unprotected")


def _check_signer(answer: Answer, signer: Collection[str]) -> None:
    signatures = answer.signatures()
    if not any(signature.is_good and signature.fingerprints & set(signer) for signature in signatures):
        found = f"it is signed by {_listed(signatures)}" if signatures else "it is not signed"
        raise StageError(f"expected a good signature by {' or '.join(signer)}; {found}", "gpg-signer")


def check_detached(answer: Answer, signer: Collection[str]) -> None:
    """Make sure that a detached signature is good, and by a signer that is asked for.

    Args:
        answer: What gpg said.
        signer: Fingerprints, one of which must have signed; none accepts any key of the keyring.

    Raises:
        StageError: It is not.
    """
    signatures = answer.signatures()
    if not signatures or "PLAINTEXT" in answer:
        raise StageError(f"what should be a detached signature is none; gpg: {answer.last_words()}", "gpg-bad-signature")
    if any(signature.verdict == "BADSIG" for signature in signatures):
        raise StageError(f"the signature does not fit the file: {_listed(signatures)}", "gpg-bad-signature")
    good = [signature for signature in signatures if signature.is_good]
    if not good:
        raise _not_good(signatures)
    if signer and not any(signature.fingerprints & set(signer) for signature in good):
        raise StageError(f"expected a good signature by {' or '.join(signer)}; the file is signed by {_listed(signatures)}", "gpg-signer")


def _not_good(signatures: list[Signature]) -> StageError:
    classes = {"EXPSIG": "gpg-expired", "EXPKEYSIG": "gpg-expired", "REVKEYSIG": "gpg-revoked"}
    if any(signature.key_is_missing for signature in signatures):
        advice = "import the key with gpg --import once you know that it is the right one"
        return StageError(f"the signature cannot be checked: it is by {_listed(signatures)}; {advice}", "gpg-no-key")
    error_class = classes.get(signatures[0].verdict, "gpg-bad-signature")
    return StageError(f"the signature is not good: it is by {_listed(signatures)}", error_class)


def _listed(signatures: list[Signature]) -> str:
    return ", ".join(map(str, signatures))
