"""Tests of the documentation: its commands are run, its links are valid, its tables are complete.

A page is read as follows:

- A fenced block right after a paragraph that ends with a file's name and a colon (``Save this as `x.py`:``) is that file.
- A ``console`` block is run, line by line: ``$ `` starts a command, the lines after it are output that must appear; ``...``
  stands for anything. A command must exit with 0, unless ``$ echo $?`` comes next and shows another code.
- An ``sh`` block is for a checkout of this repository: its make targets and paths must exist.

All blocks of a page share one fresh folder and one shell. Ports are replaced by free ones.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import click
import dpp
import dpp.testing
import pytest
from click.testing import CliRunner
from dpp import Outcome, Settings, Summary, errors, hookspecs
from dpp.cli import dpp as dpp_command
from dpp.cli.options import GROUPS
from dpp.cli.predecessor import download_pipeline_processor
from dpp.tasks.config import ENVIRONMENT, PREFIXES
from dpp.tasks.luigi_defaults import LOCAL_DEFAULTS, SOFT_DEFAULTS
from dpp.tasks.parameters import spelled
from virtualenv.seed.wheels import embed

from listening import reserved_port

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
LINKED = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md", *sorted(ROOT.glob("plugins/*/README.md"))]
PORTS = ("8123", "8082")
# A page takes seconds, but more on a busy machine.
SECONDS = 600
HOOKS = [name for name in vars(hookspecs) if name.startswith("dpp_")]

WORD_COUNT = """
from dpp import BaseProcessor

class WordCount(BaseProcessor):
    def process(self, file):
        return len(file.local_path.read_text().split())
"""
EXAMPLE_FILES = {
    "files.json": '[{"url": "file:///etc/passwd"}]',
    "files.csv": "url\nfile:///etc/group\n",
    "urls.txt": "file:///etc/passwd\n",
    "my_module.py": WORD_COUNT,
}


class Fence(NamedTuple):
    """A fenced block: its language, its text, and the name of the file that it is, or ""."""

    language: str
    text: str
    file: str


class Step(NamedTuple):
    """A command, and the lines of output that the page shows."""

    command: str
    shown: list[str]


def page(name: str) -> str:
    return (ROOT / name).read_text()


def named(paths: list[Path]) -> list[object]:
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in paths]


def fences(text: str) -> Iterator[Fence]:
    for match in re.finditer(r"(?:^|\n)([^\n]*)\n*\n```(\w*)\n(.*?)\n```(?=\n|$)", text, re.DOTALL):
        file = re.search(r"`([^` ]+)`:$", match[1])
        yield Fence(match[2], match[3], file[1] if file else "")


def steps(text: str) -> Iterator[Step]:
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, *shown = part.splitlines()
        yield Step(command, [line for line in shown if line.strip(" .")])


def write_script(text: str, folder: Path) -> list[Step]:
    """Write ``page.sh``, which writes the page's files and runs its commands, and return the commands."""
    lines, found = ["exec 2>&1"], []
    for number, fence in enumerate(fences(text)):
        if fence.file:
            (folder / f"file-{number}").write_text(fence.text + "\n")
            lines += [f"mkdir -p $(dirname '{fence.file}')", f"cp '{folder}/file-{number}' '{fence.file}'"]
        elif fence.language == "console":
            for step in steps(fence.text):
                lines += [step.command, f"{{ s=$?; printf '\\n<<%d %d>>\\n' {len(found)} $s; (exit $s); }}"]
                found.append(step)
    (folder / "page.sh").write_text("\n".join([*lines, ""]))
    return found


def environment(folder: Path) -> dict[str, str]:
    """Return an environment with this installation's commands, where ``pip install`` needs no index and changes only the folder."""
    site = folder / "site"
    pip = folder / "bin" / "pip"
    pip.parent.mkdir()
    pip.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pip --quiet "$@" --target "{site}" --no-deps\n')
    pip.chmod(0o755)
    wheels = Path(embed.__file__).parent
    path = os.pathsep.join([str(pip.parent), str(BIN), os.environ["PATH"]])
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("PIP_")},
        "PATH": path,
        "PYTHONPATH": str(site),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "PIP_CONFIG_FILE": os.devnull,
    }


def run_script(folder: Path) -> dict[int, tuple[str, int]]:
    """Run ``page.sh`` in a fresh folder and return the output and the exit code of each command."""
    work, log = folder / "work", folder / "page.log"
    work.mkdir()
    with log.open("wb") as output:
        shell = subprocess.Popen(
            ["bash", "../page.sh"], cwd=work, env=environment(folder), stdin=subprocess.DEVNULL, stdout=output, start_new_session=True
        )
        try:
            shell.wait(SECONDS)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
    parts = re.split(r"\n<<(\d+) (\d+)>>\n", log.read_text())
    return {int(number): (text, int(code)) for text, number, code in zip(parts[0::3], parts[1::3], parts[2::3], strict=False)}


def missing_lines(shown: list[str], output: str) -> list[str]:
    """Return the lines that are missing in the output, or not in this order."""
    rest = iter(output.splitlines())
    patterns = [re.escape(line.strip()).replace(r"\.\.\.", ".*") for line in shown]
    return [pattern for pattern in patterns if not any(re.fullmatch(pattern, line.strip()) for line in rest)]


@pytest.mark.slow
@pytest.mark.parametrize("path", named([path for path in PAGES if "```console" in path.read_text()]))
def test_commands_do_what_the_page_shows(path, tmp_path):
    text = path.read_text()
    with ExitStack() as reserved:
        for port in PORTS:
            text = text.replace(port, str(reserved.enter_context(reserved_port())))
        found = write_script(text, tmp_path)
        results = run_script(tmp_path)
    for number, step in enumerate(found):
        output, code = results.get(number, ("it was not reached", -1))
        asked = number + 1 < len(found) and found[number + 1].command == "echo $?"
        assert code == 0 or (asked and code > 0), f"$ {step.command}\n{output}\nexit code {code}"
        assert not missing_lines(step.shown, output), f"$ {step.command}\n{output}\nthe page shows:\n" + "\n".join(step.shown)


@pytest.mark.parametrize("path", named(PAGES))
def test_every_block_is_of_a_kind_that_is_checked(path):
    loose = [fence for fence in fences(path.read_text()) if not fence.file]
    assert {fence.language for fence in loose} <= {"console", "sh", "text", "python"}
    assert all("def dpp_" in fence.text for fence in loose if fence.language == "python")
    assert len(re.findall("^```", path.read_text(), re.MULTILINE)) == 2 * len(list(fences(path.read_text())))


@pytest.mark.parametrize("path", named([path for path in PAGES if "```sh" in path.read_text()]))
def test_commands_for_a_checkout_name_what_is_there(path):
    commands = [line for fence in fences(path.read_text()) if fence.language == "sh" and not fence.file for line in fence.text.splitlines()]
    for words in (command.partition("#")[0].split() for command in commands):
        if words[0] == "make":
            dry = subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
            assert dry.returncode == 0, dry.stderr
        else:
            assert (ROOT / words[0]).exists() or (BIN / words[0]).exists(), words
            assert all((ROOT / word).exists() for word in words if "/" in word), words


@pytest.mark.parametrize("path", named(LINKED))
def test_links_lead_somewhere(path):
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", text):
        if "://" in target:
            continue
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), f"{target} is not there"
        assert not anchor or anchor in anchors(file.read_text()), f"{target} has no heading {anchor}"


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_reached_from_the_index():
    linked = {(ROOT / "docs" / target).resolve() for target in re.findall(r"\]\(([^)#]+)\)", page("docs/index.md"))}
    expected = {*LINKED, *ROOT.glob("docs/**/*.rst"), *ROOT.glob("benchmarks/*.md")}
    assert expected - {ROOT / "docs/index.md"} <= linked


@pytest.mark.timeout(SECONDS)
def test_the_site_builds_without_a_warning(tmp_path):
    """Build the site like ``make docs``: a broken link, or a page that is in no list, is a warning."""
    dry = subprocess.run(["make", "--dry-run", "docs"], cwd=ROOT, capture_output=True, text=True, check=True)
    options = next(line for line in dry.stdout.splitlines() if "sphinx-build" in line).split()[1:-4]
    build = [sys.executable, "-m", "sphinx", *options, "-d", tmp_path / "doctrees", ".", tmp_path / "html"]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "html/docs/reference/python.html").exists()


def test_every_public_name_is_in_the_reference():
    listed = re.findall(r"^\.\. (?:auto\w+|decorator):: dpp\.((?:testing\.)?\w+)$", page("docs/reference/python.rst"), re.MULTILINE)
    expected = {*dpp.__all__, *(f"testing.{name}" for name in dpp.testing.__all__)} - {"__version__"}
    assert expected - set(listed) == set()


def shown_default(value: object) -> str:
    if value in ("", (), {}):
        return "none"
    return f"`{json.dumps(value) if isinstance(value, bool) else value}`"


def settings_rows() -> list[str]:
    kinds = {"Path": "path", "str": "text", "int": "integer", "float": "number", "bool": "boolean", "tuple": "names", "dict": "JSON"}
    rows = []
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        kind = "bytes" if spelled(field) else "path" if isinstance(default, Path) else kinds[type(default).__name__]
        rows.append(f"| `{name}` | {kind} | {shown_default(default)} | {field.description} |")
    return rows


def test_the_table_of_settings_is_that_of_the_code():
    rows = re.findall(r"^\| `[a-z_]+` \| \w+ \| .*$", page("docs/reference/configuration.md"), re.MULTILINE)
    assert rows == settings_rows(), "it should be:\n" + "\n".join(settings_rows())


def test_the_table_of_luigi_defaults_is_that_of_the_code():
    text = page("docs/reference/configuration.md")
    for (section, option), value in {**SOFT_DEFAULTS, **LOCAL_DEFAULTS}.items():
        assert f"| `[{section}] {option}` | `{value}` |" in text


def test_the_environment_variables_are_those_of_the_code():
    section = page("docs/reference/configuration.md").split("## Environment variables")[1]
    rows = re.findall(r"^\| (`.*`) \|", section, re.MULTILINE)
    assert set(re.findall(r"`([A-Z_]+)", "".join(rows))) == {*ENVIRONMENT, *PREFIXES}


@pytest.mark.parametrize(("model", "heading"), [(Outcome, "results.jsonl"), (Summary, "summary.json")])
def test_the_fields_of_results_and_summary_are_those_of_the_code(model, heading):
    section = re.search(rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", page("docs/reference/targets.md"), re.DOTALL | re.MULTILINE)
    assert section is not None
    assert re.findall(r"^\| `(\w+)` \|", section[1], re.MULTILINE) == list(model.model_fields)


def hook_sections() -> dict[str, str]:
    parts = re.split(r"^## `(dpp_\w+)`$", page("docs/reference/hooks.md"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_hook_has_a_section_and_no_other():
    assert list(hook_sections()) == HOOKS


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_section_says_signature_time_none_and_an_example(name):
    section = hook_sections()[name]
    signature = f"def {name}{inspect.signature(getattr(hookspecs, name))}".replace("'", "")
    assert signature in section, f"it should have: {signature}"
    assert "**Called**: " in section
    assert "**None**: " in section
    assert f"@hookimpl\ndef {name}(" in section


def error_words() -> set[str]:
    """Return all error classes in the code's calls of FetchError, StageError and Failure."""
    calls = [node for path in ROOT.glob("dpp/**/*.py") for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    raised = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id in ("FetchError", "StageError")]
    words = [call.args[1] for call in raised if len(call.args) > 1]
    failures = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Failure"]
    words += [keyword.value for call in failures for keyword in call.keywords if keyword.arg == "error_class"]
    return {word.value for word in words if isinstance(word, ast.Constant)}


def test_every_error_class_is_listed():
    listed = re.findall(r"^\| `([a-z-]+)` \|", page("docs/reference/error-classes.md"), re.MULTILINE)
    assert set(listed) == error_words() == errors.ERROR_CLASSES


def test_every_exception_is_listed():
    text = page("docs/reference/error-classes.md")
    classes = [name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.DppError)]
    assert [name for name in classes if f"`{name}`" not in text] == []


def test_every_verb_and_option_is_listed():
    text = page("docs/reference/command-line.md")
    commands: dict[str, click.Command] = {**dpp_command.commands, "download-pipeline-processor": download_pipeline_processor}
    for name, command in commands.items():
        heading = name if command is download_pipeline_processor else f"dpp {name}"
        section = re.search(rf"^## `{heading}`$(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
        assert section is not None, heading
        options = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
        settings = {f"--{setting.replace('_', '-')}" for setting in Settings.model_fields}
        expected = options - settings if name in ("run", "retry", "plan") else options
        assert [option for option in sorted(expected) if f"`{option}" not in section[1]] == []


def examples() -> list[object]:
    """Return the examples in the help of dpp's own commands; ``run`` comes first, as the others read its run."""
    order = sorted(dpp_command.commands.items(), key=lambda item: item[0] != "run")
    texts = {name: re.search(r"\nExamples:\n(.*)", inspect.cleandoc(command.help or ""), re.DOTALL) for name, command in order}
    return [line.strip() for name, text in texts.items() for line in (text[1] if text else f"no examples of {name}").splitlines()]


@pytest.mark.slow
def test_the_examples_in_the_help_of_each_verb_work(tmp_path):
    for name, text in EXAMPLE_FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "plugins").mkdir()
    variables = environment(tmp_path)
    for example in examples():
        done = subprocess.run(["bash", "-c", example], cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"$ {example}\n{done.stderr}"


@pytest.mark.parametrize("name", sorted(dpp_command.commands))
def test_a_verb_has_a_summary_that_fits_in_the_list(name):
    assert f"  {dpp_command.commands[name].get_short_help_str(1000)}\n" in CliRunner().invoke(dpp_command, ["-h"], terminal_width=80).output


def test_every_setting_is_in_one_group_of_the_help():
    others = {"simulate_downloads"}
    grouped = [name for names in GROUPS.values() for name in names]
    assert len(grouped) == len(set(grouped))
    assert {*Settings.model_fields, "workers", "batch_name"} - others <= set(grouped)


def test_the_layers_are_those_that_are_enforced():
    configured = tomllib.loads(page("pyproject.toml"))["tool"]["importlinter"]["contracts"][0]["layers"]
    drawn = next(fence.text for fence in fences(page("docs/architecture.md")) if "_version" in fence.text)
    assert [re.split(r"  +", line)[0] for line in drawn.splitlines()] == configured


def test_the_plugin_of_the_readme_is_short():
    plugin = next(fence for fence in fences(page("README.md")) if fence.file == "my_module.py")
    assert len(plugin.text.splitlines()) <= 15
