"""Tests of plugins: what they offer, their options, and broken ones.

The plugins are real distributions, written into a folder on Python's import path.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from importlib.metadata import entry_points
from textwrap import dedent

import pytest
from dpp.errors import ConfigurationError, PluginError
from dpp.plugins.registry import load_plugins, registry
from dpp.settings import make_settings

HEADER = """
from typing import Any

import click
from pydantic import Field, SecretStr

from dpp import BaseFetcher, BasePostProcessor, BasePreProcessor, BaseProcessor, FileData, hookimpl
"""
COUNT = """
class Count(BaseProcessor):
    name = "count"
    version = "3"
    blank: bool = True
    depth: int = Field(1, ge=1)

    def process(self, file):
        return {"blank": self.blank, "depth": self.depth}

@hookimpl
def dpp_processors():
    return [Count]
"""
FETCHER = """
class Fetcher(BaseFetcher):
    def fetch(self, url, file, part):
        part.begin()
        part.write(b"from the plugin")

@hookimpl
def dpp_fetchers():
    return {"http": Fetcher}
"""


@pytest.fixture(autouse=True)
def no_plugins_of_this_environment(monkeypatch):
    """Disable a plugin of this repository that is installed for other tests."""
    monkeypatch.setenv("DPP_DISABLE_PLUGINS", "curl")


@pytest.fixture
def module(tmp_path):
    """Return a function that writes a module into the current folder."""
    names = []

    def write(name, source):
        names.append(name)
        (tmp_path / f"{name}.py").write_text(HEADER + dedent(source))
        importlib.invalidate_caches()

    yield write
    for name in names:
        sys.modules.pop(name, None)
    sys.path[:] = [folder for folder in sys.path if folder != str(tmp_path)]


def offered(found, kind):
    return {offer.name: str(offer.origin) for offer in found.offers if offer.kind == kind}


def steps(**settings):
    return load_plugins().steps(make_settings(settings))


# Offers


def test_what_is_built_in_comes_through_the_hooks():
    found = load_plugins()
    assert offered(found, "processor")["checksum"] == "dpp (built in)"
    assert {"http", "https", "file"} <= set(offered(found, "fetcher"))
    assert [cls.name for cls in found.hook.dpp_processors()[-1]] == ["checksum"]


def test_an_installed_plugin_is_offered_with_its_distribution_and_version(install):
    install("one", COUNT)
    found = load_plugins()
    assert offered(found, "processor")["count"] == "one (dpp-one 1.0)"
    assert [origin.state for origin in found.origins if origin.plugin == "one"] == ["enabled"]


def test_plugins_are_loaded_once_a_process():
    assert registry() is registry()


def test_a_plugin_that_offers_nothing_is_fine(install):
    install("quiet", "@hookimpl\ndef dpp_processors():\n    return None\n")
    assert {origin.plugin: origin.state for origin in load_plugins().origins}["quiet"] == "enabled"


OTHER = """
class Other(Base{base}):
    def {method}(self, file):
        return 1

@hookimpl
def dpp_processors():
    return [Other]
"""
BROKEN = {
    "import error": ("import nowhere_at_all", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
    "exit at import": ("raise SystemExit(4)", "SystemExit: 4"),
    "misspelled hook": ("@hookimpl\ndef dpp_procesors():\n    return []", "unknown hook 'dpp_procesors'"),
    "hook with an argument of its own": ("@hookimpl\ndef dpp_processors(files):\n    return []", "hook 'dpp_processors'"),
    "hook raises": ("@hookimpl\ndef dpp_processors():\n    return 1 / 0", "ZeroDivisionError: division by zero"),
    "no list": ("@hookimpl\ndef dpp_processors():\n    return 5", "TypeError: 'int' object is not iterable"),
    "no class": (
        "@hookimpl\ndef dpp_processors():\n    return ['count']",
        "'count' is not a processor: expected a class with a method process()",
    ),
    "class of another kind": (
        OTHER.format(base="PreProcessor", method="pre_process"),
        "is not a processor: expected a class with a method",
    ),
    "misspelled method": (OTHER.format(base="Processor", method="proces"), "is not a processor: expected a class with a method process()"),
    "no fetcher": (
        "@hookimpl\ndef dpp_fetchers():\n    return {'ftp': FileData}",
        "is not a fetcher: expected a class with a method",
    ),
    "verbs raise": ("@hookimpl\ndef dpp_commands():\n    raise OSError('no tty')", "OSError: no tty"),
    "no verb": ("@hookimpl\ndef dpp_commands():\n    return [print]", "is not a click command"),
}


@pytest.mark.fault(28)
@pytest.mark.parametrize(("source", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_is_set_aside_and_named(install, caplog, source, reason):
    install("bad", source)
    install("good", COUNT)
    found = load_plugins()
    origins = {origin.plugin: origin for origin in found.origins}
    assert (origins["bad"].state, origins["good"].state) == ("broken", "enabled")
    assert reason in origins["bad"].reason
    assert "skipped broken plugin bad (dpp-bad 1.0)" in caplog.text
    assert "DPP_DISABLE_PLUGINS=bad" in caplog.text
    assert not [offer for offer in found.offers if offer.origin.plugin == "bad"]
    assert not [plugin for plugin in found.hook.dpp_processors.get_hookimpls() if plugin.plugin_name.startswith("bad")]


def test_an_entry_point_without_a_module_is_set_aside(install):
    install("bad", "", module="not_there_plugin")
    assert [origin.reason for origin in load_plugins().origins if origin.plugin == "bad"] == [
        "ModuleNotFoundError: No module named 'not_there_plugin'"
    ]


def test_a_second_entry_point_for_the_same_module_is_set_aside(install):
    install("one", COUNT)
    install("two", "", module="one_plugin")
    found = load_plugins()
    assert {origin.plugin: origin.state for origin in found.origins if origin.plugin in ("one", "two")} == {
        "one": "enabled",
        "two": "broken",
    }
    assert offered(found, "processor")["count"] == "one (dpp-one 1.0)"


def test_two_distributions_may_call_their_plugin_the_same(install, tmp_path):
    install("one", COUNT)
    install("two", FETCHER)
    (tmp_path / "site-packages/dpp_two-1.0.dist-info/entry_points.txt").write_text("[dpp]\none = two_plugin\n")
    found = load_plugins()
    assert [str(origin) for origin in found.origins if origin.plugin == "one"] == ["one (dpp-one 1.0)", "one (dpp-two 1.0)"]
    assert "one (dpp-one 1.0)" in [one.plugin_name for one in found.hook.dpp_processors.get_hookimpls()]
    assert "one (dpp-two 1.0)" in [one.plugin_name for one in found.hook.dpp_fetchers.get_hookimpls()]


INTERRUPTED = """
import re
from pydantic_core import SchemaValidator, core_schema

def interrupt(*_):
    raise KeyboardInterrupt

kept, re.compile = re.compile, interrupt
try:
    SchemaValidator(core_schema.str_schema(pattern="a"), {"regex_engine": "python-re"})
finally:
    re.compile = kept
"""


def test_an_interrupt_while_plugins_load_is_none_of_their_faults(install):
    install("slow", INTERRUPTED)
    with pytest.raises(KeyboardInterrupt):
        load_plugins()


def test_a_broken_plugin_stops_no_run_that_can_do_without(install, site, manifest, run_batch):
    install("bad", "import nowhere_at_all")
    run = run_batch(manifest([{"url": site.add("/a.txt", "a")}]))
    assert run.returncode == 0, run.stderr
    assert "skipped broken plugin bad (dpp-bad 1.0)" in run.stderr


@pytest.mark.fault(28)
def test_a_broken_plugin_stops_a_run_that_needs_it(install, site, manifest, run_batch, seen):
    install("bad", "import nowhere_at_all")
    run = run_batch(manifest([{"url": site.add("/a.txt", "a")}]), "--processor", "count")
    assert run.returncode == 2
    assert "plugin bad (dpp-bad 1.0) is broken: ModuleNotFoundError" in run.stderr
    assert "DPP_DISABLE_PLUGINS=bad" in run.stderr
    assert not site.counts()
    seen("exit 2, plugin, distribution and version named, no request")


def test_a_disabled_plugin_is_not_even_imported(install, monkeypatch):
    install("bad", "raise SystemExit('imported')")
    monkeypatch.setenv("DPP_DISABLE_PLUGINS", "other, bad")
    found = {origin.plugin: origin for origin in load_plugins().origins}
    assert (found["bad"].state, found["bad"].reason) == ("disabled", "named in DPP_DISABLE_PLUGINS")


def test_a_run_that_needs_a_disabled_plugin_says_so(install, monkeypatch):
    install("one", COUNT)
    monkeypatch.setenv("DPP_DISABLE_PLUGINS", "one")
    with pytest.raises(
        ConfigurationError, match=r"unknown processor 'count'(?s:.*)plugin one \(dpp-one 1.0\) is disabled: named in DPP_DIS"
    ):
        steps(processor="count")


# Names


@pytest.mark.fault(28)
def test_two_plugins_with_one_name_stop_the_run_before_any_download(install, site, manifest, run_batch, seen):
    install("one", COUNT)
    install("two", COUNT)
    run = run_batch(manifest([{"url": site.add("/a.txt", "a")}]), "--processor", "count")
    assert run.returncode == 2
    assert "processor 'count' is offered by one (dpp-one 1.0) and two (dpp-two 1.0); uninstall one, or set DPP_DIS" in run.stderr
    assert not site.counts()
    seen("exit 2, both named, no request")


def test_one_name_may_stand_for_a_processor_and_a_post_processor(install):
    install("one", COUNT)
    install(
        "two",
        """
        class Post(BasePostProcessor):
            name = "count"
            def post_process(self, result, file): ...

        @hookimpl
        def dpp_post_processors():
            return [Post]
        """,
    )
    assert [step.kind for step in steps(processor="count", post_processors=["count"])] == ["processor", "post-processor"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"processor": "cheksum"}, "unknown processor 'cheksum'; did you mean 'checksum'?"),
        ({"processor": "zzz"}, "unknown processor 'zzz'; choose from checksum, or use MODULE:CLASS"),
        ({"pre_processors": ["zzz"]}, "unknown pre-processor 'zzz'; none is available; use MODULE:CLASS"),
    ],
)
def test_an_unknown_name_gets_a_suggestion(asked, said, monkeypatch):
    monkeypatch.setenv("DPP_DISABLE_PLUGINS", ",".join(entry.name for entry in entry_points(group="dpp")))
    with pytest.raises(ConfigurationError) as error:
        steps(**asked)
    assert said in str(error.value)


def test_every_problem_of_the_names_is_told_at_once():
    with pytest.raises(ConfigurationError) as error:
        steps(pre_processors=["first"], processor="cheksum", post_processors=["nowhere:Class"])
    assert [name in str(error.value) for name in ("'first'", "'cheksum'", "'nowhere:Class'")] == [True] * 3


def test_an_unknown_name_ends_the_command_with_2(site, manifest, run_batch):
    run = run_batch(manifest([{"url": site.add("/a.txt", "a")}]), "--processor", "cheksum")
    assert run.returncode == 2
    assert "did you mean 'checksum'?" in run.stderr
    assert "Traceback" not in run.stderr
    assert not site.counts()


# Classes by their modules

SIZE = """
class Size(BaseProcessor):
    factor: int = 1
    def process(self, file):
        return file.local_path.stat().st_size * self.factor

class Renamed(Size):
    name = "renamed"

class NoMethod(BaseProcessor): ...

def function(file): ...
"""


def test_a_class_of_a_module_in_the_current_folder_can_be_used(module, site, manifest, run_batch, results):
    module("mine", SIZE)
    options = json.dumps({"mine:Size": {"factor": 2}})
    run = run_batch(manifest([{"url": site.add("/a.txt", "abc")}]), "--processor", "mine:Size", "--options", options, "--workers", 2)
    assert run.returncode == 0, run.stderr
    assert results()["a"]["result"] == 6
    assert results()["a"]["plugins"] == [{"kind": "processor", "name": "mine:Size", "version": "0"}]


@pytest.mark.parametrize("key", ["mine:Renamed", "renamed"])
def test_options_of_a_class_go_by_its_reference_or_its_own_name(module, key):
    module("mine", SIZE)
    assert steps(processor="mine:Renamed", options={key: {"factor": 5}}).processor.options == {"factor": 5}


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("nowhere:Class", ": ModuleNotFoundError: No module named 'nowhere'"),
        ("mine:Missing", ": AttributeError: module 'mine' has no attribute 'Missing'"),
        ("mine:", ": AttributeError"),
        (":Size", ": ValueError"),
        ("mine:function", "is not a processor: expected a class with a method process()"),
        ("mine:NoMethod", "is not a processor: expected a class with a method process()"),
        ("mine:BasePreProcessor", "is not a processor: expected a class with a method process()"),
        ("exits:Size", ": SystemExit: 1"),
    ],
)
def test_a_wrong_reference_says_what_is_wrong(module, reference, said):
    module("mine", SIZE)
    module("exits", "raise SystemExit(1)")
    with pytest.raises(PluginError) as error:
        steps(processor=reference)
    assert repr(reference) in str(error.value)
    assert said in str(error.value)


# Chains


def test_chains_run_in_the_order_they_were_named(module, site, manifest, run_batch, results, tmp_path):
    module(
        "chain",
        """
        class Append(BasePreProcessor):
            text: str
            def pre_process(self, file):
                target = file.output_dir / "made.txt"
                target.write_text(file.local_path.read_text() + self.text)
                file.local_path = target
                return file

        class Second(Append): ...

        class Read(BaseProcessor):
            def process(self, file):
                return [file.local_path.read_text(), [step["name"] for step in file.processing_history]]

        class Note(BasePostProcessor):
            def post_process(self, result, file):
                with open("notes.txt", "a") as notes:
                    notes.write(type(self).__name__ + " ")

        class Other(Note): ...
        """,
    )
    options = {"chain:Append": {"text": "1"}, "chain:Second": {"text": "2"}}
    chain = ["--pre-processors", "chain:Second,chain:Append", "--post-processors", "chain:Other,chain:Note"]
    files = manifest([{"url": site.add("/a.txt", "0")}])
    run = run_batch(files, *chain, "--processor", "chain:Read", "--options", json.dumps(options))
    assert run.returncode == 0, run.stderr
    assert results()["a"]["result"] == ["021", ["chain:Second", "chain:Append"]]
    assert (tmp_path / "notes.txt").read_text() == "Other Note "


# Fetchers


def test_a_plugin_s_fetcher_comes_before_the_built_in_one(install, site, manifest, run_batch, command, tmp_path, monkeypatch):
    monkeypatch.setenv("DPP_DISABLE_PLUGINS", "curl")
    install("one", FETCHER)
    run = run_batch(manifest([{"url": f"{site.url}/a.txt"}]))
    assert run.returncode == 0, run.stderr
    assert next(tmp_path.glob("dpp-workspace/downloads/*/*/a.txt")).read_bytes() == b"from the plugin"
    assert not site.counts()
    listed = [line.split("\t") for line in command("dpp", "plugins").stdout.splitlines()]
    states = {distribution: state for name, kind, _, distribution, state in listed if (name, kind) == ("http", "fetcher")}
    assert states == {"built in": "replaced by dpp-one 1.0", "dpp-one 1.0": "enabled"}


@pytest.mark.fault(28)
def test_two_plugins_with_one_scheme_stop_the_run(install, site, manifest, run_batch):
    install("one", FETCHER)
    install("two", FETCHER)
    run = run_batch(manifest([{"url": f"{site.url}/a.txt"}]))
    assert run.returncode == 2
    assert "fetcher 'http' is offered by one (dpp-one 1.0) and two (dpp-two 1.0)" in run.stderr
    assert not site.counts()


# Options


@pytest.mark.parametrize(
    ("config", "given", "result"),
    [
        ("", {}, {"blank": True, "depth": 1}),
        ("[count]\nblank=false\ndepth=4\n", {}, {"blank": False, "depth": 4}),
        ("", {"count": {"blank": False}}, {"blank": False, "depth": 1}),
        ("[count]\nblank=false\ndepth=4\n", {"count": {"depth": 7}}, {"blank": False, "depth": 7}),
        ("[DEFAULT]\nelse=1\n[count]\ndepth=4\n[unused]\nx=1\n", {}, {"blank": True, "depth": 4}),
    ],
)
def test_options_come_from_luigi_cfg_and_the_command_line(install, site, manifest, run_batch, results, tmp_path, config, given, result):
    install("one", COUNT)
    (tmp_path / "luigi.cfg").write_text(config)
    arguments = ["--options", json.dumps(given)] if given else []
    run = run_batch(manifest([{"url": site.add("/a.txt", "a")}]), "--processor", "count", *arguments)
    assert run.returncode == 0, run.stderr
    assert results()["a"]["result"] == result


def test_every_wrong_option_is_listed_and_nothing_is_fetched(install, site, manifest, run_batch):
    install("one", COUNT)
    options = json.dumps({"count": {"blank": "perhaps", "depth": 0, "unknown": 1}})
    run = run_batch(manifest([{"url": site.add("/a.txt", "a")}]), "--processor", "count", "--options", options)
    assert run.returncode == 2
    assert "options of count:" in run.stderr
    assert [f"  {name}" in run.stderr for name in ("blank: ", "depth: ", "unknown option 'unknown'")] == [True] * 3
    assert not site.counts()


SHARING = """
from pydantic import BaseModel

class Place(BaseModel):
    host: str = ""
    user: str = ""

class Store(Place, BasePostProcessor):
    name = "store"
    folder: str = ""
    shared_options = {"place": Place}

    def post_process(self, result, file):
        pass

@hookimpl
def dpp_post_processors():
    return [Store]

@hookimpl
def dpp_source_schemes():
    return ["place"]
"""


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, {"host": "h", "user": "u"}),
        ({"folder": "f"}, {"host": "h", "user": "u", "folder": "f"}),
        ({"host": "other", "folder": "f"}, {"host": "other", "folder": "f"}),
    ],
)
def test_a_step_takes_all_options_that_it_shares_or_none(install, own, expected):
    install("one", SHARING)
    settings = make_settings({"post_processors": ["store"], "options": {"place": {"host": "h", "user": "u", "more": 1}, "store": own}})
    (step,) = load_plugins().steps(settings).post_processors
    assert step.options == step.identity()["options"] == expected


def test_options_for_what_is_not_used_stop_the_run(install, site, manifest, run_batch):
    install("one", COUNT)
    run = run_batch(manifest([{"url": site.add("/a.txt", "a")}]), "--options", '{"count": {"depth": 2}}')
    assert run.returncode == 2
    assert "options for count, which this batch does not use; it uses checksum" in run.stderr
    assert not site.counts()


def test_a_secret_option_reaches_the_plugin_and_nothing_else(install, site, manifest, run_batch, results, tmp_path):
    install(
        "one",
        """
        class Login(BaseProcessor):
            name = "login"
            token: SecretStr
            def process(self, file):
                return len(self.token.get_secret_value())

        @hookimpl
        def dpp_processors():
            return [Login]
        """,
    )
    options = '{"login": {"token": "hunter2-hunter2"}}'
    files = manifest([{"url": site.add("/a.txt", "a")}])
    run = run_batch(files, "--processor", "login", "--options", options, "--debug", "--log-file", "log.txt")
    assert run.returncode == 0, run.stderr
    assert results()["a"]["result"] == len("hunter2-hunter2")
    kept = [path for path in (tmp_path / "dpp-workspace").rglob("*") if path.is_file()]
    assert [path for path in [*kept, tmp_path / "log.txt"] if b"hunter2" in path.read_bytes()] == []
    assert "hunter2" not in run.stderr + run.stdout


def test_a_secret_is_not_in_the_message_about_wrong_options(install):
    install("one", COUNT.replace("blank: bool = True", "token: SecretStr = ''"))
    with pytest.raises(ConfigurationError) as error:
        steps(processor="count", options={"count": {"token": "hunter2", "depth": "x"}})
    assert "hunter2" not in str(error.value)


# Fingerprints


def test_a_secret_changes_no_fingerprint(install):
    install("one", COUNT.replace("blank: bool = True", "token: SecretStr"))
    first, second = (steps(processor="count", options={"count": {"token": token}}) for token in ("hunter2", "other"))
    assert first.fingerprints() == second.fingerprints()
    assert "hunter2" not in repr(first.processor.identity())


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"options": {"count": {"depth": 1}}}, True),
        ({"debug": True}, True),
        ({"options": {"count": {"depth": 2}}}, False),
    ],
)
def test_only_what_changes_the_output_changes_the_fingerprint(install, change, same):
    install("one", COUNT)
    changed = steps(**{"processor": "count", **change}).fingerprints()
    assert (changed == steps(processor="count").fingerprints()) is same


def test_a_new_version_is_another_fingerprint(module):
    module("mine", SIZE + "\n\nclass Next(Renamed):\n    version = '1'\n")
    assert steps(processor="mine:Renamed").fingerprints() != steps(processor="mine:Next").fingerprints()


def test_an_option_more_in_a_class_keeps_the_fingerprints_of_those_who_do_not_set_it(module):
    module("mine", SIZE)
    before = steps(processor="mine:Size").fingerprints()
    del sys.modules["mine"]
    module("mine", SIZE.replace("factor: int = 1", "factor: int = 1\n    unit: str = 'B'"))
    assert steps(processor="mine:Size").fingerprints() == before
    assert steps(processor="mine:Size", options={"mine:Size": {"unit": "b"}}).fingerprints() != before


def test_a_fingerprint_depends_on_no_order_but_that_of_the_steps(module):
    module("mine", "class Any(BaseProcessor):\n    table: dict\n    def process(self, file): ...\n")
    first, second = (steps(processor="mine:Any", options={"mine:Any": {"table": table}}) for table in ({"a": 1, "b": 2}, {"b": 2, "a": 1}))
    assert first.fingerprints() == second.fingerprints()


def test_a_set_of_texts_gives_every_process_the_same_fingerprint(module, command, tmp_path):
    module("mine", "class Some(BaseProcessor):\n    kinds: dict[str, set[str]]\n    def process(self, file): ...\n")
    source = """
        from dpp.plugins.registry import load_plugins
        from dpp.settings import make_settings
        options = {"mine:Some": {"kinds": {"text": ["txt", "csv", "json", "md", "rst"]}}}
        print(load_plugins().steps(make_settings({"processor": "mine:Some", "options": options})).fingerprints()[1])
    """
    runs = [command("python", "-c", dedent(source), PYTHONHASHSEED=str(seed)) for seed in range(3)]
    assert len({run.stdout for run in runs}) == 1
    assert runs[0].stdout.strip(), runs[0].stderr


# Objects


def test_a_step_is_made_once_a_thread_and_keeps_its_options(module):
    module("mine", "class Same(BaseProcessor):\n    n: int = 0\n    def process(self, file):\n        return id(self), self.n\n")
    processor = steps(processor="mine:Same", options={"mine:Same": {"n": "4"}}).processor
    file = type("File", (), {"id": "a"})()
    assert processor(file) == processor(file)
    assert processor(file)[1] == 4


@pytest.mark.parametrize("debug", [True, False])
def test_debug_reaches_a_class_that_has_such_an_option(module, debug):
    module("mine", "class Plain(BaseProcessor):\n    def process(self, file):\n        return self.debug\n")
    file = type("File", (), {"id": "a"})()
    assert steps(processor="mine:Plain", debug=debug).processor(file) is debug


def test_the_example_of_the_design_works_as_it_is_printed(install, site, manifest, run_batch, results):
    install(
        "linecount",
        """
        from dpp import BasePreProcessor, BaseProcessor, BasePostProcessor, FileData, hookimpl

        class LineCount(BaseProcessor):          # a pydantic model: its fields are its options
            name = "line-count"                  # ClassVar; how a batch asks for it
            version = "1"                        # ClassVar; part of the cache key
            skip_blank: bool = False
            def process(self, file: FileData) -> Any: ...

        @hookimpl
        def dpp_processors(): return [LineCount]
        """,
    )
    arguments = ["--processor", "line-count", "--options", '{"line-count": {"skip_blank": true}}']
    run = run_batch(manifest([{"url": site.add("/a.txt", "a")}]), *arguments)
    assert run.returncode == 0, run.stderr
    assert (results()["a"]["status"], results()["a"]["result"]) == ("ok", None)


def test_the_list_of_plugins_says_who_is_enabled_or_why_not(install, command):
    install("bad", "import nowhere_at_all")
    install("off", COUNT)
    install("one", COUNT)
    listed = command("dpp", "plugins", DPP_DISABLE_PLUGINS="off").stdout.splitlines()
    assert "count\tprocessor\t3\tdpp-one 1.0\tenabled" in listed
    assert "off\tplugin\t\tdpp-off 1.0\tdisabled: named in DPP_DISABLE_PLUGINS" in listed
    assert "bad\tplugin\t\tdpp-bad 1.0\tbroken: ModuleNotFoundError: No module named 'nowhere_at_all'" in listed


def test_the_current_folder_is_searched_once_only(module):
    module("mine", SIZE)
    steps(processor="mine:Size")
    steps(processor="mine:Size")
    assert sys.path.count(os.getcwd()) == 1


def test_a_task_of_an_early_stage_may_have_options_for_later_ones(install):
    install("one", COUNT)
    options = {"count": {"depth": 2}}
    assert steps(pre_processors=[], options=options).pre_processors == []
    with pytest.raises(ConfigurationError, match="options for count, which this batch does not use; it uses checksum"):
        steps(pre_processors=[], processor="checksum", post_processors=[], options=options)


def test_the_report_of_one_file_takes_options_and_refuses_those_for_nothing(install, site, command, tmp_path):
    install("one", COUNT)
    report = ("luigi", "--module", "dpp", "Report", "--url", site.add("/a.txt", "a"), "--processor", "count", "--options")
    assert command(*report, '{"count": {"depth": 3}}').returncode == 0
    assert json.loads(next(tmp_path.glob("dpp-workspace/reports/*/*/*.json")).read_text())["result"]["depth"] == 3
    refused = command(*report, '{"cuont": {"depth": 3}}')
    assert refused.returncode != 0
    assert "options for cuont, which this batch does not use; it uses count" in refused.stderr
