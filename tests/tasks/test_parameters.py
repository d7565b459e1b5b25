"""Luigi parameters generated from settings, the sections of luigi.cfg, and dpp's defaults for Luigi."""

from __future__ import annotations

import pytest
from dpp import ConfigurationError, DownloadTarget, PreProcessed, Processed, Report, RunBatch, Settings
from dpp.tasks.chunks import FileChunk
from dpp.tasks.luigi_defaults import set_soft_defaults
from dpp.tasks.parameters import (
    FilesParameter,
    NamesParameter,
    NumberParameter,
    OptionsParameter,
    UrlParameter,
)
from dpp.tasks.sections import configured_options
from luigi.configuration import LuigiConfigParser, get_config


@pytest.fixture
def config(monkeypatch):
    """An empty configuration in place of the machine's."""
    empty = LuigiConfigParser()
    monkeypatch.setattr(LuigiConfigParser, "_instance", empty)
    assert get_config() is empty
    return empty


def test_every_setting_is_a_parameter_of_run_batch_with_its_default(config):
    batch = RunBatch(files="x.json")
    assert batch.settings() == Settings()
    assert set(Settings.model_fields) <= {name for name, _ in RunBatch.get_params()}


def test_without_a_scheduler_the_local_one_is_used(config):
    set_soft_defaults(["--module", "dpp", "RunBatch"])
    assert config.get("core", "local_scheduler") == "true"
    assert config.get("retcode", "task_failed") == "1"


@pytest.mark.parametrize("arguments", [["--scheduler-url", "http://h"], ["--scheduler-host=h"], ["--core-scheduler-port", "1"]])
def test_with_a_scheduler_named_workers_stay_until_the_batch_is_done(config, arguments):
    set_soft_defaults(arguments)
    assert not config.has_option("core", "local_scheduler")
    assert config.get("worker", "keep_alive") == "true"


def test_a_scheduler_in_the_configuration_counts_too(config):
    config.set("core", "default_scheduler_url", "http://h")
    set_soft_defaults([])
    assert not config.has_option("core", "local_scheduler")


def test_what_the_user_configured_stays(config):
    config.set("retcode", "task_failed", "30")
    set_soft_defaults([])
    assert config.get("retcode", "task_failed") == "30"


@pytest.mark.parametrize("value", ["http://h/a", "file:///a/b"])
def test_a_url_without_secrets_is_shown_as_it_is(value):
    parameter = UrlParameter()
    assert parameter.parse(parameter.serialize(value)) == value


def test_a_list_of_files_is_shown_as_what_it_is():
    parameter = FilesParameter()
    assert parameter.serialize(parameter.normalize([{"url": "http://u:canary@h/"}])).startswith("list of 1 file ")
    assert parameter.serialize("sftp://u:canary@h/x").startswith("sftp://***@h/x#redacted-")
    assert len({parameter.serialize(f"sftp://u:{password}@h/x") for password in ("one", "two")}) == 2


ODD = {
    "files": [
        "",
        "x.json",
        "a b/ü.csv",
        "sftp://u:canary@h/x",
        "s3://b/p?x=canary",
        [],
        [{"url": "http://u:canary@h/"}, {"url": "x", "tags": ["y"]}],
    ],
    "url": ["", "http://h/a", "http://u:canary@h/a?b=canary#c"],
    "options": [{}, {"checksum": {"algorithm": "md5", "names": ["a", {"b": None}]}}],
    "headers": [{}, {"h": {"X-Key": "canary"}}],
    "fields": [{}, {"size": 7, "headers": {"X": "y"}, "urls": ["a"]}],
}
EXAMPLES = {bool: [True, False], tuple: [(), ("a", "b:C")], int: [0, -3], float: [0.0, 1e-9, 2.5e20], str: ["", " a, =b\n", "ü"]}


def values_of(name: str, default: object) -> list:
    return [default, *ODD.get(name, EXAMPLES.get(type(default), []))]


@pytest.mark.parametrize("task", [RunBatch, FileChunk, DownloadTarget, PreProcessed, Processed, Report])
def test_every_parameter_comes_back_from_its_text(config, task):
    for name, parameter in task.get_params():
        default = parameter._default if parameter.has_task_value(task.__name__, name) else 7 if name == "index" else ""
        for value in values_of(name, default):
            given = parameter.normalize(value)
            assert parameter.normalize(parameter.parse(parameter.serialize(given))) == given, name
            assert "canary" not in parameter.serialize(given) or name == "fields"


def test_a_value_that_only_another_process_knows_is_refused_by_what_to_do(config):
    for parameter, text in [
        (OptionsParameter(), "0a1b2c3d"),
        (FilesParameter(), "list of 3 files 0a1b2c3d"),
        (FilesParameter(), "s3://***@b/p"),
        (FilesParameter(), "https://h/x.json?***"),
    ]:
        with pytest.raises(ConfigurationError, match=r"requires\(\)"):
            parameter.parse(text)


def test_names_are_separated_by_commas():
    parameter = NamesParameter(default=())
    assert parameter.parse(" a, b ,") == ("a", "b")
    assert parameter.normalize("a,b") == parameter.normalize(["a", "b"]) == ("a", "b")
    assert parameter.serialize(("a", "b")) == "a,b"


def test_a_number_that_is_none_is_refused():
    class Task:
        count = NumberParameter(int, default=1)

    with pytest.raises(ConfigurationError, match="count: expected a number, got 'x'"):
        Task.count.parse("x")


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}'])
def test_options_that_are_no_object_of_objects_are_refused(text):
    with pytest.raises(ConfigurationError, match="options: expected"):
        OptionsParameter().parse(text)


def test_options_of_plugins_come_from_sections(config):
    config.read_string('[DEFAULT]\nx=1\n[a]\nflag=true\nlist=["b", 1]\nbad=[b\n[c]\n')
    assert configured_options(["a", "c", "d"]) == {"a": {"flag": "true", "list": ["b", 1], "bad": "[b"}}
