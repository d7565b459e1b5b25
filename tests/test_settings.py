"""Tests of settings: defaults, limits, and messages with all invalid values."""

from __future__ import annotations

import os
from pathlib import Path
from types import MappingProxyType

import pytest
from dpp import ConfigurationError, Settings
from dpp.redact import redact_text
from dpp.settings import ROUNDS, SMALLEST_CHUNK, make_settings
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError


def test_the_defaults_make_a_run(tmp_path):
    settings = make_settings({})
    assert (settings.workspace, settings.processor, settings.attempts) == (tmp_path / "dpp-workspace", "checksum", 3)


def test_the_workspace_is_absolute_and_knows_the_home_folder(tmp_path):
    assert make_settings({"workspace": "~/w"}).workspace == tmp_path / "w"
    assert make_settings({"workspace": "a/../b"}).workspace == tmp_path / "b"


def test_every_wrong_value_is_named_at_once():
    with pytest.raises(ConfigurationError) as caught:
        make_settings({"attempts": 0, "read_timeout": "soon", "procesor": 1, "debug": "perhaps"})
    assert str(caught.value).splitlines() == [
        "attempts: should be greater than or equal to 1, got 0",
        "read_timeout: should be a number",
        "debug: should be true or false",
        "unknown setting 'procesor'; did you mean 'processor'?",
    ]


@pytest.mark.parametrize("name", ["retry_wait", "retry_wait_max", "retry_after_max", "connect_timeout", "read_timeout", "total_timeout"])
@pytest.mark.parametrize("value", ["inf", "nan", float("inf"), -1])
def test_times_are_finite_and_not_negative(name, value):
    with pytest.raises(ConfigurationError, match=name):
        make_settings({name: value})


@pytest.mark.parametrize(
    "wrong",
    [
        {"workspace": "~nobody-of-this-name/w"},
        {"workspace": "s3://bucket/w"},
        {"workspace": Path(os.fsdecode(b"caf\xe9"))},
        {"workspace": "a\0b"},
        {"log_file": "a\0b"},
    ],
)
def test_a_path_that_can_not_be_is_refused(wrong):
    with pytest.raises(ConfigurationError, match=f"^{next(iter(wrong))}: (is not a valid|is a URL|starts with ~)"):
        make_settings(wrong)


@pytest.mark.parametrize("name", ["utf8x", "base64", "rot13", "a\0b", "\udce9"])
def test_an_encoding_is_one_of_text(name):
    with pytest.raises(ConfigurationError, match=r"^encoding: is not an encoding of text; expected a name such as windows-1252"):
        make_settings({"encoding": name})
    assert make_settings({"encoding": "Windows-1252"}).encoding == "Windows-1252"


@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}, "\udce9", b"x"])
def test_options_hold_only_what_every_process_can_read(value):
    with pytest.raises(ConfigurationError, match="options: contains a value that JSON cannot represent"):
        make_settings({"options": {"line-count": {"x": value}}})


def test_options_are_plain_however_they_were_frozen():
    frozen = {"line-count": {"x": MappingProxyType({"a": (1, 2)})}}
    settings = make_settings({"options": frozen})
    assert settings.options == {"line-count": {"x": {"a": [1, 2]}}}
    assert make_settings(settings.model_dump(mode="json")) == settings


def test_settings_do_not_change():
    with pytest.raises(ValidationError):
        Settings().attempts = 5


@pytest.mark.parametrize(
    ("total", "expected"),
    [
        (0, 1),
        (1, 1),
        (4, 1),
        (5, 4),
        (30, 8),
        (40, 10),
        (63, 14),
        (200, 14),
        (800, 100),
        (801, 101),
        (10_000, 1_250),
        (24_000, 1_000),
        (320_000, 10_000),
    ],
)
def test_dpp_chooses_the_size_of_chunks(total, expected):
    assert Settings().chunk_size_for(total, workers=4) == expected


def test_every_worker_gets_chunks_but_none_of_one_file():
    assert [Settings().chunk_size_for(total, workers=16) for total in (17, 100, 1_000)] == [SMALLEST_CHUNK, 7, 32]


def test_one_worker_downloads_as_many_files_at_once_as_it_has_threads():
    assert [Settings().chunk_size_for(total, workers=1) for total in (1, 6, 30, 1_999, 2_000)] == [1, 6, 30, 1_999, 1_000]


def test_a_given_chunk_size_counts():
    assert make_settings({"chunk_size": 7}).chunk_size_for(1, workers=4) == 7


@given(st.integers(1, 10**9), st.integers(1, 100))
def test_the_number_of_chunks_is_bounded(total, workers):
    assert total / Settings().chunk_size_for(total, workers) <= ROUNDS[1] * workers


def test_a_missing_field_and_a_whole_value_of_another_kind_have_words():
    with pytest.raises(ConfigurationError, match=r"^value: .* instance of Settings, got list$"):
        make_settings([])


@pytest.mark.parametrize("headers", [{"a b": "x"}, {"X": 1}, {"X": "a\r\nb"}, {"h": {"X": None}}, {"h": {"X": {}}}, {"X": ["a"]}])
def test_headers_that_cannot_be_sent_are_refused(headers):
    with pytest.raises(ConfigurationError, match="headers: "):
        make_settings({"headers": headers})


def test_a_user_agent_that_cannot_be_sent_is_refused():
    with pytest.raises(ConfigurationError, match="user_agent: "):
        make_settings({"user_agent": "a\nb"})


def test_values_of_headers_are_masked_but_not_what_the_client_is():
    make_settings({"headers": {"User-Agent": "agent-shown", "h": {"X-Key": "headers-canary", "Authorization": "Bearer token-canary"}}})
    assert redact_text("agent-shown headers-canary token-canary") == "agent-shown *** ***"
