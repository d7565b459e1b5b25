"""Check the output of gpg, and raise an error that describes what is wrong; this module starts no process."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from dpp import StageError

from dpp_gpg.output import GpgOutput, Signature
from dpp_gpg.packets import is_cut

# Codes of libgpg-error, in the lower 16 bits: bad passphrase, bad PIN, no pinentry, cancelled, no passphrase
_PASSPHRASE_CODES = {11, 87, 85, 99, 177}
_CODE_MASK = 0xFFFF
_BINARY = "62"  # "b", the format of a literal data packet without conversion of line ends (RFC 9580, section 5.9)
_MACHINE = {os.strerror(code): code for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE)}
_NOT_SHOWN = "0" * 16  # the key id of a hidden recipient


class Limit(NamedTuple):
    """The maximum size of a plain text.

    Attributes:
        most: The size, in bytes.
        option: The option that sets it.
        seconds: The maximum processor time, which a message without plain text could use up, too.
    """

    most: int
    option: str
    seconds: int


def check_decrypted(output: GpgOutput, source: Path, written: int, signer: Collection[str] = ()) -> None:
    """Check that gpg decrypted a complete, unmodified message and wrote all of its plain text.

    Args:
        output: The output of gpg.
        source: The message, to find out whether it is truncated.
        written: Size of the plain text in the output file, in bytes.
        signer: Fingerprints of accepted signers; if empty, no signature is needed.

    Raises:
        StageError: The message, its signature or its keys are not valid.
        OSError: The machine failed, such as with a full disk.
    """
    _check_output(output)
    if "DECRYPTION_OKAY" not in output or "GOODMDC" not in output:
        raise _undecrypted(output, source)
    if signer:
        _check_signer(output, signer)
    if output.returncode or not _is_whole(output, written):
        raise _incomplete(output, written)


def check_limit(output: GpgOutput, limit: Limit) -> None:
    """Check that gpg was not stopped by the limit for the plain text.

    Raises:
        StageError: The plain text is larger, or takes too long.
    """
    advice = f"if you trust the file, raise {limit.option}"
    if output.returncode == -signal.SIGXCPU:
        what = f"gpg was stopped after {limit.seconds} s of processor time, the limit by {limit.option} of gpg-decrypt"
        raise StageError(f"{what}; the message may be a decompression bomb; {advice}", "gpg-limit")
    # gpg reports this in a log line only; its status lines are the same as for a success
    if output.logged("(exceeded --max-output limit)"):
        what = f"the plain text has more than {limit.most} bytes, the limit by {limit.option} of gpg-decrypt"
        raise StageError(f"{what}; {advice}", "gpg-limit")


def _check_output(output: GpgOutput) -> None:
    """Check that gpg wrote all of the plain text."""
    # As above, in log lines only
    reason = output.logged(r"^gpg: error (?:writing to|closing|creating) .*: (.*)")
    if reason in _MACHINE:
        raise OSError(_MACHINE[reason], reason)
    if reason:
        raise StageError(f"gpg could not write the plain text: {reason}", "gpg-failed")


def _is_whole(output: GpgOutput, written: int) -> bool:
    """Return whether there was one message with one text of the length in its header, if it has one."""
    texts = output.values("PLAINTEXT")
    lengths = output.values("PLAINTEXT_LENGTH")
    is_counted = bool(lengths) and texts[:1] != [] and texts[0][0] == _BINARY
    return (
        len(output.values("BEGIN_DECRYPTION")) == len(output.values("DECRYPTION_OKAY")) == len(texts) == 1
        and "DECRYPTION_FAILED" not in output
        and (not is_counted or lengths == [[str(written)]])
    )


def _incomplete(output: GpgOutput, written: int) -> StageError:
    other = next((signature for signature in output.signatures() if not signature.is_good), None)
    if other is not None:
        return StageError(f"a signature in the message is not valid: {other}", "gpg-signer")
    lengths = ", ".join(words[0] for words in output.values("PLAINTEXT_LENGTH")) or "an unknown number of"
    expected = f"expected one text of {lengths} bytes with nothing before or after it"
    return StageError(f"{expected}, got {written} bytes of plain text; gpg: {output.last_line()}", "gpg-corrupt")


def _undecrypted(output: GpgOutput, source: Path) -> StageError:
    """Return the error for a message without plain text."""
    return (
        _no_program(output)
        or _no_passphrase(output)
        or _no_key(output)
        or _no_protection(output)
        or (
            StageError("the message is truncated; ask the sender for a complete copy", "gpg-truncated")
            if is_cut(source)
            else StageError(f"the message is damaged or was modified; gpg: {output.last_line()}", "gpg-corrupt")
        )
    )


def _no_program(output: GpgOutput) -> StageError | None:
    reason = output.logged(r"^gpg: ((?:can't connect to|failed to start|error running).*agent.*)")
    if reason:
        # The path of the agent's socket may have 107 bytes (sun_path in unix(7))
        advice = "check that gpg-agent is installed, and that the path of gnupghome is shorter than 90 characters"
        return StageError(f"gpg cannot use gpg-agent, which holds the secret keys: {reason}; {advice}", "gpg-failed")
    if output.returncode < 0:
        return StageError(f"gpg was killed by signal {-output.returncode}", "gpg-failed")
    # For a short armored message with a wrong checksum, gpg writes that log line and no status line
    is_read = output.has_read_data() or output.logged("(CRC error)")
    return None if is_read else StageError(f"gpg failed: {output.last_line()}", "gpg-failed")


def _no_passphrase(output: GpgOutput) -> StageError | None:
    codes = {_code(words[1]) for words in output.values("ERROR") if words[1:]}
    if not codes & _PASSPHRASE_CODES:
        return None
    what = "message" if "NEED_PASSPHRASE_SYM" in output else "secret key"
    advice = "set it with passphrase_env or passphrase_file"
    return StageError(f"the passphrase of the {what} is wrong or missing; {advice}", "gpg-passphrase")


def _code(word: str) -> int:
    """Return the code of a libgpg-error value, which may include its name or source: ``11_BAD_PASSPHRASE``, ``67108875``."""
    digits = word.partition("_")[0]
    return int(digits) & _CODE_MASK if digits.isdecimal() else 0


def _no_key(output: GpgOutput) -> StageError | None:
    if "NO_SECKEY" not in output or "DECRYPTION_INFO" in output:
        return None
    keys = [words[0] if words[0] != _NOT_SHOWN else "a hidden key" for words in output.values("ENC_TO")]
    advice = "import the secret key with gpg --import, or set gnupghome to the folder of the keyring that has it"
    return StageError(f"no secret key for the message, which is encrypted to {', '.join(keys)}; {advice}", "gpg-no-key")


def _no_protection(output: GpgOutput) -> StageError | None:
    """Return the error for a message without integrity protection: neither MDC (RFC 9580, section 5.13.1) nor AEAD."""
    if not any(words[0] == "0" and words[2:] in ([], ["0"]) for words in output.values("DECRYPTION_INFO")):
        return None
    advice = "ask the sender to encrypt it with a current OpenPGP program and with MDC enabled"
    return StageError(f"the message has no integrity protection (no MDC); {advice}", "gpg-unprotected")


def _check_signer(output: GpgOutput, signer: Collection[str]) -> None:
    signatures = output.signatures()
    if not any(signature.is_good and signature.fingerprints & set(signer) for signature in signatures):
        found = f"the message is signed by {_listed(signatures)}" if signatures else "the message is not signed"
        raise StageError(f"expected a valid signature by {' or '.join(signer)}; {found}", "gpg-signer")


def check_detached(output: GpgOutput, signer: Collection[str], given: str) -> None:
    """Check that a detached signature is valid and by an accepted signer.

    Args:
        output: The output of gpg.
        signer: Fingerprints of accepted signers; if empty, every key of the keyring is accepted.
        given: What was given in place of a signature, if it is not one.

    Raises:
        StageError: The signature is not valid, or not by an accepted signer.
    """
    signatures = output.signatures()
    if not signatures or "PLAINTEXT" in output:
        raise StageError(f"expected a detached signature, got {given}; gpg: {output.last_line()}", "gpg-bad-signature")
    if any(signature.verdict == "BADSIG" for signature in signatures):
        raise StageError(f"the signature does not match the file: {_listed(signatures)}", "gpg-bad-signature")
    good = [signature for signature in signatures if signature.is_good]
    if not good:
        raise _not_good(signatures)
    if signer and not any(signature.fingerprints & set(signer) for signature in good):
        raise StageError(f"expected a valid signature by {' or '.join(signer)}; the file is signed by {_listed(signatures)}", "gpg-signer")


def _not_good(signatures: list[Signature]) -> StageError:
    classes = {"EXPSIG": "gpg-expired", "EXPKEYSIG": "gpg-expired", "REVKEYSIG": "gpg-revoked"}
    if any(signature.key_is_missing for signature in signatures):
        advice = "make sure that the key belongs to the signer, then import it with gpg --import"
        return StageError(f"cannot check the signature by {_listed(signatures)}; {advice}", "gpg-no-key")
    error_class = classes.get(signatures[0].verdict, "gpg-bad-signature")
    return StageError(f"the signature is not valid: {_listed(signatures)}", error_class)


def _listed(signatures: list[Signature]) -> str:
    return ", ".join(map(str, signatures))
