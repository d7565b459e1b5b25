"""The origin of each setting, and unknown names in luigi.cfg."""

from __future__ import annotations

import json

import pytest

HEADER = """from dpp import BaseProcessor, hookimpl
"""
PLUGIN = """
    class Count(BaseProcessor):
        name = "count"
        version = "1"
        skip: int = 3
        token: str = ""
        def process(self, file):
            return 1

    @hookimpl
    def dpp_processors():
        return [Count]
"""


@pytest.fixture
def config(command):
    """Run ``dpp config`` with these options; return values and origins by section and name, and the text on standard error."""

    def run(*arguments, code=0, **environment):
        done = command("dpp", "config", "--format", "json", *arguments, **environment)
        assert done.returncode == code, done.stderr
        return {(one["section"], one["name"]): (one["value"], one["origin"]) for one in json.loads(done.stdout or "[]")}, done.stderr

    return run


def test_without_configuration_everything_is_a_default(config):
    values, errors = config()
    assert values["RunBatch", "attempts"] == (3, "default")
    assert values["checksum", "algorithm"] == ("sha256", "default")
    assert values["core", "workers"] == (1, "default")
    assert values["core", "no_lock"] == ("true", "dpp's default")
    assert values["environment", "CACHE_DIR"] == (None, "not set")
    assert errors == ""


def test_the_file_that_luigi_reads_last_says_it(config, tmp_path):
    (tmp_path / "luigi.cfg").write_text("[RunBatch]\nattempts=5\nretry-wait=1\n[core]\nworkers=2\n")
    (tmp_path / "other.cfg").write_text("[RunBatch]\nretry-wait=2\n")
    values, _ = config(LUIGI_CONFIG_PATH="other.cfg")
    assert values["RunBatch", "attempts"] == (5, f"{tmp_path}/luigi.cfg [RunBatch]")
    assert values["RunBatch", "retry_wait"] == (2.0, f"{tmp_path}/other.cfg [RunBatch]")
    assert values["core", "workers"] == (2, f"{tmp_path}/luigi.cfg [core]")


def test_a_named_batch_comes_before_the_other_sections(config, tmp_path):
    (tmp_path / "luigi.cfg").write_text("[RunBatch]\nattempts=5\nretry_wait=1\n[batch:acme]\nattempts=7\nworkers=3\nfiles=in\n")
    values, _ = config("--batch", "acme")
    origin = f"{tmp_path}/luigi.cfg [batch:acme]"
    found = {name: values[section, name] for section, name in (("RunBatch", "attempts"), ("RunBatch", "files"), ("core", "workers"))}
    assert found == {"attempts": (7, origin), "files": ("in", origin), "workers": (3, origin)}
    assert values["RunBatch", "retry_wait"] == (1.0, f"{tmp_path}/luigi.cfg [RunBatch]")


def test_options_come_from_the_step_s_section_or_from_the_setting_options(config, install, tmp_path):
    install("count", PLUGIN)
    (tmp_path / "luigi.cfg").write_text('[RunBatch]\nprocessor=count\noptions={"count": {"skip": 5}}\n[count]\nskip=4\ntoken=canary\n')
    values, _ = config()
    assert values["count", "skip"] == (5, f"{tmp_path}/luigi.cfg [RunBatch]")
    assert values["count", "token"] == ("***", f"{tmp_path}/luigi.cfg [count]")
    assert values["RunBatch", "options"] == ({"count": {"skip": 5}}, f"{tmp_path}/luigi.cfg [RunBatch]")


def test_a_step_may_be_asked_for_as_module_and_class(config, install, tmp_path):
    install("count", PLUGIN)
    (tmp_path / "luigi.cfg").write_text("[RunBatch]\nprocessor=count_plugin:Count\n[count_plugin:Count]\nskip=4\n")
    assert config()[0]["count", "skip"] == ("4", f"{tmp_path}/luigi.cfg [count_plugin:Count]")


def test_no_secret_is_shown(command, tmp_path):
    (tmp_path / "luigi.cfg").write_text(
        "[RunBatch]\nfiles=sftp://me:canary@h/\nskip_existing=s3://b/?k=canary\n"
        '[s3]\nendpoint_url=http://me:canary@h/?x=canary\nnested={"password": "canary", "list": ["a:canary@h"]}\n'
    )
    for form in ("text", "json"):
        shown = command("dpp", "config", "--format", form, HTTPS_PROXY="me:canary@proxy:1", AWS_SESSION_TOKEN="canary").stdout
        assert "***@proxy:1" in shown
        assert "canary" not in shown


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[RunBatch]\nprocesor=x", "[RunBatch] of luigi.cfg: unknown setting 'procesor'; did you mean 'processor'?"),
        ("[RunBacth]\nattempts=1", "luigi.cfg: unknown section [RunBacth]; did you mean [RunBatch]?"),
        ("[dpp]\nattempts=1", "luigi.cfg: unknown section [dpp]; did you mean [RunBatch]?"),
        ("[batch:acme]\nworker=1", "[batch:acme] of luigi.cfg: unknown setting 'worker'; did you mean 'workers'?"),
        ("[Report]\natempts=1", "[Report] of luigi.cfg: unknown setting 'atempts'; did you mean 'attempts'?"),
        ("[worker]\ntimeout=9", "Luigi's setting [worker] timeout=9 does not work with dpp: it would end whole chunks of files"),
        ("[checksum]\nalgoritm=md5", "[checksum] of luigi.cfg: unknown setting 'algoritm'; did you mean 'algorithm'?"),
    ],
)
def test_what_nothing_reads_is_told(config, tmp_path, text, said):
    (tmp_path / "luigi.cfg").write_text(text)
    values, errors = config(code=2)
    assert f"Error: {said}" in errors
    assert ("RunBatch", "attempts") in values


@pytest.mark.parametrize("text", ["[core]\nlock_size=2", "[somebodys-task]\nx=1", "[DEFAULT]\nx=1", "[RunBatch]\nbatch_name="])
def test_what_somebody_else_may_read_is_left(config, tmp_path, text):
    (tmp_path / "luigi.cfg").write_text(text)
    assert config()[1] == ""


def test_a_section_that_is_not_there_gets_a_suggestion(config):
    assert config("--section", "enviroment", code=2)[1] == "Error: unknown section 'enviroment'; did you mean 'environment'?\n"
    assert {section for section, _ in config("--section", "checksum")[0]} == {"checksum"}


def test_on_paper_it_is_a_table(command):
    lines = [line.split("\t") for line in command("dpp", "config").stdout.splitlines()]
    assert lines[0] == ["section", "name", "value", "from"]
    assert ["RunBatch", "cleanup", "false", "default"] in lines
