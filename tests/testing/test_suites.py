"""The suites of dpp.testing: what keeps to the contract passes, and each departure from it fails in the test that is for it."""

from __future__ import annotations

import re
from textwrap import dedent

import dpp.testing
import pytest
from dpp.download.http_fetcher import RequestsFetcher
from dpp.download.local import LocalFetcher
from dpp.plugins.builtin import Checksum

HEADER = """
import json, os, random
from pathlib import Path
import dpp.testing, pytest
from dpp import *
from dpp import hookimpl
"""


class TestChecksum(dpp.testing.ProcessorSuite):
    plugin = Checksum

    @pytest.fixture
    def other_options(self):
        return [{"algorithm": "md5"}, {"algorithm": "sha512"}]


class TestRequestsFetcher(dpp.testing.FetcherSuite):
    plugin = RequestsFetcher
    schemes = ("http", "https")

    @pytest.fixture(autouse=True)
    def without_plugins(self, monkeypatch):
        """dpp-curl takes its place where it is installed."""
        monkeypatch.setenv("DPP_DISABLE_PLUGINS", "curl")

    @pytest.fixture
    def serve(self, site):
        return lambda name, body: site.add(f"/{name}", body)

    @pytest.fixture
    def missing(self, site):
        return f"{site.url}/missing"


class TestLocalFetcher(dpp.testing.FetcherSuite):
    plugin = LocalFetcher
    schemes = ("file",)

    @pytest.fixture
    def serve(self, tmp_path):
        def write(name, body):
            (tmp_path / name).write_bytes(body)
            return (tmp_path / name).as_uri()

        return write

    @pytest.fixture
    def missing(self, tmp_path):
        return (tmp_path / "missing").as_uri()

    @pytest.fixture
    def refused(self, tmp_path):
        return [tmp_path.as_uri(), "file://another-host/file", "file:relative"]


@pytest.fixture
def failing(pytester):
    """Run test modules, given by name, and return for each the names of the tests that failed."""

    def run(sources):
        modules = {f"test_{re.sub('[^a-z]', '_', name.lower())}": name for name in sources}
        pytester.makepyfile(**{module: HEADER + dedent(sources[name]) for module, name in modules.items()})
        passed, skipped, failed = pytester.inline_run("-p", "no:cacheprovider", "-p", "no:cov").listoutcomes()
        assert {report.fspath for report in passed} == {f"{module}.py" for module in modules}
        assert not skipped
        found = {name: set() for name in sources}
        for report in failed:
            found[modules[report.fspath.removesuffix(".py")]].add(report.nodeid.rpartition("::")[2])
        return found

    return run


def step(kind, body, suite_body="", fields="", hook=True):
    """Return a test module with a step of a kind and its suite."""
    base = {"pre-processor": "BasePreProcessor", "processor": "BaseProcessor", "post-processor": "BasePostProcessor"}[kind]
    signature = {"pre-processor": "pre_process(self, file)", "processor": "process(self, file)"}.get(
        kind, "post_process(self, result, file)"
    )
    offer = f"@hookimpl\ndef dpp_{kind.replace('-', '_')}s():\n    return [Tried]\n"
    return f"""
class Tried({base}):
    name = "tried"
    version = "1"
    {fields}
    def {signature}:
        {body}

{offer if hook else ""}
class TestTried(dpp.testing.{base.removeprefix("Base")}Suite):
    plugin = Tried
    {suite_body or "pass"}
"""


NOTHING_OVER = "test_it_carries_nothing_over_from_one_file_to_the_next"
THREADS = "test_it_works_in_several_threads_at_once"
CALLED = "test_it_keeps_what_the_file_is_called"
SET = "test_what_it_sets_on_a_file_is_json"
FAILED = "test_it_takes_files_that_failed"
INPUT = "test_it_leaves_its_input_and_the_current_folder_alone"
IN_OUTPUT = "test_it_returns_a_file_in_output_dir_or_its_input"
KEY = "test_its_options_make_the_cache_key"
BROKEN = "test_a_broken_file_fails_alone"
WRITE = "(file.output_dir / 'made.txt').write_bytes(file.local_path.read_bytes().upper())"
BROKEN_FILES = "@pytest.fixture\n    def broken(self):\n        return {'broken.txt': b'broken'}"

STEPS = {
    "a good processor": ("processor", "return len(file.local_path.read_bytes())", "", "", set()),
    "a good pre-processor": ("pre-processor", f"{WRITE}; file.local_path = file.output_dir / 'made.txt'; return file", "", "", set()),
    "a pre-processor that changes nothing": ("pre-processor", "return file", "", "", set()),
    "a post-processor that does nothing": ("post-processor", "pass", "", "", set()),
    "blanks in a name": ("processor", "return 1", "", "name = 'two words'", {"test_it_has_a_name_and_a_version"}),
    "options of no meaning for the key": (
        "processor",
        "return 1",
        "@pytest.fixture\n    def other_options(self):\n        return [{'shift': 2}]",
        "shift: int = __import__('pydantic').Field(1, exclude=True)",
        {KEY},
    ),
    "options that are objects": (
        "processor",
        "return 1",
        "",
        "with_what: object = __import__('pydantic').Field(default_factory=object)",
        {KEY},
    ),
    "options of any name": (
        "processor",
        "return 1",
        "",
        "model_config = {'extra': 'ignore'}",
        {"test_its_options_are_the_fields_of_a_model"},
    ),
    "a sum over files": (
        "processor",
        "self.total += 1; return self.total",
        "",
        "total: int = 0",
        {NOTHING_OVER, THREADS},
    ),
    "not a number": ("processor", "return float('nan')", "", "", {NOTHING_OVER, THREADS, INPUT, BROKEN, "test_its_result_is_json"}),
    "a processor that leaves files": ("processor", "Path('note.txt').write_text('x'); return 1", "", "", {INPUT}),
    "a broken file that passes": ("processor", "return 1", BROKEN_FILES, "", {BROKEN}),
    "a broken file that is not told of": (
        "processor",
        "if file.local_path.read_bytes() == b'broken': raise ValueError\n        return 1",
        BROKEN_FILES,
        "",
        {BROKEN},
    ),
    "a broken file that fails": (
        "processor",
        "if file.local_path.read_bytes() == b'broken': raise ValueError('is broken')\n        return 1",
        BROKEN_FILES,
        "",
        set(),
    ),
    "a changed input": (
        "pre-processor",
        "file.local_path.write_bytes(b'changed'); return file",
        "",
        "",
        {INPUT},
    ),
    "nothing returned": ("pre-processor", WRITE, "", "", {NOTHING_OVER, THREADS, INPUT, BROKEN, IN_OUTPUT, CALLED, SET}),
    "a file elsewhere": (
        "pre-processor",
        "file.local_path = Path(__import__('tempfile').mkdtemp()); return file",
        "",
        "",
        {IN_OUTPUT},
    ),
    "the folder itself": ("pre-processor", "file.local_path = file.output_dir; return file", "", "", {IN_OUTPUT}),
    "a link that leads outside": (
        "pre-processor",
        "file.local_path = file.output_dir / 'out'; file.local_path.symlink_to('/etc/passwd'); return file",
        "",
        "",
        {IN_OUTPUT},
    ),
    "another id": ("pre-processor", "file.id = 'another'; return file", "", "", {CALLED}),
    "a field that is no JSON": (
        "pre-processor",
        "file.object = object(); return file",
        "",
        "",
        {SET},
    ),
    "a post-processor that returns something": ("post-processor", "return 1", "", "", {"test_it_returns_nothing", FAILED}),
    "a post-processor that adds up": (
        "post-processor",
        "SEEN.append(file.id)",
        "@pytest.fixture\n    def effect(self):\n        return lambda: len(SEEN)",
        "global SEEN; SEEN = []",
        {"test_doing_it_twice_is_as_good_as_once"},
    ),
    "a post-processor that needs a result": (
        "post-processor",
        "result['lines']",
        "",
        "",
        {FAILED},
    ),
}


def test_steps_fail_where_they_depart_from_their_contract(failing):
    sources = {name: step(*case[:-1]) for name, case in STEPS.items()}
    assert failing(sources) == {name: case[-1] for name, case in STEPS.items()}


def test_a_step_that_nobody_offers_fails(failing):
    assert failing({"alone": step("processor", "return 1", hook=False)}) == {"alone": {"test_it_is_offered"}}


FETCHER = """
from urllib.parse import unquote, urlsplit

FOLDER = Path(__file__).parent

class Tried(BaseFetcher):
    def fetch(self, url, file, part):
        path = Path(unquote(urlsplit(url).path))
        {lookup}
        body = path.read_bytes()
        {transfer}

@hookimpl
def dpp_fetchers():
    return {{"tried": Tried}}

class TestTried(dpp.testing.FetcherSuite):
    plugin = Tried
    schemes = ("tried",)

    @pytest.fixture
    def serve(self, tmp_path):
        def write(name, body):
            (tmp_path / name).write_bytes(body)
            return f"tried://{{tmp_path}}/{{name}}"
        return write

    @pytest.fixture
    def missing(self, tmp_path):
        return f"tried://{{tmp_path}}/missing"
"""
LOOKUP = "if not path.is_file(): raise FetchError(f'there is no {path}', 'not-found')"
TAG = "tag = chr(34) + __import__('hashlib').md5(body).hexdigest() + chr(34); at = part.offset if part.etag == tag else 0"
CHANGED = "test_a_part_of_a_file_that_changed_is_started_over"
CONTINUED = "test_a_part_with_an_entity_tag_is_continued"
ANNOUNCED = "test_the_size_is_announced"
ENDED = "test_an_error_of_the_part_ends_the_attempt"
VERSION = "test_the_version_of_a_source_is_that_of_its_bytes"
ALL = {CHANGED, CONTINUED, ENDED, ANNOUNCED, VERSION, "test_one_object_serves_all_threads"}
WHOLE = {"test_a_file_comes_as_it_is[1]", "test_a_file_comes_as_it_is[262144]", "test_an_empty_file_comes_where_it_is_expected"}

FETCHERS = {
    "a good one that continues": (LOOKUP, f"{TAG}; part.begin(at, total=len(body), etag=tag); part.write(body[at:])", set()),
    "a good one that starts over": (LOOKUP, "part.begin(total=len(body)); part.write(body)", set()),
    "no size": (LOOKUP, "part.begin(); part.write(body)", {ANNOUNCED}),
    "a version that no rerun finds again": (LOOKUP, "part.begin(total=len(body), source_version='1'); part.write(body)", {VERSION}),
    "a missing file that is tried again": (
        LOOKUP.replace("'not-found'", "'not-found', retryable=True"),
        "part.begin(total=len(body)); part.write(body)",
        {"test_a_missing_file_is_final"},
    ),
    "a foreign exception": ("pass", "part.begin(total=len(body)); part.write(body)", {"test_a_missing_file_is_final"}),
    "a tag that is not looked at": (
        LOOKUP,
        "at = part.offset; part.begin(at, total=len(body), etag=chr(34) * 2); part.write(body[at:])",
        {CHANGED},
    ),
    "a tag that promises too much": (LOOKUP, f"{TAG}; part.begin(0, total=len(body), etag=tag); part.write(body)", {CONTINUED}),
    "a weak tag": (LOOKUP, "part.begin(total=len(body), etag='W/' + chr(34) * 2); part.write(body)", ALL),
    "an error that is swallowed": (
        LOOKUP,
        "part.begin(total=len(body))\n        try: part.write(body)\n        except StageError: pass",
        {CHANGED, CONTINUED, ENDED},
    ),
    "begun twice": (LOOKUP, "part.begin(); part.begin(total=len(body)); part.write(body)", ALL),
    "never begun": (LOOKUP, "part.write(body)", ALL | WHOLE),
    "another offset": (
        LOOKUP,
        f"{TAG}; part.begin(at and at - 1, total=len(body), etag=tag); part.write(body[at and at - 1:])",
        {CONTINUED},
    ),
}


def test_fetchers_fail_where_they_depart_from_their_contract(failing):
    sources = {name: FETCHER.format(lookup=lookup, transfer=transfer) for name, (lookup, transfer, _) in FETCHERS.items()}
    assert failing(sources) == {name: case[-1] for name, case in FETCHERS.items()}


def test_a_fetcher_needs_what_only_its_own_tests_know(failing):
    source = FETCHER.format(lookup=LOOKUP, transfer="pass").partition("    @pytest.fixture")[0]
    assert {"test_a_missing_file_is_final", ANNOUNCED} <= failing({"alone": source})["alone"]


SOURCE = """
import sys, random

@hookimpl
def dpp_sources({arguments}):
    {lookup}
    return {entries}

class TestTried(dpp.testing.SourceSuite):
    plugin = sys.modules[__name__]
    schemes = ("tried",)

    @pytest.fixture
    def files(self):
        return "tried://me:secret@host/folder"
"""
KNOWN = "if not files.startswith('tried:'): return None"
MANIFEST = "test_its_entries_are_those_of_a_manifest"
SECRET = "test_secrets_stay_out_of_ids_and_names"

SOURCES = {
    "a good one": ("files", KNOWN, "({'url': files + '/' + name} for name in 'ab')", set()),
    "a good one with settings": ("settings, files", KNOWN, "[{'url': f'{files}/{settings.attempts}'}]", set()),
    "no file": ("files", KNOWN, "[]", {"test_it_finds_files"}),
    "two files of one id": ("files", KNOWN, "[{'url': f'tried://host/{name}', 'id': 'one'} for name in 'ab']", {MANIFEST, SECRET}),
    "one file twice": ("files", KNOWN, "[{'url': 'tried://host/one'}] * 2", {MANIFEST}),
    "no URL": ("files", KNOWN, "[{'uri': files}]", {MANIFEST, SECRET}),
    "a scheme that nobody fetches": ("files", KNOWN, "[{'url': 'gopher://host/a'}]", {MANIFEST, SECRET}),
    "any order": ("files", KNOWN, "[{'url': f'tried://host/{random.random()}'}]", {"test_it_finds_the_same_files_twice"}),
    "everything is its own": ("files", "pass", "[{'url': 'tried://host/one'}]", {"test_it_leaves_to_others_what_it_does_not_know"}),
    "a password in an id": ("files", KNOWN, "[{'url': 'tried://host/one', 'id': files}]", {SECRET}),
    "nothing known": ("files", "return None", "", {MANIFEST, SECRET, "test_it_finds_files", "test_it_finds_the_same_files_twice"}),
}


def test_sources_fail_where_they_depart_from_their_contract(failing):
    sources = {
        name: SOURCE.format(arguments=arguments, lookup=lookup, entries=entries)
        for name, (arguments, lookup, entries, _) in SOURCES.items()
    }
    assert failing(sources) == {name: case[-1] for name, case in SOURCES.items()}
