"""``dpp completion``, in a real shell."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
ASK = """
source <(printf '%s' "$SCRIPT")
read -ra COMP_WORDS <<< "$LINE"
[[ $LINE == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
compopt() { echo "$@"; }
_dpp_completion dpp
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def completed(command):
    """Return the words that bash completes a line with; standard error must stay empty."""

    def ask(line, **environment):
        path = os.pathsep.join([str(BIN), os.environ["PATH"]])
        script = command("dpp", "completion", "bash").stdout
        done = command("bash", "-c", ASK, LINE=line, PATH=path, SCRIPT=script, **environment)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.split()

    return ask


@pytest.fixture
def two_batches(tmp_path):
    (tmp_path / "luigi.cfg").write_text("[batch:acme]\nfiles=in\n[batch:other]\nfiles=in\n")
    for workspace in ("dpp-workspace/batches/files-1", "w/batches/urls-2"):
        (tmp_path / workspace).mkdir(parents=True)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("dpp ru", ["run"]),
        ("dpp run --proc", ["--processor", "--processing-limit"]),
        ("dpp run --processor che", ["checksum"]),
        ("dpp run --batch ac", ["acme"]),
        ("dpp report ", ["files-1"]),
        ("dpp export --workspace w ", ["urls-2"]),
        ("dpp export --format p", ["parquet"]),
        ("dpp plugins chec", ["checksum"]),
        ("dpp run a", ["-o", "default"]),
        ("dpp run --workspace a", ["-o", "dirnames"]),
    ],
)
def test_bash_offers_what_fits(completed, two_batches, line, words):
    assert completed(line) == words


HEADER = "from dpp import BasePreProcessor, hookimpl\n"
STEPS = """
    class One(BasePreProcessor):
        name = "one"
        def pre_process(self, file):
            return file

    class Other(One):
        name = "other"

    @hookimpl
    def dpp_pre_processors():
        return [One, Other]
"""


def test_in_a_list_the_last_name_is_completed(completed, install):
    install("steps", STEPS)
    assert completed("dpp run --pre-processors one,o") == ["one,other"]


def test_retry_offers_the_classes_that_the_batch_failed_with(completed, command, site, manifest):
    manifest([{"url": f"{site.url}/missing"}, {"url": "file:///nowhere"}])
    assert command("dpp", "run", "x.json").returncode == 1
    assert completed("dpp retry --class http-404,") == ["http-404,not-found"]
    assert completed("dpp retry --stage ") == ["download"]
    assert completed("dpp retry nosuch --class ") == []


def test_what_is_broken_says_nothing_while_somebody_types(completed, install, tmp_path):
    install("broken", "raise ValueError")
    (tmp_path / "luigi.cfg").write_text("[RunBatch]\nattempts=x\nnonsense=1\n")
    assert completed("dpp run --processor che") == ["checksum"]
    assert completed("dpp report ") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_one_for_its_shell(command, shell):
    script = command("dpp", "completion", shell).stdout
    assert f"_DPP_COMPLETE={shell}_complete" in script
    if shutil.which(shell):
        assert command(shell, "-nc", script).returncode == 0
