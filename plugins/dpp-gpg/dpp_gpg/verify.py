"""The pre-processor ``gpg-verify``."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from dpp import FileData, StageError

from dpp_gpg.options import Fingerprints, GpgStep
from dpp_gpg.packets import SIGNATURE_ARMOR
from dpp_gpg.verdicts import check_detached

LARGEST_SIGNATURE = 1024 * 1024


class GpgVerify(GpgStep):
    """Verify the detached signature of a file, and leave the file as it is.

    The signature is the text of a field of the file; or else a file beside the one that is verified, with ``.sig`` or ``.asc``
    added to its name; or else, of a ``file:`` URL, such a file beside the original.
    """

    name = "gpg-verify"
    version = "1"
    blames_input = frozenset({"gpg-bad-signature", "gpg-signer"})

    signature_field: str = "signature"
    """Field of the file that holds an armored signature, or a binary one as base64."""
    signer: Fingerprints = ()
    """Fingerprints of accepted signers, 40 hexadecimal digits each; without any, every key of the keyring is accepted."""
    required: bool = True
    """Fail a file without a signature; a signature must be good in any case."""

    def pre_process(self, file: FileData) -> FileData:
        """Return the file unchanged; see the class."""
        assert file.local_path is not None
        if not file.local_path.is_file():
            raise StageError("is a folder, and only a file can have a signature; verify before unpacking", "gpg-no-signature")
        signature = self._signature(file, file.local_path)
        if signature is not None:
            check_detached(self._tool.verify(signature, file.local_path), self.signer)
        elif self.required:
            raise StageError(
                f"no signature: neither a field {self.signature_field!r} nor a file with .sig or .asc beside it", "gpg-no-signature"
            )
        return file

    def _signature(self, file: FileData, path: Path) -> bytes | None:
        text = (file.model_extra or {}).get(self.signature_field)
        if text:
            return _decoded(text)
        found = (_read(place) for place in _places(file.url, path))
        return next((signature for signature in found if signature is not None), None)


def _decoded(text: object) -> bytes:
    """Return the signature that a field holds."""
    if not isinstance(text, str):
        raise StageError(f"the field of the signature holds no text but {type(text).__name__}", "gpg-bad-signature")
    if SIGNATURE_ARMOR.decode() in text:
        return text.encode()
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise StageError("the field of the signature holds neither an armored signature nor base64", "gpg-bad-signature") from error


def _places(url: str, path: Path) -> Iterator[Path]:
    """Yield where a signature may lie."""
    parts = urlsplit(url)
    originals = [path]
    if parts.scheme.lower() == "file" and parts.netloc.lower() in ("", "localhost"):
        originals.append(Path(os.fsdecode(unquote_to_bytes(parts.path))))
    for original in originals:
        yield from (original.with_name(original.name + suffix) for suffix in (".sig", ".asc") if original.name)


def _read(place: Path) -> bytes | None:
    """Return the signature in a file; None where there is no such file, or one called .asc that is something else."""
    try:
        with place.open("rb") as stream:
            signature = stream.read(LARGEST_SIGNATURE + 1)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise StageError(f"the signature {place} cannot be read: {error.strerror}", "gpg-no-signature") from error
    if len(signature) > LARGEST_SIGNATURE:
        raise StageError(f"{place} is no signature: it has more than {LARGEST_SIGNATURE} bytes", "gpg-bad-signature")
    return signature if place.suffix == ".sig" or SIGNATURE_ARMOR in signature else None
