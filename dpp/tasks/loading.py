"""Import Luigi, which reads its configuration files, and report files that it cannot read or would ignore."""

from __future__ import annotations

import configparser
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dpp.errors import ConfigurationError, DppError
from dpp.redact import printable, redact_text
from dpp.workspace.machine import stop_for

COMMANDS = frozenset({"dpp", "download-pipeline-processor", "luigi", "luigi-deps", "luigi-deps-tree", "luigi-grep"})
_PATH, _PARSER = "LUIGI_CONFIG_PATH", "LUIGI_CONFIG_PARSER"
_LOCAL = ("client.cfg", "luigi.cfg", "luigi.toml")
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_BOM = b"\xef\xbb\xbf"


@contextmanager
def configuration_read() -> Iterator[None]:
    """Turn an error of Luigi's configuration files into ConfigurationError; on a command line, into one message and exit code 2.

    Raises:
        ConfigurationError: A file is damaged.
        EnvironmentStop: Luigi finds no folder for temporary files.
    """
    try:
        yield
    except (configparser.Error, ValueError, OSError, ImportError, DppError) as error:
        wrong = _explained(error)
        if wrong is None:
            raise
        if Path(sys.argv[0]).name not in COMMANDS:
            raise wrong from error
        # The entry point of the command line has not been reached, so nothing else reports the error.
        sys.stderr.write(f"Error: {wrong}\n")
        raise SystemExit(wrong.exit_code) from error


def import_luigi() -> None:
    """Import Luigi.

    Raises:
        ConfigurationError: A configuration file cannot be read, or a variable that chooses it is wrong.
        EnvironmentStop: Luigi finds no folder for temporary files.
    """
    # Luigi warns of its own defaults; where warnings are errors, as in many test suites, dpp could not be imported.
    with configuration_read(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        check_configuration_files()
        import luigi  # noqa: F401, PLC0415 - must happen in this block


def check_configuration_files() -> None:
    """Check the files that Luigi reads in the current folder and from LUIGI_CONFIG_PATH.

    Raises:
        ConfigurationError: Luigi would ignore a file without a message, or could not decode it.
    """
    if (parser := os.environ.get(_PARSER, "cfg")) not in ("cfg", "conf", "ini", "toml"):
        raise ConfigurationError(f"{_PARSER}={parser}: expected cfg or toml")
    if (named := os.environ.get(_PATH)) is not None and not os.path.exists(named):
        raise ConfigurationError(f"{_PATH} names {named}, which does not exist")
    for path in filter(os.path.lexists, (*_LOCAL, *([named] if named else []))):
        _check_file(path)


def _check_file(path: str) -> None:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    if data.startswith((_BOM, *_UTF_16)):
        kind = "UTF-16" if data.startswith(_UTF_16) else "UTF-8 with a byte order mark"
        raise ConfigurationError(f"{path}: is {kind}; save it as UTF-8 without a byte order mark")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{path}: line {line} is not UTF-8; save it as UTF-8") from error


def _explained(error: Exception) -> DppError | None:
    """Return an error of the configuration with a clear message; None if the error has another cause."""
    if isinstance(error, DppError):
        return error
    if isinstance(error, configparser.Error):
        return explain_parsing(error)
    if isinstance(error, ImportError):
        if "luigi[" not in str(error):
            return None
        return ConfigurationError(f"{_PARSER}={os.environ.get(_PARSER)} needs another package: pip install 'luigi[toml]'")
    if isinstance(error, OSError):
        return stop_for(error)
    return ConfigurationError(f"configuration of Luigi: {printable(redact_text(str(error.__cause__ or error)))}")


def explain_parsing(error: configparser.Error) -> ConfigurationError:
    """Return an error of a configuration file with its place, but without its lines, which may contain secrets."""
    source, line = getattr(error, "source", None) or "luigi.cfg", getattr(error, "lineno", None)
    if isinstance(error, configparser.InterpolationError):
        hint = " (write % as %%)" if isinstance(error, configparser.InterpolationSyntaxError) else ""
        return ConfigurationError(f"luigi.cfg: [{error.section}] {error.option}: {_first_line(error)}{hint}")
    if isinstance(error, configparser.MissingSectionHeaderError):
        return ConfigurationError(f"{source}: line {line} is in no section; begin with a section such as [RunBatch]")
    if isinstance(error, configparser.ParsingError):
        numbers = ", ".join(str(number) for number, _ in error.errors)
        return ConfigurationError(f"{source}: not understood: line {numbers}; expected NAME=VALUE")
    return ConfigurationError(f"luigi.cfg: {_first_line(error)}")


def _first_line(error: configparser.Error) -> str:
    if isinstance(error, configparser.InterpolationSyntaxError):
        return "the value contains a % that is not followed by % or ("
    # The sentence after the first one may show the value, which can be secret.
    return printable(redact_text(error.message.splitlines()[0].partition(". ")[0]))
