"""Describe the class of a step or fetcher: its purpose and its options."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from contextlib import suppress
from itertools import pairwise
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
        description: The field's description, or the string below the field; "" without both.
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
    texts = _strings_below_fields(model)
    return [_to_option(name, field, texts.get(name, "")) for name, field in model.model_fields.items() if name != "debug"]


def _strings_below_fields(model: type[BaseModel]) -> dict[str, str]:
    """Return the string below each field of a class and its bases, by field."""
    # pydantic's use_attribute_docstrings finds the same, but reads the source when each class is made: that took 90 ms of the
    # 630 ms in which a process starts, and only help shows the texts.
    texts = {}
    for cls in reversed(model.__mro__):
        with suppress(OSError, TypeError):  # a class without source, such as a built-in one
            (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
            for field, text in pairwise(definition.body if isinstance(definition, ast.ClassDef) else ()):
                match field, text:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(found))):
                        texts[name] = found
    return texts


def _to_option(name: str, field: FieldInfo, text: str) -> Option:
    required = field.is_required()
    default = None if required else to_jsonable_python(field.get_default(call_default_factory=True), fallback=str)
    return Option(name, _type_name(field.annotation), default, required, " ".join((field.description or text).split()))


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
