"""Describe the class of a step or fetcher: its purpose and its options."""

from __future__ import annotations

import inspect
import re
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

_SECTION = re.compile(r"^(?:Args|Attributes|Example|Examples|Raises):$", re.MULTILINE)


class Option(NamedTuple):
    """An option of a step, a fetcher or a source.

    Attributes:
        name: Its name.
        type: Its type, as written in Python.
        default: Its default; None if it is required.
        required: Whether it must be given.
        description: The field's description, or the string below the field (pydantic's ``use_attribute_docstrings``); "" without both.
    """

    name: str
    type: str
    default: Any
    required: bool
    description: str


def options_of(cls: Any) -> list[Option]:
    """Return the options of a class: the fields of a step, or of a fetcher's ``Options``; none if it is not a pydantic model."""
    model = next((one for one in (cls, getattr(cls, "Options", None)) if isinstance(one, type) and issubclass(one, BaseModel)), None)
    if model is None:
        return []
    return [_to_option(name, field) for name, field in model.model_fields.items() if name != "debug"]


def _to_option(name: str, field: FieldInfo) -> Option:
    required = field.is_required()
    default = None if required else to_jsonable_python(field.get_default(call_default_factory=True), fallback=str)
    return Option(name, _type_name(field.annotation), default, required, " ".join((field.description or "").split()))


def _type_name(kind: Any) -> str:
    """Return a type as written in Python, without modules and pydantic's metadata."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _type_name(parts[0])
    if origin is Literal:
        return " | ".join(map(repr, parts))
    if origin in (Union, UnionType):
        return " | ".join(map(_type_name, parts))
    if origin:
        return f"{_type_name(origin)}[{', '.join(map(_type_name, parts))}]"
    return {type(None): "None", ...: "..."}.get(kind) or str(getattr(kind, "__name__", kind))


def purpose(cls: Any) -> str:
    """Return the docstring of a class, or of a source's plugin, up to its first section."""
    return _SECTION.split(inspect.cleandoc(cls.__doc__ or ""))[0].strip()
