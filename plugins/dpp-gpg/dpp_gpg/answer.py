"""What gpg said: status lines, which are made for programs, and log lines, which are made for people.

The status lines are described in GnuPG's ``doc/DETAILS``, section "Format of the --status-fd output".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

VERDICTS = {
    "GOODSIG": "good",
    "EXPSIG": "a signature that has expired",
    "EXPKEYSIG": "made with a key that has expired",
    "REVKEYSIG": "made with a key that was revoked",
    "BADSIG": "bad: the data is not what was signed",
    "ERRSIG": "not to be checked",
}
_STATUS = "[GNUPG:] "
_LOG = re.compile(r"gpg: (?!DBG:)")  # what --debug adds may hold what goes between gpg and its agent
_UNKNOWN_KEY = "9"
_ERRSIG_CODE, _ERRSIG_FINGERPRINT = 5, 6
_VALIDSIG_PRIMARY = 9
_SHOWN = 200


@dataclass
class Signature:
    """One signature and what gpg thinks of it.

    Attributes:
        verdict: A key of ``VERDICTS``.
        key_id: The key's id, 16 hexadecimal digits.
        fingerprints: Of the key that signed and of its primary key, where gpg knows them.
        key_is_missing: Whether the public key is not in the keyring.
    """

    verdict: str
    key_id: str
    fingerprints: set[str] = field(default_factory=set)
    key_is_missing: bool = False

    @property
    def is_good(self) -> bool:
        """Whether the signature, and the key that made it, are valid now."""
        return self.verdict == "GOODSIG" and bool(self.fingerprints)

    def __str__(self) -> str:
        meaning = "by a key that is not in the keyring" if self.key_is_missing else VERDICTS[self.verdict]
        return f"{max(self.fingerprints, default=self.key_id)} ({meaning})"


class Answer:
    """What one run of gpg said.

    Args:
        text: Its standard error, with the status lines in it.
        returncode: Its exit code; negative where a signal ended it.
    """

    def __init__(self, text: str, returncode: int) -> None:
        lines = text.split("\n")  # not splitlines(): a user id may hold what Unicode takes for the end of a line
        self.returncode = returncode
        self.log = [line for line in lines if _LOG.match(line)]
        self._statuses = [line.removeprefix(_STATUS).split(" ") for line in lines if line.startswith(_STATUS)]

    def __contains__(self, keyword: str) -> bool:
        return any(status[0] == keyword for status in self._statuses)

    def values(self, keyword: str) -> list[list[str]]:
        """Return the words after a keyword, for each of its status lines."""
        return [status[1:] for status in self._statuses if status[0] == keyword]

    def logged(self, pattern: str) -> str | None:
        """Return the first group of the first log line that a pattern is found in."""
        found = (re.search(pattern, line) for line in self.log)
        return next((match[1] for match in found if match), None)

    def said_anything(self) -> bool:
        """Whether gpg got as far as looking at the data."""
        return bool({status[0] for status in self._statuses} - {"FAILURE", "KEY_CONSIDERED"})

    def last_words(self) -> str:
        """Return the last of what gpg said to people, safe to show."""
        words = self.log[-1].removeprefix("gpg: ")[:_SHOWN] if self.log else f"nothing, and ended with exit code {self.returncode}"
        return "".join(character if character.isprintable() else "?" for character in words)

    def signatures(self) -> list[Signature]:
        """Return the signatures that gpg looked at, in order."""
        return list(self._signatures())

    def _signatures(self) -> Iterator[Signature]:
        """Yield signatures; VALIDSIG, which says only that the mathematics is right, follows the verdict that it belongs to."""
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
