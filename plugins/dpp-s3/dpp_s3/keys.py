"""Create keys of objects from a template such as ``data/{ext}/{provider}/{name}``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import Any, NamedTuple

from dpp import FileData, StageError

KEY_BYTES = 1024
NO_EXTENSION = "none"
# Fields that are not text, or may contain a secret
_HIDDEN = frozenset({"url", "urls", "headers", "local_path", "output_dir", "processing_history", "error"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Upload(NamedTuple):
    """A file to upload.

    Attributes:
        path: Path of the file.
        name: Its name, or its path below the folder that is uploaded.
    """

    path: Path
    name: str


def uploads(path: Path) -> list[Upload]:
    """Return the files to upload: the file itself, or all regular files of a folder, sorted by path.

    Symbolic links are skipped. The names of several files start with the name of the folder.

    Raises:
        StageError: There is no file to upload.
    """
    found = sorted(_members(path)) if path.is_dir() else [path]
    if not found:
        raise StageError(f"nothing to upload: the folder {path.name} has no regular files", "s3-empty")
    if found == [path]:
        return [Upload(path, path.name)]
    base = path if len(found) == 1 else path.parent
    return [Upload(member, member.relative_to(base).as_posix()) for member in found]


def _members(folder: Path) -> Iterator[Path]:
    for member in folder.iterdir():
        if member.is_symlink():
            continue
        if member.is_dir():
            yield from _members(member)
        elif member.is_file():
            yield member


def fields_of(template: str) -> list[str]:
    """Return the names of a template's fields.

    Raises:
        ValueError: The template is invalid.
    """
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"expected a template such as data/{{ext}}/{{name}}: {error}") from error
    fields = [part[1] for part in parts if part[1] is not None]
    if any(part[2] or part[3] for part in parts) or not all(field.isidentifier() for field in fields):
        raise ValueError("expected plain fields such as {name}, without conversion, format, dots or brackets")
    if hidden := sorted(_HIDDEN.intersection(fields)):
        raise ValueError(f"the field {{{hidden[0]}}} is not allowed in a key: it is not a plain text, or may contain a secret")
    if not fields:
        raise ValueError("the template has no field, so all files would get the same key; add {name} or {id}")
    return fields


def key_for(template: str, prefix: str, upload: Upload, file: FileData, sha256: str) -> str:
    """Return the key for a file.

    Args:
        template: Template of the key.
        prefix: Text before the template's result.
        upload: The file to upload, for ``name``, ``stem`` and ``ext``.
        file: The batch's file, for every other field.
        sha256: SHA-256 of the file to upload, or "" if the template does not use it.

    Raises:
        StageError: The file does not have a field of the template, or the key is invalid.
    """
    own = _own(upload, sha256)
    values = {field: own[field] if field in own else _value(field, file) for field in fields_of(template)}
    key = prefix + template.format_map(values)
    if problem := _problem(key):
        raise StageError(f"the key for {upload.name!r} would be {key!r}, which {problem}; change the template or the manifest", "s3-key")
    return key


def _own(upload: Upload, sha256: str) -> dict[str, str]:
    suffix = PurePosixPath(upload.name).suffix
    stem = upload.name.removesuffix(suffix)
    return {"name": upload.name, "stem": stem, "ext": suffix[1:].lower() or NO_EXTENSION, "sha256": sha256}


def _value(field: str, file: FileData) -> str:
    extra: Mapping[str, Any] = file.model_extra or {}
    value = extra[field] if field in extra else getattr(file, field) if field in FileData.model_fields else None
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or value == "":
        problem = "is missing" if value is None else "is empty" if value == "" else "is neither text nor a number"
        raise StageError(f"the key's template uses the field {field!r}, which {problem}; change the template or the manifest", "s3-key")
    return str(value)


def _problem(key: str) -> str:
    """Return what is wrong with a key, or ""."""
    # S3 allows such keys, but tools that map them to files or URLs do not
    segments = key.split("/")
    if key.startswith("/"):
        return "starts with a slash"
    if "" in segments:
        return "has an empty part between slashes or at its end"
    if {".", ".."}.intersection(segments):
        return "has . or .. between slashes"
    if _CONTROL.search(key):
        return "has a control character"
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        return "is not valid Unicode"
    return f"is longer than {KEY_BYTES} bytes" if size > KEY_BYTES else ""
