"""Read a text of URLs, one per line, as wget and curl read it; and input files of aria2, whose lines may have options.

Source of aria2's format: https://aria2.github.io/manual/en/html/aria2c.html#input-file
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any

from dpp.manifest.entries import Entry
from dpp.manifest.lines import BLANKS, Lines, TooLongError

log = logging.getLogger(__name__)

_OPTION = re.compile(r"[ \t]+([a-z][a-z0-9-]*)=(.*)", re.DOTALL)

_DIGEST = re.compile(r"((?:sha|md)-?[0-9]+)\s*=\s*([0-9a-f]+)", re.IGNORECASE)


def read_urls(lines: Lines) -> Iterator[Entry]:
    """Yield an entry for each line; blank lines, and lines that begin with ``#``, are skipped.

    Further URLs of a line, separated by tabs, are mirrors. The indented lines after it are its options.
    """
    options = _Options()
    entry: Entry | None = None
    try:
        for line in lines.rows():
            if line[0] in " \t" and (option := _OPTION.match(line)):
                entry = options.apply(f"line {lines.number}", entry, option[1], option[2].strip(BLANKS))
                continue
            text = line.strip(BLANKS)
            if not text or text.startswith("#"):
                continue
            if entry:
                yield entry
            entry = _entry(f"line {lines.number}", text)
    except TooLongError:
        if entry:
            yield entry
        raise
    if entry:
        yield entry
    options.warn()


def _entry(where: str, line: str) -> Entry:
    if " " in line and "://" in line.split(" ", maxsplit=1)[0]:
        return Entry(where, None, "contains a blank; if it is part of the URL, write %20; if a name follows the URL, use a table: url,name")
    if "\t" not in line:
        return Entry(where, {"url": line})
    urls = [url for part in line.split("\t") if (url := part.strip(BLANKS))]
    if all("://" in url for url in urls):
        return Entry(where, {"url": urls[0], "urls": urls[1:]})
    return Entry(where, None, "has several columns; expected one URL per line, or a header with a column url")


class _Options:
    """Apply the options of aria2 to entries, and collect the names of those that dpp does not have."""

    def __init__(self) -> None:
        self._unused: set[str] = set()

    def apply(self, where: str, entry: Entry | None, name: str, value: str) -> Entry:
        """Return an entry with an option: ``out`` is its name, ``header`` a request header, ``checksum`` its digest."""
        if entry is None:
            return Entry(where, None, f"the option {name}= comes before the first URL")
        if entry.fields is None:
            return entry
        fields: dict[str, Any] = dict(entry.fields)
        if name == "out":
            fields["name"] = value
        elif name == "header" and ":" in value:
            field, _, content = value.partition(":")
            fields["headers"] = {**fields.get("headers", {}), field.strip(): content.strip()}
        elif name == "checksum" and (digest := _DIGEST.fullmatch(value)):
            # The fields of a manifest are sha256, md5 and so on.
            fields[digest[1].lower().replace("-", "")] = digest[2]
        elif name == "checksum":
            fields[name] = value
        else:
            self._unused.add(name)
        return entry._replace(fields=fields)

    def warn(self) -> None:
        """Log the names of all options that had no effect."""
        if self._unused:
            log.warning("options of aria2 that dpp does not use: %s", ", ".join(sorted(self._unused)))
