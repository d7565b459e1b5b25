"""Unknown names in luigi.cfg, which Luigi would ignore."""

from __future__ import annotations

from luigi.task_register import Register

from dpp.names import close_match, suggestion
from dpp.plugins.describe import options_of
from dpp.plugins.registry import registry
from dpp.tasks.sections import BATCH_SECTION, configured_names

PROGRAM = "dpp"  # a section that programs usually have
TASKS = ("RunBatch", "DownloadTarget", "PreProcessed", "Processed", "Report", "FileChunk", "ExecutedChunks")


def unknown_settings() -> list[str]:
    """Return a message for each unknown name in the sections of luigi.cfg that dpp reads, and for each mistyped section."""
    problems = []
    for section, names in configured_names().items():
        known = _known_names(section)
        problems += [
            f"[{section}] of luigi.cfg: unknown setting {name!r}; {suggestion(name, known)}"
            for name in names
            if known and not known & {name, _underscored(section, name)}
        ]
        # Other sections belong to Luigi or to tasks of other packages.
        near = "" if section in Register.task_names() else TASKS[0] if section.lower() == PROGRAM else close_match(section, TASKS)
        problems += [f"luigi.cfg: unknown section [{section}]; did you mean [{near}]?"] if near and not known else []
    return problems


def _underscored(section: str, name: str) -> str:
    """Return the name of a setting with underscores, if the section is that of a task."""
    # Luigi accepts dashes in the sections of tasks only.
    return name.replace("-", "_") if section in Register.task_names() else name


def _known_names(section: str) -> set[str]:
    """Return the names that a section can contain; an empty set if dpp does not read the section."""
    if section.startswith(BATCH_SECTION):
        return {*_parameter_names(TASKS[0]), "workers"}
    if section in TASKS:
        return _parameter_names(section)
    offered = [options_of(offer.cls) for offer in registry().offers if offer.name == section]
    return {option.name for options in offered for option in options} | ({"debug"} if any(offered) else set())


def _parameter_names(task: str) -> set[str]:
    return set(dict(Register.get_task_cls(task).get_params()))
