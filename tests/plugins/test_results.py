"""Tests of the conversion of results to JSON."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import uuid
from collections import Counter, OrderedDict, namedtuple
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from dpp.plugins.results import ResultError, check_writable, to_json
from dpp.workspace.atomic import json_line
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, RootModel, SecretStr


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Box:
    width: float
    made: date


class Model(BaseModel):
    path: Path
    box: Box


class Words(RootModel[list[str]]):
    pass


class Holder(BaseModel):
    words: Words


class Shown(str):
    __slots__ = ()

    def __str__(self):
        return "another"


class Counted(int):
    def __int__(self):
        return 0


@dataclasses.dataclass
class Unset:
    later: int = dataclasses.field(init=False)


Pair = namedtuple("Pair", "x y")  # noqa: PYI024 - a plain one, as plugins have it
ID = uuid.uuid4()
BOX = Box(np.int64(7), date(2026, 1, 2))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        ([np.longdouble(0.5), np.array([0.5], np.longdouble)], [0.5, [0.5]]),
        (np.int64(2**62), 2**62),
        (np.bool_(True), True),  # noqa: FBT003
        (np.str_("a"), "a"),
        (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
        (np.array(1.5), 1.5),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array(["2026-01-02"], "datetime64[D]"), ["2026-01-02"]),
        ({np.int64(1): [np.float64(1)]}, {"1": [1.0]}),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05+00:00"),
        ([date(2026, 1, 2), time(3, 4)], ["2026-01-02", "03:04:00"]),
        (Path("a/b"), "a/b"),
        (Decimal("1.10"), "1.10"),
        (ID, str(ID)),
        ([Colour.RED, Level.HIGH], ["red", 3]),
        ({Colour.RED: 1, None: 2, True: 3, 1.5: 4}, {"red": 1, "null": 2, "true": 3, "1.5": 4}),
        (BOX, {"width": 7, "made": "2026-01-02"}),
        (Model(path="a", box=BOX), {"path": "a", "box": {"width": 7, "made": "2026-01-02"}}),
        (Pair(1, (2,)), [1, [2]]),
        (Words(["a"]), ["a"]),
        ({"x": [Holder(words=Words(["a"]))]}, {"x": [{"words": ["a"]}]}),
        ([Shown("own"), Counted(3)], ["own", 3]),
        (OrderedDict(a=Counter("aab")), {"a": {"a": 2, "b": 1}}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_standard_types_become_json(value, expected):
    found = to_json(value)
    assert (found, type(found)) == (expected, type(expected))
    assert json.loads(json_line(found)) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [1, {"b": math.nan}]}, r"result\['a'\]\[1\]\['b'\] has the value nan, which JSON cannot represent; return None instead"),
        ([-math.inf], r"result\[0\] has the value -inf"),
        (Decimal("NaN"), "result has the value NaN"),
        ([Decimal("sNaN")], r"result\[0\] has the value sNaN"),
        ({"a": np.array([1, math.nan])}, r"result\['a'\]\[1\] has the value nan"),
        ([np.datetime64("NaT", "s")], r"result\[0\] has the value NaT"),
        ({"a": {1, 2}}, r"result\['a'\] is of type set, which JSON cannot represent; return sorted\(\.\.\.\), as a set has no order"),
        ([b"x"], r"result\[0\] is of type bytes.*; decode it, or encode it as base64"),
        (Ellipsis, "result is of type ellipsis.*; convert it in the step"),
        ([Box], r"result\[0\] is of type type"),
        ([Unset()], r"result\[0\] is a Unset whose field 'later' has no value; set it in the step"),
        ({(1, 2): 3}, "a key of result is of type tuple"),
        ({math.nan: 3}, "a key of result has the value nan"),
        ({1: "a", "1": "b"}, "result has two keys that are '1' in JSON; use keys that differ as strings"),
        ({"a": {True: "a", "true": "b"}}, r"result\['a'\] has two keys that are 'true'"),
        (np.array([object()]), "result is of type numpy.ndarray of object"),
        (np.complex64(1j), "result is of type numpy.complex64 of complex64"),
        ({"a": SecretStr("hush")}, r"result\['a'\] is of type pydantic.types.SecretStr"),
        ((number for number in [1]), "result is of type generator"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_values_are_refused_with_their_place(value, message):
    with pytest.raises(ResultError, match=f"^{message}") as caught:
        to_json(value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [1, "\ud800"]}, r"result\['a'\]\[1\] is text with a lone surrogate"),
        ({"a": {"\ud800": 1}}, r"a key of result\['a'\] is text with a lone surrogate"),
        ([10**5000], r"result\[0\] is an integer of too many digits"),
    ],
    ids=["text", "key", "integer"],
)
def test_text_and_integers_that_cannot_be_written_are_named(value, message):
    with pytest.raises(ValueError, match=r"surrogate|digits"):
        json_line(to_json(value))
    with pytest.raises(ResultError, match=rf"^{message}"):
        check_writable(to_json(value))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_json_stays_as_it_is(value):
    assert to_json(value) == value
