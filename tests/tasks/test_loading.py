"""Tests of configuration files of Luigi that are damaged, or that Luigi would ignore."""

from __future__ import annotations

import os

import pytest
from dpp import ConfigurationError
from dpp.tasks.loading import check_configuration_files

DAMAGED = {
    "no section": ("attempts=1\n", "luigi.cfg: line 1 is in no section; begin with a section such as [RunBatch]"),
    "no value": ("[RunBatch]\nattempts\n", "luigi.cfg: not understood: line 2; expected NAME=VALUE"),
    "twice": ("[RunBatch]\nattempts=1\nattempts=2\n", "option 'attempts' in section 'RunBatch' already exists"),
    "percent": ("[RunBatch]\nlog_file=50%\n", "[RunBatch] log_file: the value contains a % that is not followed by % or ( (write % as %%)"),
    "plugin": ("[checksum]\nalgorithm=50%\n", "[checksum] algorithm: the value contains a %"),
    "variable": ("[RunBatch]\nlog_file=${NOWHERE}\n", "Config refers to a nonexisting environment variable NOWHERE"),
    "scheduler": ("[core]\nlocal_scheduler=maybe\n", "configuration of Luigi: Not a boolean: maybe"),
}
FILES = {
    "bom": (b"\xef\xbb\xbf[RunBatch]\n", "luigi.cfg: is UTF-8 with a byte order mark; save it as UTF-8"),
    "utf-16": ("[RunBatch]\n".encode("utf-16"), "luigi.cfg: is UTF-16; save it as UTF-8"),
    "latin-1": (b"[RunBatch]\n# caf\xe9\n", "luigi.cfg: line 2 is not UTF-8"),
}


@pytest.mark.cold
@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_refused_with_its_place(command, tmp_path, damage):
    text, said = DAMAGED[damage]
    (tmp_path / "luigi.cfg").write_text(text)
    done = command("dpp", "run", "list.txt")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert said in done.stderr


@pytest.mark.cold
def test_dpp_can_be_imported_where_warnings_are_errors(command):
    assert command("python", "-W", "error", "-c", "import dpp").stderr == ""


@pytest.mark.cold
def test_a_missing_package_is_named(command):
    done = command("dpp", "run", "list.txt", LUIGI_CONFIG_PARSER="toml")
    assert (done.returncode, done.stderr) == (2, "Error: LUIGI_CONFIG_PARSER=toml needs another package: pip install 'luigi[toml]'\n")


@pytest.mark.cold
def test_luigi_refuses_a_variable_that_names_no_file(command):
    done = command("luigi", "--module", "dpp", "RunBatch", "--files", "list.txt", LUIGI_CONFIG_PATH="nowhere.cfg")
    assert (done.returncode, "Error: LUIGI_CONFIG_PATH names nowhere.cfg, which does not exist\n" in done.stderr) == (2, True)


@pytest.mark.parametrize("file", FILES)
def test_a_file_in_another_encoding_is_refused(tmp_path, file):
    data, said = FILES[file]
    (tmp_path / "luigi.cfg").write_bytes(data)
    with pytest.raises(ConfigurationError, match=said):
        check_configuration_files()


def test_a_folder_or_a_broken_link_is_not_ignored(tmp_path):
    (tmp_path / "luigi.cfg").symlink_to("nowhere")
    with pytest.raises(ConfigurationError, match=r"luigi\.cfg: cannot be read: No such file or directory"):
        check_configuration_files()
    (tmp_path / "nowhere").mkdir()
    with pytest.raises(ConfigurationError, match=r"luigi\.cfg: cannot be read: Is a directory"):
        check_configuration_files()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_not_ignored(tmp_path):
    (tmp_path / "luigi.cfg").touch(0)
    with pytest.raises(ConfigurationError, match="permission"):
        check_configuration_files()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[RunBatc]\nattempts=1", "WARNING: luigi.cfg: unknown section [RunBatc]; did you mean [RunBatch]?"),
        ("[RunBatch]\natempts=canary", "WARNING: [RunBatch] of luigi.cfg: unknown setting 'atempts'; did you mean 'attempts'?"),
    ],
)
@pytest.mark.parametrize("program", ["dpp run", "luigi --module dpp RunBatch --files"])
def test_a_run_warns_once_of_a_name_that_nothing_reads(command, manifest, tmp_path, text, said, program):
    (tmp_path / "a").write_text("a")
    (tmp_path / "luigi.cfg").write_text(text)
    done = command(*program.split(), manifest([{"url": (tmp_path / "a").as_uri()}]))
    assert done.returncode == 0
    assert done.stderr.count(said) == 1
    assert "Unconsumed" not in done.stderr
    assert "canary" not in done.stderr
