"""Tests of the selection of failures that are tried again."""

from __future__ import annotations

import pytest
from dpp import ConfigurationError, Outcome
from dpp.selection import Selection


def failed(error_class="timeout", stage="download", url="http://h.example/a"):
    return Outcome(id="a", name="a", url=url, key="a", status="failed", stage=stage, error_class=error_class)


@pytest.mark.parametrize(
    ("asked", "picked"),
    [
        ({}, ["timeout", "http-503", "checksum", "http-4040"]),
        ({"everything": True}, ["timeout", "http-503", "http-404", "http-410", "checksum", "http-4040"]),
        ({"classes": ["http-404", "timeout"]}, ["timeout", "http-404"]),
        ({"classes": ["http-4xx"]}, ["http-404", "http-410"]),
        ({"classes": ["http-5xx"]}, ["http-503"]),
        ({"stages": ["process"]}, []),
        ({"stages": ["download"], "classes": ["checksum"]}, ["checksum"]),
        ({"hosts": ["h.example"], "classes": ["checksum"]}, ["checksum"]),
        ({"hosts": ["other"]}, []),
    ],
)
def test_failures_are_picked_by_class_stage_and_host(asked, picked):
    classes = ["timeout", "http-503", "http-404", "http-410", "checksum", "http-4040"]
    assert [word for word in classes if Selection(**asked).picks(failed(word))] == picked


def test_what_is_ok_is_never_picked():
    assert not Selection(everything=True).picks(Outcome(id="a", name="a", url="http://h/", key="a", status="ok"))


def test_a_url_without_a_host_has_none():
    assert not Selection(hosts=("h",)).picks(failed(url="file:///x"))
    assert not Selection(hosts=("h",)).picks(failed(url="http://[bad"))


def test_every_word_that_nothing_can_match_is_named():
    with pytest.raises(ConfigurationError) as caught:
        Selection(classes=("timeuot", "http-6xx"), stages=("downlaod",), hosts=("nowhere",)).check({"timeout"}, {"h.example"})
    assert str(caught.value).splitlines() == [
        "unknown error class 'timeuot'; did you mean 'timeout'?",
        "unknown error class 'http-6xx'; did you mean 'http-5xx'?",
        "unknown stage 'downlaod'; did you mean 'download'?",
        "no failed file from host 'nowhere'; choose from h.example",
    ]


def test_classes_of_plugins_and_all_statuses_are_known():
    Selection(classes=("gpg-no-key", "http-418", "http-4xx", "tls"), stages=("process",)).check({"gpg-no-key"}, set())
