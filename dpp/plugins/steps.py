"""The steps of a run: classes and their options; the objects are created when they are needed."""

from __future__ import annotations

import importlib
import inspect
import logging
import sys
import threading
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python

from dpp import names
from dpp.errors import PluginError, StageError
from dpp.redact import declared_secrets, is_secret_name, keep_secret, redact_text, redact_value
from dpp.settings import wrong_options
from dpp.workspace.machine import current_folder, ends_copies

log = logging.getLogger(__name__)

STEP_METHODS = {"pre-processor": "pre_process", "processor": "process", "post-processor": "post_process"}


class ConfiguredStep:
    """A step of a run: a class and its options; each thread gets its own object.

    Args:
        kind: ``pre-processor``, ``processor`` or ``post-processor``.
        cls: The class, usually derived from one of dpp's base classes.
        options: Its options.

    Raises:
        ConfigurationError: An option is unknown or invalid.
    """

    def __init__(self, kind: str, cls: type[Any], options: Mapping[str, Any]) -> None:
        self.kind = kind
        self.cls = cls
        self.name = step_name(cls)
        self.version = str(getattr(cls, "version", "0"))
        self.options = dict(options)
        made = _try_make(self.name, cls, options)
        keep_secret(declared_secrets(made))
        self._public_options = _public_options(made, options)
        self._secret_options = _secret_options(made, options)
        self._local = threading.local()

    def __call__(self, *args: Any) -> Any:
        """Call the step's method on this thread's object, which the first call creates."""
        with ends_copies():
            return self._call(*args)

    def _call(self, *args: Any) -> Any:
        if not hasattr(self._local, "object"):
            self._local.object = self.cls(**self.options)
        log.debug("%s: %s %s", args[-1].id, self.kind, self.name)
        returned = getattr(self._local.object, STEP_METHODS[self.kind])(*args)
        if inspect.isgenerator(returned) or inspect.isasyncgen(returned):
            # None of its code has run, which nobody would notice in a post-processor.
            method = f"{STEP_METHODS[self.kind]}() of {self.name}"
            raise StageError(f"{method} returned a generator, which has not run; use return instead of yield, and a list", "result")
        return self._awaited(returned) if inspect.iscoroutine(returned) else returned

    def _awaited(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in this thread's event loop, which stays the same, so that the object can keep connections in it."""
        import asyncio  # noqa: PLC0415 - the import takes 30 ms, and most steps do not need it

        if not hasattr(self._local, "runner"):
            self._local.runner = asyncio.Runner()
        return self._local.runner.run(coroutine)

    def identity(self) -> dict[str, Any]:
        """Return what determines the step's output: name, version and options, without secrets."""
        return {"kind": self.kind, "name": self.name, "version": self.version, "options": self._public_options}

    def options_digest(self) -> str:
        """Return a digest of the options without secrets; "" if all are defaults."""
        return names.digest(repr(_stable(self._public_options)), digits=8) if self._public_options else ""

    def secret_options(self) -> set[str]:
        """Return the names of the options that hold a secret (see :func:`_secret_options`)."""
        return self._secret_options

    def label(self) -> dict[str, str]:
        """Return the step's kind, name and version, for reports."""
        return {"kind": self.kind, "name": self.name, "version": self.version}


@dataclass
class Steps:
    """The steps of a run, in order."""

    pre_processors: list[ConfiguredStep]
    processor: ConfiguredStep
    post_processors: list[ConfiguredStep] = field(default_factory=list)

    def __iter__(self) -> Iterator[ConfiguredStep]:
        return iter([*self.pre_processors, self.processor, *self.post_processors])

    def described(self) -> list[dict[str, str]]:
        """Return each step's kind, name, version and digest of the options, for ``run.json``."""
        return [step.label() | {"options": step.options_digest()} for step in self]

    def fingerprints(self) -> tuple[str, str, str]:
        """Return the digests in the paths of the targets: of the pre-processors, of these and the processor, and of all steps."""
        chain, processed, whole = (
            names.digest(repr([_stable(step.identity()) for step in steps]), digits=12)
            for steps in (self.pre_processors, [*self.pre_processors, self.processor], list(self))
        )
        return chain, processed, whole


def _stable(value: Any) -> Any:
    """Return a value whose ``repr`` does not depend on the order of keys."""
    if isinstance(value, Mapping):
        return sorted((str(name), _stable(item)) for name, item in value.items())
    return [_stable(item) for item in value] if isinstance(value, (list, tuple)) else value


def step_name(cls: type[Any]) -> str:
    """Return the ``name`` of a class, or ``module:ClassName`` if it has none."""
    return str(getattr(cls, "name", "") or f"{cls.__module__}:{cls.__qualname__}")


def with_debug(cls: type[Any], options: Mapping[str, Any], debug: bool) -> dict[str, Any]:
    """Return the options, with ``debug`` added if the class has such an option or argument."""
    if issubclass(cls, BaseModel):
        return {**options, "debug": True} if debug and "debug" in cls.model_fields else dict(options)
    takes = "debug" in inspect.signature(cls).parameters
    return {**options, "debug": debug} if takes else dict(options)


def import_class(kind: str, reference: str) -> type[Any]:
    """Import the class ``package.module:ClassName``; modules in the current folder are found as well.

    Args:
        kind: ``pre-processor``, ``processor`` or ``post-processor``.
        reference: The class, as ``package.module:ClassName``.

    Raises:
        PluginError: The class cannot be imported, or is of another kind.
    """
    module_name, _, class_name = reference.partition(":")
    if (folder := current_folder()) and folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except (Exception, SystemExit) as error:
        raise PluginError(f"cannot import {kind} {reference!r}: {type(error).__name__}: {error}") from error
    if not has_method(cls, STEP_METHODS[kind]):
        raise PluginError(f"{reference!r} is not a {kind}: expected a class with a method {STEP_METHODS[kind]}()")
    return cls  # type: ignore[no-any-return]


def has_method(cls: Any, method: str) -> bool:
    """Whether something is a class that is not abstract and has this method."""
    return isinstance(cls, type) and callable(getattr(cls, method, None)) and not inspect.isabstract(cls)


def _try_make(name: str, cls: type[Any], options: Mapping[str, Any]) -> Any:
    """Create an object to check the options; return None if the constructor fails in another way."""
    try:
        return cls(**options)
    except ValidationError as error:
        raise wrong_options(name, error, cls) from error
    # The plugin's constructor fails again for each file, which then fails alone.
    except (Exception, SystemExit) as error:  # noqa: BLE001
        secrets = {str(value) for option, value in options.items() if is_secret_name(option)}
        log.warning("cannot create %s: %s: %s", name, type(error).__name__, redact_text(str(error), secrets))
        return None


def _public_options(made: Any, options: Mapping[str, Any]) -> Any:
    """Return the options that differ from their defaults, without secrets."""
    if made is None:
        return names.digest(repr(_stable(redact_value("", options))))
    if isinstance(made, BaseModel):
        return to_jsonable_python(_ordered(made.model_dump(exclude_defaults=True)), fallback=str)
    return _stable({option: str(value) for option, value in options.items() if option != "debug"})


def _secret_options(made: Any, options: Mapping[str, Any]) -> set[str]:
    """Return the names of the options that hold a secret."""
    # A secret given under an alias cannot be matched with its option, so then all options count as secret.
    fields = made.model_fields_set if isinstance(made, BaseModel) else set()
    found = {name for name in fields if declared_secrets(getattr(made, name))}
    return set(options) if found - set(options) else found


def _ordered(value: Any) -> Any:
    """Return a value with its sets replaced by sorted lists."""
    # The order of a set of strings differs from process to process.
    if isinstance(value, Mapping):
        return {name: _ordered(item) for name, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted((_ordered(item) for item in value), key=repr)
    return [_ordered(item) for item in value] if isinstance(value, (list, tuple)) else value
