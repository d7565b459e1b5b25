"""Parse the output of gpg: status lines for programs (GnuPG's ``doc/DETAILS``, "Format of the --status-fd output") and log lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

VERDICTS = {
    "GOODSIG": "good",
    "EXPSIG": "the signature has expired",
    "EXPKEYSIG": "the key has expired",
    "REVKEYSIG": "the key was revoked",
    "BADSIG": "bad: the data differs from what was signed",
    "ERRSIG": "cannot be checked",
}
_STATUS = "[GNUPG:] "
# Not debug lines: they may contain the traffic between gpg and gpg-agent, with passphrases
_LOG = re.compile(r"gpg: (?!DBG:)")
_UNKNOWN_KEY = "9"
_ERRSIG_CODE, _ERRSIG_FINGERPRINT = 5, 6
_VALIDSIG_PRIMARY = 9
_SHOWN = 200


@dataclass
class Signature:
    """One signature and gpg's verdict on it.

    Attributes:
        verdict: A key of ``VERDICTS``.
        key_id: The key's id, 16 hexadecimal digits.
        fingerprints: Fingerprints of the signing key and of its primary key, if gpg knows them.
        key_is_missing: Whether the public key is not in the keyring.
    """

    verdict: str
    key_id: str
    fingerprints: set[str] = field(default_factory=set)
    key_is_missing: bool = False

    @property
    def is_good(self) -> bool:
        """Whether the signature and its key are valid now."""
        return self.verdict == "GOODSIG" and bool(self.fingerprints)

    def __str__(self) -> str:
        meaning = "the key is not in the keyring" if self.key_is_missing else VERDICTS[self.verdict]
        return f"{max(self.fingerprints, default=self.key_id)} ({meaning})"


class GpgOutput:
    """The output of one run of gpg.

    Args:
        text: Its standard error, status lines included.
        returncode: Its exit code; negative if a signal ended it.
    """

    def __init__(self, text: str, returncode: int) -> None:
        # Not splitlines(): a user id may contain a Unicode line separator, and so forge status lines
        lines = text.split("\n")
        self.returncode = returncode
        self.log = [line for line in lines if _LOG.match(line)]
        self._statuses = [line.removeprefix(_STATUS).split(" ") for line in lines if line.startswith(_STATUS)]

    def __contains__(self, keyword: str) -> bool:
        return any(status[0] == keyword for status in self._statuses)

    def values(self, keyword: str) -> list[list[str]]:
        """Return the words after a keyword, as one list per status line."""
        return [status[1:] for status in self._statuses if status[0] == keyword]

    def logged(self, pattern: str) -> str | None:
        """Return the first group of the first log line that matches a pattern, or None."""
        found = (re.search(pattern, line) for line in self.log)
        return next((match[1] for match in found if match), None)

    def has_read_data(self) -> bool:
        """Return whether gpg has started to read the data."""
        return bool({status[0] for status in self._statuses} - {"FAILURE", "KEY_CONSIDERED"})

    def last_line(self) -> str:
        """Return the last log line, shortened and printable, or the exit code if there is none."""
        words = self.log[-1].removeprefix("gpg: ")[:_SHOWN] if self.log else f"no message, exit code {self.returncode}"
        return "".join(character if character.isprintable() else "?" for character in words)

    def signatures(self) -> list[Signature]:
        """Return the signatures that gpg checked, in order."""
        return list(self._signatures())

    def _signatures(self) -> Iterator[Signature]:
        """Yield the signatures, each with the fingerprints of the VALIDSIG line after its verdict."""
        # VALIDSIG alone is not enough: it is also written for keys that have expired or were revoked
        current: Signature | None = None
        for keyword, *words in self._statuses:
            if keyword in VERDICTS:
                current = _signature(keyword, words)
                yield current
            elif keyword == "NEWSIG":
                current = None
            elif keyword == "VALIDSIG" and current is not None:
                current.fingerprints |= {words[0], *words[_VALIDSIG_PRIMARY : _VALIDSIG_PRIMARY + 1]}


def _signature(verdict: str, words: list[str]) -> Signature:
    if verdict != "ERRSIG":
        return Signature(verdict, words[0])
    fingerprint = {word for word in words[_ERRSIG_FINGERPRINT : _ERRSIG_FINGERPRINT + 1] if word != "-"}
    return Signature(verdict, words[0], fingerprint, words[_ERRSIG_CODE : _ERRSIG_CODE + 1] == [_UNKNOWN_KEY])
