"""Tests of all hooks: when they are called, their arguments, and the effect of a plugin that fails in one."""

from __future__ import annotations

import json
import re

import pytest
from dpp import ManifestError, PluginError, Settings, hookspecs
from dpp.plugins.registry import load_plugins
from dpp.settings import make_settings

HEADER = """
import click

from dpp import BaseFetcher, BasePostProcessor, BasePreProcessor, BaseProcessor, FetchError, hookimpl


def note(*facts):
    with open("notes.txt", "a") as notes:
        print(*facts, file=notes)
"""
NOTES = """
@hookimpl
def dpp_batch_started(run):
    note("started", run["batch"], run["run"], run["total"], run["plugins"][0]["name"])

@hookimpl
def dpp_file_finished(outcome):
    note("file", outcome.id, outcome.status, outcome.stage)

@hookimpl
def dpp_batch_finished(summary):
    note("finished", summary["ok"], summary["failed"])
"""
FAILING = """
@hookimpl
def dpp_batch_started():
    raise OSError("started")

@hookimpl
def dpp_file_finished():
    raise SystemExit("file")

@hookimpl
def dpp_batch_finished():
    raise ValueError("finished")
"""


@pytest.fixture
def notes(tmp_path):
    """Return the lines that plugins have recorded."""
    return lambda: (tmp_path / "notes.txt").read_text().splitlines()


@pytest.mark.parametrize("hook", [name for name in dir(hookspecs) if name.startswith("dpp_")])
def test_every_hook_has_a_test(hook):
    assert any(name.startswith(f"test_{hook}_") for name in globals())


def test_dpp_pre_processors_offers_a_step_of_the_chain(install):
    install(
        "one",
        """
        class Upper(BasePreProcessor):
            name = "upper"
            def pre_process(self, file):
                return file

        @hookimpl
        def dpp_pre_processors():
            return [Upper]
        """,
    )
    chain = load_plugins().steps(make_settings({"pre_processors": ["upper"]})).pre_processors
    assert [step.label() for step in chain] == [{"kind": "pre-processor", "name": "upper", "version": "0"}]


def test_dpp_processors_offers_several(install):
    install(
        "one",
        """
        class First(BaseProcessor):
            name = "first"
            def process(self, file): ...

        class Second(First):
            name = "second"

        @hookimpl
        def dpp_processors():
            yield from (First, Second)
        """,
    )
    found = load_plugins()
    assert [found.steps(make_settings({"processor": name})).processor.name for name in ("first", "second")] == ["first", "second"]


def test_dpp_post_processors_see_results_and_failures(install, notes, site, manifest, run_batch):
    install(
        "one",
        """
        class Note(BasePostProcessor):
            name = "note"
            def post_process(self, result, file):
                note(file.id, result and result["size"], file.error and file.error.error_class)

        @hookimpl
        def dpp_post_processors():
            return [Note]
        """,
    )
    run = run_batch(manifest([{"url": site.add("/a.txt", "abc")}, {"url": f"{site.url}/b.txt"}]), "--post-processors", "note")
    assert run.returncode == 1, run.stderr
    assert sorted(notes()) == ["a 3 None", "b None http-404"]


def test_dpp_executors_run_the_chunks(install, notes, site, manifest, command):
    install(
        "one",
        """
        from concurrent.futures import ThreadPoolExecutor
        from dpp import BaseExecutor

        class Noting(BaseExecutor):
            name = "noting"
            greeting: str
            configured_only = ("greeting",)

            def open(self):
                note(self.greeting, self.workers)
                return ThreadPoolExecutor(1)

        @hookimpl
        def dpp_executors():
            return [Noting]
        """,
    )
    files = manifest([{"url": site.add("/a.txt", "abc")}, {"url": site.add("/b.txt", "abc")}])
    given = command("dpp", "run", files, "--executor", "noting", "--options", '{"noting": {"greeting": "hello"}}')
    assert (given.returncode, given.stderr) == (2, "Error: options of noting: only section [noting] of luigi.cfg can set greeting\n")
    for verb in ("run", "plan"):
        unknown = command("dpp", verb, files, "--executor", "notng")
        assert (unknown.returncode, unknown.stderr) == (2, "Error: unknown executor 'notng'; did you mean 'noting'?\n")
    with open("luigi.cfg", "w") as stream:
        stream.write("[noting]\ngreeting=hello\n")
    for number, run in enumerate([("dpp", "run", files), ("luigi", "--module", "dpp", "RunBatch", "--files", files)]):
        done = command(*run, "--executor", "noting", "--workers", "3", "--workspace", f"w{number}")
        assert done.returncode == 0, done.stderr
    assert notes() == ["hello 3"] * 2


def test_dpp_fetchers_makes_a_scheme_known(install, manifest, run_batch, results):
    install(
        "one",
        """
        class Memory(BaseFetcher):
            def fetch(self, url, file, part):
                if url.endswith("gone"):
                    raise FetchError("forgotten", "forgotten")
                part.begin(total=2)
                part.write(b"ok")

            def close(self):
                raise OSError("the server is gone")

        @hookimpl
        def dpp_fetchers():
            return {"MEMORY": Memory}
        """,
    )
    run = run_batch(manifest([{"url": "memory://x/here"}, {"url": "memory://x/gone"}]), "--chunk-size", "2")
    assert run.returncode == 1, run.stderr
    assert "cannot close fetcher Memory: OSError: the server is gone" in run.stderr
    rows = results()
    assert rows["here"]["bytes"] == 2
    assert (rows["gone"]["error_class"], rows["gone"]["attempts"]) == ("forgotten", 1)


OPTIONS = """
from pydantic import BaseModel

class Options(BaseModel, extra="forbid"):
    text: str = "ok"

class Memory(BaseFetcher):
    Options = Options

    def __init__(self, settings):
        super().__init__(settings)
        self.options = settings.options_for("memory", Options)

    def fetch(self, url, file, part):
        part.begin()
        part.write(self.options.text.encode())

@hookimpl
def dpp_fetchers():
    return {"memory": Memory}

@hookimpl
def dpp_sources(files, settings):
    return [{"url": f"memory://x/{settings.options_for('memory', Options).text}"}] if files == "memory://" else None
"""


def test_options_of_a_scheme_reach_its_fetcher_and_its_source(install, run_batch, results, tmp_path):
    install("one", OPTIONS)
    (tmp_path / "luigi.cfg").write_text("[memory]\ntext=four\n")
    assert run_batch("memory://").returncode == 0
    assert results()["four"]["bytes"] == 4
    assert run_batch("memory://", "--options", '{"memory": {"text": "three"}}').returncode == 0
    assert results()["three"]["bytes"] == 5


def test_a_wrong_option_of_a_scheme_is_found_before_anything_is_fetched(install, manifest, run_batch, tmp_path):
    install("one", OPTIONS)
    run = run_batch(manifest([{"url": "memory://x/a"}]), "--options", '{"memory": {"txet": "three"}}')
    assert run.returncode == 2
    assert "options of memory:" in run.stderr
    assert "txet" in run.stderr
    assert not list(tmp_path.glob("dpp-workspace/downloads"))


# dpp_sources

SOURCE = """
@hookimpl
def dpp_sources(files):
    if files.startswith("listing://"):
        return ({"url": f"file:///{name}.txt", "note": name} for name in "ab")
"""


def test_dpp_sources_feeds_the_batch(install, site, run_batch, results):
    install(
        "one",
        f"""
        @hookimpl
        def dpp_sources(files):
            if files.startswith("listing://"):
                return ({{"url": f"{site.url}/{{name}}.txt"}} for name in files.removeprefix("listing://"))
        """,
    )
    site.add("/a.txt", "a")
    site.add("/b.txt", "b")
    run = run_batch("listing://ab")
    assert run.returncode == 0, run.stderr
    assert set(results()) == {"a", "b"}


def test_dpp_sources_may_leave_it_to_others(install):
    install("one", "@hookimpl\ndef dpp_sources(files):\n    return None\n")
    install("two", SOURCE)
    found = load_plugins()
    assert [row["note"] for row in found.rows("listing://x", Settings())] == ["a", "b"]
    assert found.rows("x.json", Settings()) is None


def test_dpp_sources_problems_of_entries_are_told_like_those_of_a_manifest(install, run_batch):
    install("one", "@hookimpl\ndef dpp_sources(files):\n    return [{'url': 'gopher://x/a'}, 5] if '://' in files else None\n")
    run = run_batch("listing://x")
    assert run.returncode == 2
    assert "entry 0: url: no fetcher for gopher:" in run.stderr
    assert "entry 1: expected an object with a url, or a URL, got int" in run.stderr


OPTION_SOURCE = """
from pydantic import BaseModel

class Options(BaseModel, extra="forbid"):
    text: str

@hookimpl
def dpp_source_schemes():
    return ["LISTING"]

@hookimpl
def dpp_sources(files, settings):
    if files.startswith("listing://"):
        return [{"url": files.replace("listing:", "http:"), "id": settings.options_for("listing", Options).text}]
"""


def test_dpp_source_schemes_lets_a_source_have_options(install, site, run_batch, results, tmp_path):
    install("one", OPTION_SOURCE)
    (tmp_path / "luigi.cfg").write_text("[listing]\ntext = configured\n")
    assert load_plugins().schemes() >= {"listing", "https", "file"}
    files = site.add("/a.txt", "a").replace("http:", "listing:")
    for options, name in (("{}", "configured"), ('{"listing": {"text": "given"}}', "given")):
        run = run_batch(files, "--options", options)
        assert (run.returncode, name in results()) == (0, True), run.stderr


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ('{"lisitng": {"text": "x"}}', "options for lisitng, which this batch does not use; it uses checksum; did you mean 'listing'?"),
        ('{"listing": {"txet": "x"}}', "options of listing:"),
        ('{"https": {"x": 1}}', "options of https:\n  unknown option 'x'"),
        ('{"file": {"x": 1}, "http": {}}', "options of file:\n  unknown option 'x'"),
    ],
)
def test_dpp_source_schemes_and_fetchers_refuse_other_options(install, run_batch, options, problem):
    install("one", OPTION_SOURCE)
    run = run_batch("listing://x", "--options", options)
    assert (run.returncode, problem in run.stderr) == (2, True), run.stderr


def test_dpp_sources_that_fails_names_the_plugin(install, run_batch):
    install("one", "@hookimpl\ndef dpp_sources(files):\n    raise OSError('no route to host')\n")
    run = run_batch("listing://me:secret@host/x?key=secret")
    assert run.returncode == 2
    assert "plugin one (dpp-one 1.0) failed to list listing://***@host/x?***: OSError: no route to host" in run.stderr
    assert "secret" not in run.stderr
    assert "Traceback" not in run.stderr


def test_dpp_sources_that_fails_while_listing_names_the_plugin(install):
    install("one", "@hookimpl\ndef dpp_sources(files):\n    return (1 / n for n in (1, 0))\n")
    with pytest.raises(PluginError, match=r"plugin one \(dpp-one 1.0\) failed to list listing://x: ZeroDivisionError"):
        list(load_plugins().rows("listing://x", Settings()))


def test_dpp_sources_that_fails_stops_no_run_that_another_plugin_or_a_path_feeds(install):
    install("bad", "@hookimpl(tryfirst=True)\ndef dpp_sources(files):\n    raise OSError\n")
    install("good", SOURCE)
    found = load_plugins()
    assert len(list(found.rows("listing://x", Settings()))) == 2
    assert found.rows("x.json", Settings()) is None


def test_dpp_sources_may_raise_an_error_of_dpp(install):
    install("one", "from dpp import ManifestError\n\n@hookimpl\ndef dpp_sources(files):\n    raise ManifestError(files, ['is empty'])\n")
    with pytest.raises(ManifestError, match="is empty"):
        load_plugins().rows("listing://x", Settings())


# dpp_commands

VERB = """
@hookimpl
def dpp_commands():
    @click.command("greet")
    @click.argument("name")
    def greet(name):
        "Say hello."
        if name == "nobody":
            raise FetchError("there is nobody", "nobody")
        click.echo(f"hello {name}")

    return [greet]
"""


def test_dpp_commands_adds_a_verb(install, command):
    install("one", VERB)
    assert command("dpp", "greet", "you").stdout == "hello you\n"
    assert re.search("greet +Say hello.", command("dpp", "--help").stdout)


def test_dpp_commands_errors_become_a_message_and_an_exit_code(install, command):
    install("one", VERB)
    run = command("dpp", "greet", "nobody")
    assert (run.returncode, run.stderr) == (1, "Error: there is nobody\n")


def test_dpp_commands_cannot_take_a_verb_of_dpp(install, command):
    install("one", VERB.replace('"greet"', '"plugins"'))
    assert "hello" not in command("dpp", "plugins").stdout


def test_dpp_commands_that_fails_leaves_the_other_verbs(install, command):
    install("bad", "@hookimpl\ndef dpp_commands():\n    raise OSError('broken')\n")
    install("one", VERB)
    run = command("dpp", "--help")
    assert run.returncode == 0
    assert "greet" in run.stdout
    assert "skipped broken plugin bad (dpp-bad 1.0): OSError: broken" in run.stderr


# Notifications


@pytest.mark.parametrize("arguments", [(), ("--workers", 2), ("--chunk-size", 2), ("--chunk-size", 2, "--workers", 2)])
def test_dpp_file_finished_is_called_once_a_file_that_was_worked_on(install, notes, site, manifest, run_batch, arguments):
    install("one", NOTES)
    entries = [{"url": site.add(f"/{name}.txt", name)} for name in "abcd"]
    files = manifest([*entries, {"url": f"{site.url}/e.txt"}])
    assert run_batch(files, *arguments).returncode == 1
    expected = [f"file {name} ok None" for name in "abcd"] + ["file e failed download"]
    assert sorted(line for line in notes() if line.startswith("file")) == expected

    site.add("/e.txt", "e")
    assert run_batch(files, *arguments).returncode == 0
    assert sorted(line for line in notes() if line.startswith("file"))[5:] == ["file e ok None"]


@pytest.mark.parametrize("arguments", [(), ("--chunk-size", 2)])
def test_dpp_file_finished_that_kills_its_process_group_does_not_end_the_run(install, manifest, run_batch, results, tmp_path, arguments):
    install("one", "@hookimpl\ndef dpp_file_finished(outcome):\n    import os\n    os.killpg(0, 9)\n")
    for name in "abc":
        (tmp_path / name).write_text(name)
    run = run_batch(manifest([{"url": (tmp_path / name).as_uri()} for name in "abc"]), *arguments)
    failed = {row["error_class"] for row in results().values() if row["status"] == "failed"}
    assert (run.returncode, len(results()), failed <= {"crashed"}) == (int(bool(failed)), 3, True), run.stderr


def test_dpp_batch_started_is_called_once_a_run(install, notes, site, manifest, run_batch):
    install("one", NOTES)
    files = manifest([{"url": site.add("/a.txt", "a")}])
    for _ in range(2):
        assert run_batch(files, "--workers", 2).returncode == 0
    started = [line.split() for line in notes() if line.startswith("started")]
    assert [words[2:] for words in started] == [["1", "1", "checksum"], ["2", "1", "checksum"]]
    assert started[0][1] == started[1][1] != ""


def test_dpp_batch_started_is_not_called_where_the_manifest_is_wrong(install, tmp_path, manifest, run_batch):
    install("one", NOTES)
    assert run_batch(manifest([{"url": "nowhere"}])).returncode == 2
    assert not (tmp_path / "notes.txt").exists()


@pytest.mark.parametrize("arguments", [(), ("--chunk-size", 2, "--workers", 2)])
def test_dpp_batch_finished_is_called_once_a_run(install, notes, site, manifest, run_batch, arguments):
    install("one", NOTES)
    files = manifest([{"url": site.add("/a.txt", "a")}, {"url": f"{site.url}/b.txt"}])
    run_batch(files, *arguments)
    run_batch(files, *arguments)
    assert [line for line in notes() if line.startswith("finished")] == ["finished 1 1"] * 2


def test_dpp_batch_finished_is_called_by_the_predecessor_s_interface_too(install, notes, site, manifest, command):
    install("one", NOTES)
    run = command("download-pipeline-processor", "--files", manifest([{"url": site.add("/a.txt", "a")}]))
    assert run.returncode == 0, run.stderr
    assert [line.split()[0] for line in notes()] == ["started", "file", "finished"]


@pytest.mark.parametrize("arguments", [(), ("--chunk-size", 2)])
def test_a_plugin_that_fails_in_a_notification_stops_nothing(install, notes, site, manifest, run_batch, results, arguments):
    install("bad", FAILING)
    install("good", NOTES)
    run = run_batch(manifest([{"url": site.add(f"/{name}.txt", name)} for name in "abc"]), *arguments)
    assert run.returncode == 0, run.stderr
    assert [row["status"] for row in results().values()] == ["ok"] * 3
    assert [line.split()[0] for line in notes()] == ["started", "file", "file", "file", "finished"]
    for hook in ("dpp_batch_started", "dpp_file_finished", "dpp_batch_finished"):
        assert f"plugin bad (dpp-bad 1.0) failed in {hook}" in run.stderr


def test_a_hook_gets_only_the_arguments_it_names(install, tmp_path):
    install("one", "@hookimpl\ndef dpp_batch_started():\n    note('called')\n")
    load_plugins().notify("dpp_batch_started", run={})
    assert (tmp_path / "notes.txt").read_text() == "called\n"


def test_what_hooks_are_told_can_be_kept_as_json(install, tmp_path, site, manifest, run_batch):
    source = "import json\n\n" + "\n\n".join(
        f"@hookimpl\ndef {hook}({fact}):\n    json.dump({value}, open('{fact}.json', 'w'))\n"
        for hook, fact, value in (
            ("dpp_batch_started", "run", "dict(run)"),
            ("dpp_file_finished", "outcome", "outcome.model_dump(mode='json')"),
            ("dpp_batch_finished", "summary", "dict(summary)"),
        )
    )
    install("one", source)
    assert run_batch(manifest([{"url": site.add("/a.txt", "a")}])).returncode == 0
    run, outcome, summary = (json.loads((tmp_path / f"{fact}.json").read_text()) for fact in ("run", "outcome", "summary"))
    assert (run["total"], outcome["id"], summary["ok"]) == (1, "a", 1)
