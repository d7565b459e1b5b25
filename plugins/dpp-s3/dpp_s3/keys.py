"""Keys of objects, made from a template such as ``data/{ext}/{provider}/{name}``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import Any, NamedTuple

from dpp import FileData, StageError

KEY_BYTES = 1024
NO_EXTENSION = "none"
_HIDDEN = frozenset({"url", "urls", "headers", "local_path", "output_dir", "processing_history", "error"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Upload(NamedTuple):
    """A file to be uploaded.

    Attributes:
        path: Where it lies.
        name: Its name, or its path below the folder that it is a part of.
    """

    path: Path
    name: str


def uploads(path: Path) -> list[Upload]:
    """Return what is to be uploaded: the file itself, or every regular file of a folder, in the order of their paths.

    Symbolic links are left out. Where there are several files, the folder's name stands before their paths.

    Raises:
        StageError: There is nothing to be uploaded.
    """
    found = sorted(_members(path)) if path.is_dir() else [path]
    if not found:
        raise StageError(f"{path.name} is a folder without a regular file, so there is nothing to upload", "s3-empty")
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
    """Return the fields that a template names.

    Raises:
        ValueError: It can never make a key.
    """
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"is no template such as data/{{ext}}/{{name}}: {error}") from error
    fields = [part[1] for part in parts if part[1] is not None]
    if any(part[2] or part[3] for part in parts) or not all(field.isidentifier() for field in fields):
        raise ValueError("takes plain fields such as {name} only, without conversion, format, dots and brackets")
    if hidden := sorted(_HIDDEN.intersection(fields)):
        raise ValueError(f"cannot have {{{hidden[0]}}}: it is no part of a key, or may hold a secret")
    if not fields:
        raise ValueError("names no field, so that all files would get one key; use {name} or {id}")
    return fields


def key_for(template: str, prefix: str, upload: Upload, file: FileData, sha256: str) -> str:
    """Return the key for a file.

    Args:
        template: What it looks like, after the prefix.
        prefix: What it begins with.
        upload: What is to be uploaded, for ``name``, ``stem`` and ``ext``.
        file: The file that it belongs to, for every other field.
        sha256: Digest of what is to be uploaded, if the template names it.

    Raises:
        StageError: The file has no such field, or the key would be no good one.
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
        state = "no" if value is None else "an empty" if value == "" else "no plain"
        raise StageError(f"the file has {state} field {field!r}, which the template of its key names", "s3-key")
    return str(value)


def _problem(key: str) -> str:
    """Say what is wrong with a key, or ""."""
    segments = key.split("/")
    if key.startswith("/"):
        return "begins with a slash"
    if "" in segments:
        return "has an empty part between slashes or at its end"
    if {".", ".."}.intersection(segments):
        return "has . or .. between slashes"
    if _CONTROL.search(key):
        return "has a control character"
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        return "is no Unicode text"
    return f"is longer than {KEY_BYTES} bytes" if size > KEY_BYTES else ""
