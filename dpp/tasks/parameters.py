"""Luigi parameters generated from the settings, and errors on Luigi's command line."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import luigi
from luigi.freezing import recursively_freeze
from luigi.parameter import _no_value
from luigi.setup_logging import InterfaceLogging
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from dpp import names
from dpp.errors import INTERRUPTED, INTERRUPTED_TEXT, ConfigurationError, DppError
from dpp.logs import set_up_logging
from dpp.manifest.readers import describe_source
from dpp.redact import MASK, redact_url
from dpp.settings import CACHE_VARIABLE, WORKSPACE_VARIABLE, Settings, default_settings, workspace_variable
from dpp.workspace.machine import stop_for

log = logging.getLogger(__name__)

Task = TypeVar("Task", bound=luigi.Task)
REDACTED = "#redacted-"
SIGNIFICANT = frozenset({"workspace", "shard", "pre_processors", "processor", "post_processors", "options", "simulate_downloads"})


def running_from_command_line() -> bool:
    """Return whether Luigi's command line runs this process, rather than a program that calls ``luigi.build``."""
    return luigi.cmdline_parser.CmdlineParser.get_instance() is not None


def luigi_works() -> bool:
    """Return whether Luigi runs tasks in this process, rather than only showing them as ``luigi-deps-tree`` does."""
    # Luigi configures its logging only before it runs tasks.
    return bool(InterfaceLogging._configured)


@contextmanager
def exit_when_wrong() -> Iterator[None]:
    """On Luigi's command line, turn an error or an interrupt into one message and an exit code.

    A program that calls ``luigi.build`` gets the error from :meth:`dpp.RunBatch.open`.
    """
    # Luigi itself would print a traceback and continue without the task.
    try:
        yield
    except (DppError, OSError) as error:
        if not running_from_command_line():
            raise
        stop = error if isinstance(error, DppError) else stop_for(error)
        set_up_logging(default_settings())
        log.error("%s", stop)
        raise SystemExit(stop.exit_code) from error
    except KeyboardInterrupt as error:
        if not running_from_command_line():
            raise
        log.warning(INTERRUPTED_TEXT)
        raise SystemExit(INTERRUPTED) from error


class _Hidden:
    """The values of parameters whose text does not show them, by that text.

    Luigi hands a task that ``run()`` yields on as text: of this process or, with several workers, from the one that yields it.
    """

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def keep(self, text: str, value: Any) -> str:
        """Keep a value, and return the text that stands for it."""
        self._values[text] = value
        return text

    def find(self, text: str, pattern: str) -> Any:
        """Return the value that a text stands for; None if it is a value itself.

        Args:
            text: The text.
            pattern: A regular expression for all texts that stand for values.

        Raises:
            ConfigurationError: The value is known in another process only.
        """
        if text not in self._values and re.fullmatch(pattern, text):
            raise ConfigurationError(
                f"{text}: Luigi passes no secrets and lists on to other processes; name the task in requires() instead"
            )
        return self._values.get(text)


_hidden = _Hidden()


class UrlParameter(luigi.Parameter):
    """A URL, which appears without its secrets in task ids, logs and schedulers."""

    def parse(self, value: str) -> str:
        """Return the URL.

        Raises:
            ConfigurationError: The URL is one without its secrets, from a scheduler.
        """
        if REDACTED not in value:
            return value
        try:
            return str(_hidden.find(value, ".*"))
        except ConfigurationError as error:
            advice = "the scheduler does not store the secrets of a URL; use RunBatch with --chunk-size 32"
            raise ConfigurationError(f"{value}: {advice}") from error

    def serialize(self, value: str) -> str:
        """Return the URL with its secrets replaced by a digest."""
        # The digest keeps tasks apart whose URLs differ only in their secrets.
        shown = redact_url(value)
        return value if shown == value else _hidden.keep(f"{shown}{REDACTED}{names.digest(value, digits=8)}", value)


class TextParameter(luigi.Parameter):
    """Text; a program may also pass other values, such as a path or a number of bytes."""

    def normalize(self, value: Any) -> str:
        """Return the text."""
        return str(value)


class WorkspaceParameter(TextParameter):
    """The workspace: from the command line, ``DPP_WORKSPACE``, luigi.cfg, ``CACHE_DIR`` or the default, the first that is set."""

    def _get_value_from_config(self, section: str, name: str) -> Any:
        # Luigi calls this after it has looked at the command line, and before it takes the default.
        with exit_when_wrong():
            if chosen := workspace_variable(WORKSPACE_VARIABLE):
                return chosen
            configured = super()._get_value_from_config(section, name)
            return configured if configured != _no_value else workspace_variable(CACHE_VARIABLE) or _no_value


class NumberParameter(luigi.Parameter[Any]):
    """A number.

    Args:
        kind: ``int`` or ``float``.
    """

    def __init__(self, kind: type[int | float], **common: Any) -> None:
        super().__init__(**common)
        self._kind = kind

    def parse(self, value: str) -> int | float:
        """Return the number.

        Raises:
            ConfigurationError: The text is not a number.
        """
        with exit_when_wrong():
            try:
                return self._kind(value)
            except ValueError as error:
                raise ConfigurationError(f"{self._attribute_name}: expected a number, got {value!r}") from error


class FilesParameter(luigi.Parameter):
    """A manifest: a path, a source, or a Python list of dicts."""

    def normalize(self, value: Any) -> Any:
        """Return the manifest in a hashable form."""
        return value if isinstance(value, str) else str(value) if isinstance(value, Path) else recursively_freeze(value)

    def parse(self, value: str) -> Any:
        """Return the manifest: text as it is, unless it stands for a list or a URL with secrets.

        Raises:
            ConfigurationError: The list or the URL is known in another process only.
        """
        found = _hidden.find(value, rf"list of \d+ files? [0-9a-f]{{8}}|\w+://.*{re.escape(MASK)}.*")
        return value if found is None else found

    def serialize(self, value: Any) -> str:
        """Return the path, or a description of the list."""
        # The entries of a list can contain secrets.
        if isinstance(value, str):
            shown = redact_url(value) if "://" in value else value
            return value if shown == value else _hidden.keep(f"{shown}{REDACTED}{names.digest(value, digits=8)}", value)
        return _hidden.keep(f"{describe_source(value)} {names.digest(repr(value), digits=8)}", value)


class NamesParameter(luigi.Parameter[Any]):
    """A list of names, written with commas."""

    def parse(self, value: str) -> tuple[str, ...]:
        """Return the names."""
        return tuple(name.strip() for name in value.split(",") if name.strip())

    def normalize(self, value: Any) -> tuple[str, ...]:
        """Return the names as a tuple."""
        return self.parse(value) if isinstance(value, str) else tuple(value)

    def serialize(self, value: Sequence[str]) -> str:
        """Return the names, separated by commas."""
        return ",".join(value)


class OptionsParameter(luigi.DictParameter):
    """Options of plugins, as JSON."""

    def parse(self, value: str) -> Any:
        """Return the options.

        Raises:
            ConfigurationError: The text is not a JSON object of objects.
        """
        with exit_when_wrong():
            return _object_of(value, _parse_options)

    def serialize(self, value: Mapping[str, Any]) -> str:
        """Return a digest of the options."""
        # Task ids and schedulers show this text, and options can contain secrets.
        return _hidden.keep(names.digest(repr(value), digits=8), value) if value else ""


class HeadersParameter(OptionsParameter):
    """Headers of requests, as JSON."""

    def parse(self, value: str) -> Any:
        """Return the headers.

        Raises:
            ConfigurationError: The text is not a JSON object.
        """
        with exit_when_wrong():
            return _object_of(value, lambda text: _parse_object("headers", text, '{"X-Key": "..."}'))


class FieldsParameter(luigi.DictParameter):
    """Fields of a file, as JSON."""

    def parse(self, value: str) -> Any:
        """Return the fields.

        Raises:
            ConfigurationError: The text is not a JSON object.
        """
        with exit_when_wrong():
            return recursively_freeze(_parse_object("fields", value, '{"size": 7}'))


def _object_of(text: str, parse: Callable[[str], dict[str, Any]]) -> Any:
    """Return an object that a text stands for, or else is in JSON; no text is an empty object."""
    found = _hidden.find(text, "[0-9a-f]{8}")
    return recursively_freeze((parse(text) if text else {}) if found is None else found)


def _parse_options(text: str) -> dict[str, dict[str, Any]]:
    example = '{"line-count": {"skip_blank": true}}'
    options = _parse_object("options", text, example, "an object of objects")
    if not all(isinstance(option, dict) for option in options.values()):
        raise ConfigurationError(f"options: expected an object of objects, such as {example}")
    return options


def _parse_object(name: str, text: str, example: str, what: str = "an object") -> dict[str, Any]:
    """Return the JSON object in the text of a parameter.

    Args:
        name: Name of the parameter, for messages.
        text: The text.
        example: A valid text.
        what: What is expected.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{name}: expected JSON such as {example}: {error}") from error
    if not isinstance(value, dict):
        raise ConfigurationError(f"{name}: expected {what}, such as {example}")
    return value


_OWN_KINDS: dict[str, type[luigi.Parameter[Any]]] = {
    "workspace": WorkspaceParameter,
    "options": OptionsParameter,
    "headers": HeadersParameter,
}


def _parameter(name: str, field: FieldInfo) -> luigi.Parameter[Any]:
    """Return the Luigi parameter for a setting."""
    default = field.get_default(call_default_factory=True)
    common: dict[str, Any] = {"description": field.description, "significant": name in SIGNIFICANT}
    if name in _OWN_KINDS:
        return _OWN_KINDS[name](default=str(default) if isinstance(default, Path) else default, **common)
    if isinstance(default, bool):
        return luigi.BoolParameter(default=default, **common)
    if isinstance(default, tuple):
        return NamesParameter(default=default, **common)
    if isinstance(default, (int, float)) and not spelled(field):
        return NumberParameter(type(default), default=default, **common)
    return TextParameter(default=str(default), **common)


def spelled(field: FieldInfo) -> bool:
    """Return whether a setting has a notation of its own, such as 20M, which the settings parse."""
    return any(isinstance(rule, BeforeValidator) for rule in field.metadata)


def with_settings(names_: Sequence[str]) -> Callable[[type[Task]], type[Task]]:
    """Return a decorator that adds Luigi parameters for these settings to a task class."""

    def decorate(cls: type[Task]) -> type[Task]:
        for name in names_:
            parameter = _parameter(name, Settings.model_fields[name])
            setattr(cls, name, parameter)
            parameter.__set_name__(cls, name)
        return cls

    return decorate
