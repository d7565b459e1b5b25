"""The pre-processor ``gpg-verify``."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from dpp import FileData, StageError

from dpp_gpg.content import SIGNATURE, described
from dpp_gpg.options import Fingerprints, GpgStep
from dpp_gpg.packets import SIGNATURE_ARMOR
from dpp_gpg.verdicts import check_detached

LARGEST_SIGNATURE = 1024 * 1024


class GpgVerify(GpgStep):
    """Verify the detached signature of a file; the file stays unchanged.

    The signature is read from a field of the file, or else from a file next to it with ``.sig`` or ``.asc`` added to its name,
    or else, for a ``file:`` URL, from such a file next to the original.
    """

    name = "gpg-verify"
    version = "1"
    blames_input = frozenset({"gpg-bad-signature", "gpg-signer"})

    signature_field: str = "signature"
    """Field of the file with an armored signature, or a binary one in base64."""
    signer: Fingerprints = ()
    """Fingerprints of accepted signers, 40 hexadecimal digits each; if empty, every key of the keyring is accepted."""
    required: bool = True
    """Whether a file without a signature fails; an invalid signature always fails the file."""

    def pre_process(self, file: FileData) -> FileData:
        """Verify the signature and return the file unchanged; see the class."""
        assert file.local_path is not None
        if not file.local_path.is_file():
            raise StageError("expected a signed file, got a folder; run gpg-verify before unpacking", "gpg-no-signature")
        signature = self._signature(file, file.local_path)
        if signature is not None:
            given = described(signature)
            output = self._tool.verify(signature, file.local_path)
            check_detached(output, self.signer, "a damaged one" if given == SIGNATURE else given)
        elif self.required:
            raise StageError(
                f"no signature found; expected one in the field {self.signature_field!r}, or in a .sig or .asc file next to the file",
                "gpg-no-signature",
            )
        return file

    def _signature(self, file: FileData, path: Path) -> bytes | None:
        text = (file.model_extra or {}).get(self.signature_field)
        if text:
            return _decoded(text)
        found = (_read(place) for place in _places(file.url, path))
        return next((signature for signature in found if signature is not None), None)


def _decoded(text: object) -> bytes:
    """Return the signature in a field."""
    if not isinstance(text, str):
        raise StageError(f"expected text in the signature field, got {type(text).__name__}", "gpg-bad-signature")
    if SIGNATURE_ARMOR.decode() in text:
        return text.encode()
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise StageError("expected an armored signature or base64 in the signature field", "gpg-bad-signature") from error


def _places(url: str, path: Path) -> Iterator[Path]:
    """Yield the paths of possible signature files."""
    parts = urlsplit(url)
    originals = [path]
    if parts.scheme.lower() == "file" and parts.netloc.lower() in ("", "localhost"):
        originals.append(Path(os.fsdecode(unquote_to_bytes(parts.path))))
    for original in originals:
        yield from (original.with_name(original.name + suffix) for suffix in (".sig", ".asc") if original.name)


def _read(place: Path) -> bytes | None:
    """Return the signature in a file, or None if there is no such file or its content is not a signature."""
    try:
        with place.open("rb") as stream:
            signature = stream.read(LARGEST_SIGNATURE + 1)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise StageError(f"cannot read the signature {place}: {error.strerror}", "gpg-no-signature") from error
    if len(signature) > LARGEST_SIGNATURE:
        raise StageError(f"expected a signature of at most {LARGEST_SIGNATURE} bytes; {place} is larger", "gpg-bad-signature")
    # .asc files may also be keys or messages
    return signature if place.suffix == ".sig" or SIGNATURE_ARMOR in signature else None
