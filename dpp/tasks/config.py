"""Every setting of a batch with its value and its origin, and the problems of the configuration."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luigi.configuration import get_config
from luigi.freezing import recursively_unfreeze
from luigi.interface import core
from luigi.parameter import UnconsumedParameterWarning
from pydantic_core import to_jsonable_python

from dpp.errors import InputError
from dpp.plugins.describe import options_of
from dpp.plugins.registry import registry
from dpp.redact import MASK, redact_value
from dpp.settings import CACHE_VARIABLE, WORKSPACE_VARIABLE, Settings, workspace_variable
from dpp.tasks.batch import RunBatch
from dpp.tasks.luigi_defaults import LOCAL_DEFAULTS, SOFT_DEFAULTS
from dpp.tasks.luigi_settings import wrong_luigi_settings
from dpp.tasks.sections import BATCH_SECTION, where_set
from dpp.tasks.unknown import unknown_settings

DEFAULT = "default"
MAIN = "RunBatch"
ENVIRONMENT = (
    "DPP_DISABLE_PLUGINS",
    WORKSPACE_VARIABLE,
    "PIPELINE_NO_SLEEP",
    CACHE_VARIABLE,
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NETRC",
    "LUIGI_CONFIG_PATH",
    "LUIGI_CONFIG_PARSER",
    "NO_COLOR",
    "CI",
    "TERM",
    "GNUPGHOME",
)
PREFIXES = ("AWS_",)


@dataclass(frozen=True)
class Value:
    """The value of a setting, with secrets masked.

    Attributes:
        section: Its section of luigi.cfg, or ``environment``.
        name: Its name.
        value: The effective value; None for a variable that is not set.
        origin: ``default``, the file and section or the variable that set it, ``environment`` or ``not set``.
    """

    section: str
    name: str
    value: Any
    origin: str


@dataclass
class Configuration:
    """The configuration of a run.

    Attributes:
        values: Every setting.
        problems: A message for each unknown name in luigi.cfg, and for each step whose options are invalid.
    """

    values: list[Value]
    problems: list[str]


def read_configuration(batch: str = "") -> Configuration:
    """Return the configuration of a run without options on the command line.

    Args:
        batch: Name of a section ``[batch:NAME]``.

    Raises:
        InputError: A setting is invalid.
    """
    chosen: dict[str, Any] = {"batch_name": batch} if batch else {}
    task = RunBatch(**chosen)
    settings, options = task.settings(), recursively_unfreeze(task.param_kwargs["options"])
    files = dict(RunBatch.get_params())["files"].serialize(task.files)
    with warnings.catch_warnings():
        # Luigi's own sections may have names that other programs read.
        warnings.simplefilter("ignore", UnconsumedParameterWarning)
        problems, of_plugins = [*unknown_settings(), *wrong_luigi_settings()], []
    try:
        of_plugins = list(_all_options(settings, options, batch))
    except InputError as error:
        problems.append(str(error))
        # The steps, which declare the options that are secret, could not be read: mask all.
        options = dict.fromkeys(options, MASK)
    own = {"files": files, **dict(settings), "options": options}
    origins = {name: _find_origin(MAIN, name, batch) for name in own} | _workspace_origin(batch)
    values = [_redacted_value(MAIN, name, value, origins[name]) for name, value in own.items()]
    values.append(_redacted_value("core", "workers", int(core().workers), _find_origin("core", "workers", batch)))
    return Configuration([*values, *of_plugins, *_luigi_values(), *_variables()], problems)


def _redacted_value(section: str, name: str, value: Any, origin: str) -> Value:
    return Value(section, name, redact_value(name, to_jsonable_python(value, fallback=str)), origin)


def _find_origin(section: str, name: str, batch: str = "") -> str:
    return (batch and where_set(f"{BATCH_SECTION}{batch}", name)) or where_set(section, name) or DEFAULT


def _workspace_origin(batch: str) -> dict[str, str]:
    """Return the origin of the workspace if it is an environment variable."""
    if workspace_variable(WORKSPACE_VARIABLE):
        return {"workspace": f"environment {WORKSPACE_VARIABLE}"}
    is_default = _find_origin(MAIN, "workspace", batch) == DEFAULT
    return {"workspace": f"environment {CACHE_VARIABLE}"} if is_default and workspace_variable(CACHE_VARIABLE) else {}


def _all_options(settings: Settings, given: Mapping[str, Any], batch: str) -> Iterator[Value]:
    """Yield the options of the batch's steps, and those of fetchers and sources that are configured."""
    seen: set[str] = set()
    for step in registry().steps(settings):
        own = (step.name, f"{step.cls.__module__}:{step.cls.__qualname__}")
        seen.update(own)
        for option in options_of(step.cls):
            yield _step_option(
                (*own, *getattr(step.cls, "shared_options", ())), option.name, step.options.get(option.name, option.default), given, batch
            )
    registry().check_fetchers(settings)
    for scheme in sorted(settings.options.keys() - seen):
        for name, value in settings.options[scheme].items():
            yield _step_option((scheme,), name, value, given, batch)


def _step_option(steps: Sequence[str], name: str, value: Any, given: Mapping[str, Any], batch: str) -> Value:
    """Return an option of a step, which can be set under each of its names or under a URL scheme whose options it shares."""
    is_set = any(name in given.get(step, {}) for step in steps)
    section = next((where for step in steps if (where := where_set(step, name))), DEFAULT)
    return _redacted_value(steps[0], name, value, _find_origin(MAIN, "options", batch) if is_set else section)


def _luigi_values() -> Iterator[Value]:
    """Yield the settings of Luigi for which dpp has other defaults."""
    for section, name in (*SOFT_DEFAULTS, *LOCAL_DEFAULTS):
        value = get_config().get(section, name, None)
        yield _redacted_value(
            section, name, value, where_set(section, name) or ("dpp's default" if value is not None else "Luigi's default")
        )


def _variables() -> Iterator[Value]:
    """Yield the environment variables that a run reads, set or not."""
    found = [name for name in sorted(os.environ) if name.startswith(PREFIXES)]
    lower = [name.lower() for name in ENVIRONMENT if name.endswith("_PROXY") and name.lower() in os.environ]
    for name in (*ENVIRONMENT, *lower, *found):
        yield _redacted_value("environment", name, os.environ.get(name), "environment" if name in os.environ else "not set")
