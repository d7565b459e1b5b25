"""Convert the result of a processor to values that JSON can represent (RFC 8259)."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import date, time
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

from pydantic import BaseModel

_ADVICE = {
    set: "return sorted(...), as a set has no order",
    frozenset: "return sorted(...), as a set has no order",
    bytes: "decode it, or encode it as base64",
    complex: "return its real and imaginary parts",
}
_PLAIN = {str, bool, int, type(None)}
# Kinds of numpy's dtypes.
_NUMBERS, _DATES, _TEXTS = "biuf", "M", "U"


class ResultError(ValueError):
    """A result contains a value that JSON cannot represent; the message names its place and its type."""


def to_json(value: Any, place: str = "result") -> Any:
    """Return a result with standard types converted to JSON values.

    - Mappings, lists, tuples, strings, finite numbers, booleans and None stay what they are; a key that is no string becomes one.
    - Dates, times, paths, UUIDs and decimal numbers become strings; an enumeration member becomes its value.
    - Dataclasses and pydantic models become mappings.
    - Scalars and arrays of numpy become numbers, strings and lists, if their elements are numbers, strings or dates.

    Args:
        value: The result.
        place: Its name in messages.

    Raises:
        ResultError: It contains another type, NaN or infinity, or two keys that are the same string in JSON.
        RecursionError: It is nested too deeply, or contains itself.
    """
    if _is_plain(value):
        return value
    for types, convert in _CONVERTERS:
        if isinstance(value, types):
            return convert(value, place)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _from_dataclass(value, place)
    if type(value).__module__ == "numpy" and getattr(getattr(value, "dtype", None), "kind", " ") in _NUMBERS + _DATES + _TEXTS:
        return _from_numpy(value, place)
    raise _unsupported_type(value, place)


def check_writable(value: Any, place: str = "result") -> None:
    """Check the strings and integers of a JSON value, for the message about a value that cannot be written.

    Args:
        value: What :func:`to_json` returned, which does not look at these, as it would take longer than all else.
        place: Its name in messages.

    Raises:
        ResultError: A string is not valid Unicode, or an integer is too long.
    """
    if isinstance(value, (str, int)):
        try:
            str(value).encode()
        except UnicodeEncodeError as error:
            raise ResultError(
                f"{place} is text with a lone surrogate, which is not valid Unicode; replace or escape it in the step"
            ) from error
        except ValueError as error:
            raise ResultError(f"{place} is an integer of too many digits; return it as text: hex(...)") from error
    for index, item in enumerate(value if isinstance(value, list) else ()):
        check_writable(item, f"{place}[{index}]")
    for key, item in value.items() if isinstance(value, dict) else ():
        check_writable(key, f"a key of {place}")
        check_writable(item, f"{place}[{key!r}]")


def _is_plain(value: Any) -> bool:
    return type(value) in _PLAIN or (type(value) is float and math.isfinite(value))


def _elements(value: Iterable[Any], place: str) -> list[Any]:
    # The place is made only where it can be needed: most results have long lists of plain values.
    return [item if _is_plain(item) else to_json(item, f"{place}[{index}]") for index, item in enumerate(value)]


def _number(value: float | Decimal, place: str) -> float | str:
    # math.isfinite raises for a signaling NaN.
    if not (value.is_finite() if isinstance(value, Decimal) else math.isfinite(value)):
        raise _no_value(value, place)
    return float.__float__(value) if isinstance(value, float) else str(value)


def _date(value: date | time, place: str) -> str:
    # NaT of pandas is a date that differs from itself.
    if value != value:  # noqa: PLR0124
        raise _no_value(value, place)
    return value.isoformat()


def _from_dataclass(value: Any, place: str) -> dict[str, Any]:
    fields = [field.name for field in dataclasses.fields(value)]
    # A field with init=False need not have a value.
    if unset := [name for name in fields if not hasattr(value, name)]:
        raise ResultError(f"{place} is a {type(value).__qualname__} whose field {unset[0]!r} has no value; set it in the step")
    return _members(((name, getattr(value, name)) for name in fields), place)


def _from_numpy(value: Any, place: str) -> Any:
    if value.dtype.kind == _DATES:
        if (value != value).any():  # noqa: PLR0124 - NaT differs from itself
            raise _no_value("NaT", place)
        value = value.astype(str)
    elif value.dtype.kind == "f":
        # Lists of long doubles have long doubles.
        value = value.astype(float)
    return to_json(value.tolist(), place)


def _members(items: Iterable[tuple[Any, Any]], place: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in items:
        name = _key(key, place)
        if name in found:
            raise ResultError(f"{place} has two keys that are {name!r} in JSON; use keys that differ as strings")
        found[name] = value if _is_plain(value) else to_json(value, f"{place}[{name!r}]")
    return found


def _key(key: Any, place: str) -> str:
    plain = key if type(key) is str else to_json(key, f"a key of {place}")
    if isinstance(plain, (list, dict)):
        raise _unsupported_type(key, f"a key of {place}")
    # As Python's json module writes them.
    return plain if isinstance(plain, str) else json.dumps(plain)


def _no_value(value: object, place: str) -> ResultError:
    return ResultError(f"{place} has the value {value}, which JSON cannot represent; return None instead")


def _unsupported_type(value: Any, place: str) -> ResultError:
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    dtype = f" of {value.dtype}" if kind.__module__ == "numpy" else ""
    return ResultError(f"{place} is of type {name}{dtype}, which JSON cannot represent; {_ADVICE.get(kind, 'convert it in the step')}")


_CONVERTERS: tuple[tuple[Any, Callable[[Any, str], Any]], ...] = (
    # An enumeration may be a string or a number, too.
    (Enum, lambda value, place: to_json(value.value, place)),
    ((float, Decimal), _number),
    # Subclasses may show another value than theirs.
    (str, lambda value, _: str.__str__(value)),
    (int, lambda value, _: int.__int__(value)),
    ((list, tuple), _elements),
    (Mapping, lambda value, place: _members(value.items(), place)),
    ((PurePath, UUID), lambda value, _: str(value)),
    ((date, time), _date),
    # A RootModel becomes what its root does.
    (BaseModel, lambda value, place: to_json(value.model_dump(warnings=False), place)),
)
