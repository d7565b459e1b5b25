"""The sections of luigi.cfg that dpp reads: named batches, options of plugins, and where a setting comes from."""

from __future__ import annotations

import configparser
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import luigi
from luigi.configuration import get_config
from luigi.freezing import recursively_unfreeze

from dpp import names
from dpp.errors import ConfigurationError
from dpp.tasks.loading import explain_parsing

BATCH_SECTION = "batch:"


def named_batch(name: str, params: Mapping[str, luigi.Parameter[Any]]) -> dict[str, Any]:
    """Return the settings of the section ``[batch:NAME]`` of luigi.cfg; its ``workers`` replaces Luigi's own setting.

    Raises:
        ConfigurationError: The section does not exist, or has an unknown setting.
    """
    config = get_config()
    section = _section(config, f"{BATCH_SECTION}{name}")
    if not section:
        others = batch_names()
        hint = names.suggestion(name, others) if others else "add it"
        raise ConfigurationError(f"luigi.cfg has no section [{BATCH_SECTION}{name}]; {hint}")
    if (workers := section.pop("workers", None)) is not None:
        config.set("core", "workers", str(workers))
    unknown = [
        f"unknown setting {setting!r}; {names.suggestion(setting, [*params, 'workers'])}" for setting in sorted(set(section) - set(params))
    ]
    if unknown:
        raise ConfigurationError("\n".join(f"[{BATCH_SECTION}{name}] of luigi.cfg: {problem}" for problem in unknown))
    return {setting: _parsed(params[setting], value) for setting, value in section.items()}


def batch_names() -> list[str]:
    """Return the names of the batches in luigi.cfg."""
    return [section.removeprefix(BATCH_SECTION) for section in _sections(get_config()) if section.startswith(BATCH_SECTION)]


def where_set(section: str, option: str) -> str:
    """Return the file and section that set an option; "" if no file does."""
    # As in Luigi: the file read last wins, and a name with dashes counts only if no file has it with underscores.
    files = list(_config_files())
    found = (path for name in (option, option.replace("_", "-")) for path, config in files if name in _names_in(config, section))
    return next((f"{path} [{section}]" for path in found), "")


def _names_in(config: Any, section: str) -> list[str]:
    try:
        return list(config[section])
    except KeyError:
        return []


def _config_files() -> Iterator[tuple[str, Any]]:
    """Yield each configuration file of Luigi with its own content, the file with the highest precedence first."""
    config = get_config()
    for path in reversed(config._config_paths):
        if Path(path).is_file():
            parser = type(config)()
            parser.read([path])
            yield os.path.abspath(path), parser


def configured_names() -> dict[str, list[str]]:
    """Return the names of the configured options by section."""
    config = get_config()
    return {section: list(_section(config, section)) for section in _sections(config)}


def _parsed(parameter: luigi.Parameter[Any], value: Any) -> Any:
    return parameter.parse(value) if isinstance(value, str) else value


def _sections(config: Any) -> list[str]:
    return list(config.sections()) if hasattr(config, "sections") else list(config.data)


def configured_options(plugins: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the options of these plugins in luigi.cfg, such as ``[line-count] skip_blank=true``."""
    config = get_config()
    found = {plugin: _section(config, plugin) for plugin in plugins}
    return {plugin: options for plugin, options in found.items() if options}


def _section(config: Any, name: str) -> dict[str, Any]:
    try:
        section = dict(config[name])
    except KeyError:
        return {}
    except configparser.Error as error:
        raise explain_parsing(error) from error
    defaults = config.defaults() if hasattr(config, "defaults") else {}
    return {option: _parse_value(value) for option, value in section.items() if option not in defaults}


def _parse_value(value: Any) -> Any:
    """Return a list or an object that is written as JSON; other text unchanged."""
    if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return recursively_unfreeze(value)
