"""Plugins: loading them one by one, knowing who offers what, and setting aside what is broken."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy
from pydantic import BaseModel, ValidationError

from dpp import hookspecs, names
from dpp.errors import ConfigurationError, PluginError
from dpp.settings import Settings, describe
from dpp.stages import builtin
from dpp.steps import BaseFetcher

log = logging.getLogger(__name__)

DISABLE_VARIABLE = "DPP_DISABLE_PLUGINS"
KINDS = {"pre-processor": "pre_process", "processor": "process", "post-processor": "post_process"}
BUILT_IN = "dpp"


@dataclass(frozen=True)
class Origin:
    """Where a plugin comes from.

    Attributes:
        plugin: Name of its entry point, or ``dpp`` for what is built in.
        distribution: The package that was installed, with its version.
        state: ``enabled``, ``disabled`` or ``broken``.
        reason: Why it is not enabled.
    """

    plugin: str
    distribution: str
    state: str = "enabled"
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.plugin} ({self.distribution})"


@dataclass(frozen=True)
class Offer:
    """A class that a plugin offers under a name.

    Attributes:
        kind: ``pre-processor``, ``processor``, ``post-processor`` or ``fetcher``.
        name: How it is asked for; a fetcher's URL scheme.
        cls: The class.
        origin: Who offers it.
    """

    kind: str
    name: str
    cls: type[Any]
    origin: Origin


class Step:
    """A step of a run: a class with its options, made into an object once a thread.

    Args:
        kind: ``pre-processor``, ``processor`` or ``post-processor``.
        cls: The class, usually one of dpp's base classes' children.
        options: Its options.

    Raises:
        ConfigurationError: It takes no such options.
    """

    def __init__(self, kind: str, cls: type[Any], options: Mapping[str, Any]) -> None:
        self.kind = kind
        self.cls = cls
        self.name = step_name(cls)
        self.version = str(getattr(cls, "version", "0"))
        self.options = dict(options)
        self._public_options = _checked_options(self.name, cls, options)
        self._local = threading.local()

    def __call__(self, *args: Any) -> Any:
        """Call the step's method on this thread's object, which is made when first needed."""
        if not hasattr(self._local, "object"):
            self._local.object = self.cls(**self.options)
        return getattr(self._local.object, KINDS[self.kind])(*args)

    def identity(self) -> dict[str, Any]:
        """Return what makes this step's output what it is: name, version and options, without secrets."""
        return {"kind": self.kind, "name": self.name, "version": self.version, "options": self._public_options}

    def label(self) -> dict[str, str]:
        """Return what a report says of this step."""
        return {"kind": self.kind, "name": self.name, "version": self.version}


@dataclass
class Steps:
    """The steps of a run, in order."""

    pre_processors: list[Step]
    processor: Step
    post_processors: list[Step] = field(default_factory=list)

    def __iter__(self) -> Iterator[Step]:
        return iter([*self.pre_processors, self.processor, *self.post_processors])

    def fingerprints(self) -> tuple[str, str, str]:
        """Return the digests that name the targets of the chain, of the processor and of the whole."""
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
    """Return the name that a class gives itself, or ``module:ClassName``."""
    return str(getattr(cls, "name", "") or f"{cls.__module__}:{cls.__qualname__}")


class Registry:
    """Who offers what. Made by :func:`load_plugins`; built when needed, never at import."""

    def __init__(self, manager: pluggy.PluginManager, origins: list[Origin], offers: list[Offer]) -> None:
        self.hook = manager.hook
        self.origins = origins
        self.offers = offers

    def notify(self, hook: str, **facts: Any) -> None:
        """Call a hook that only takes note; a plugin that fails in it is logged and stops nothing."""
        try:
            getattr(self.hook, hook)(**facts)
        except Exception:  # a plugin's code
            log.exception("a plugin failed in %s", hook)

    def rows(self, files: str) -> Iterable[Mapping[str, Any]] | None:
        """Return the files that a plugin finds behind a source such as a URL, or None where none does."""
        found: Iterable[Mapping[str, Any]] | None = self.hook.dpp_sources(files=files)
        return found

    def steps(self, settings: Settings) -> Steps:
        """Return the steps that a batch names, with their options.

        Raises:
            ConfigurationError: A name is unknown, or an option is wrong.
            PluginError: Two plugins offer a name, or a class can't be imported.
        """
        chosen = Steps(
            [self._step("pre-processor", name, settings) for name in settings.pre_processors],
            self._step("processor", settings.processor, settings),
            [self._step("post-processor", name, settings) for name in settings.post_processors],
        )
        _refuse_unused(settings.options, {step.name for step in chosen} | {*_asked(settings)})
        return chosen

    def _step(self, kind: str, name: str, settings: Settings) -> Step:
        cls = import_class(kind, name) if ":" in name else self._offered(kind, name)
        options = settings.options.get(name, settings.options.get(step_name(cls), {}))
        return Step(kind, cls, with_debug(cls, options, settings.debug))

    def _offered(self, kind: str, name: str) -> type[Any]:
        found = [offer for offer in self.offers if offer.kind == kind and offer.name == name]
        if len(found) > 1:
            both = " and ".join(str(offer.origin) for offer in found)
            raise PluginError(f"{kind} {name!r} is offered by {both}; uninstall one, or set {DISABLE_VARIABLE} to its name")
        if not found:
            raise ConfigurationError(self._unknown(kind, name))
        return found[0].cls

    def _unknown(self, kind: str, name: str) -> str:
        known = sorted({offer.name for offer in self.offers if offer.kind == kind})
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there is {', '.join(known) or 'none'}, or MODULE:CLASS."
        broken = [f"\n  plugin {origin} is {origin.state}: {origin.reason}" for origin in self.origins if origin.state != "enabled"]
        return f"no {kind} {name!r}: {hint}{''.join(broken)}"

    def fetchers(self) -> dict[str, type[BaseFetcher]]:
        """Return the fetcher of each URL scheme; a plugin's one comes before a built-in one.

        Raises:
            PluginError: Two plugins offer a scheme.
        """
        chosen: dict[str, Offer] = {}
        for offer in (offer for offer in self.offers if offer.kind == "fetcher"):
            known = chosen.get(offer.name)
            if known and BUILT_IN not in (known.origin.plugin, offer.origin.plugin):
                raise PluginError(f"fetcher {offer.name!r} is offered by {known.origin} and {offer.origin}; uninstall one")
            if known is None or known.origin.plugin == BUILT_IN:
                chosen[offer.name] = offer
        return {scheme: offer.cls for scheme, offer in chosen.items()}


def with_debug(cls: type[Any], options: Mapping[str, Any], debug: bool) -> dict[str, Any]:
    """Return the options, with ``debug`` for a class that has such an option or argument."""
    if issubclass(cls, BaseModel):
        return {**options, "debug": True} if debug and "debug" in cls.model_fields else dict(options)
    takes = "debug" in inspect.signature(cls).parameters
    return {**options, "debug": debug} if takes else dict(options)


def _asked(settings: Settings) -> Iterator[str]:
    yield from (*settings.pre_processors, settings.processor, *settings.post_processors)


def _refuse_unused(options: Mapping[str, Any], used: set[str]) -> None:
    unused = sorted(set(options) - used)
    if unused:
        raise ConfigurationError(f"options for {', '.join(unused)}, but this batch uses {', '.join(sorted(used))}")


def _checked_options(name: str, cls: type[Any], options: Mapping[str, Any]) -> Any:
    """Return the options that differ from their defaults, without secrets, after making an object once.

    A constructor that raises something else than a ValidationError is left to fail file by file.
    """
    try:
        made = cls(**options)
    except ValidationError as error:
        problems = "\n".join(f"  {problem}" for problem in describe(error))
        raise ConfigurationError(f"options of {name}:\n{problems}") from error
    except Exception as error:  # noqa: BLE001 - a plugin's own constructor; it fails again for each file
        log.warning("%s can't be made: %s: %s", name, type(error).__name__, error)
        return names.digest(repr(_stable(options)))
    if isinstance(made, BaseModel):
        return made.model_dump(mode="json", exclude_defaults=True)
    return _stable({option: str(value) for option, value in options.items() if option != "debug"})


def import_class(kind: str, reference: str) -> type[Any]:
    """Return the class that ``package.module:ClassName`` names; the current folder counts as well.

    Args:
        kind: ``pre-processor``, ``processor`` or ``post-processor``.
        reference: Where the class is.

    Raises:
        PluginError: It can't be imported, or is of another kind.
    """
    module_name, _, class_name = reference.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except Exception as error:
        raise PluginError(f"{kind} {reference!r} can't be imported: {type(error).__name__}: {error}") from error
    if not (isinstance(cls, type) and callable(getattr(cls, KINDS[kind], None))):
        raise PluginError(f"{kind} {reference!r} is no class with a method {KINDS[kind]}()")
    return cls


@functools.cache
def registry() -> Registry:
    """Return this process's plugins, loaded at the first call."""
    return load_plugins()


def load_plugins() -> Registry:
    """Load the built-in plugin and every installed one, each on its own."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    own = Origin(BUILT_IN, "built in")
    offers = _registered(manager, own, lambda: builtin)
    origins = [own]
    for entry in sorted(entry_points(group=hookspecs.PROJECT), key=lambda entry: entry.name):
        origin, offered = _loaded(manager, entry)
        origins.append(origin)
        offers += offered
        if origin.state == "broken":
            log.warning(
                "plugin %s is broken and left out: %s (%s=%s silences this)", origin, origin.reason, DISABLE_VARIABLE, origin.plugin
            )
    return Registry(manager, origins, offers)


def _disabled() -> set[str]:
    return {name.strip() for name in os.environ.get(DISABLE_VARIABLE, "").split(",") if name.strip()}


def _loaded(manager: pluggy.PluginManager, entry: EntryPoint) -> tuple[Origin, list[Offer]]:
    distribution = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown package"
    if entry.name in _disabled():
        return Origin(entry.name, distribution, "disabled", f"named in {DISABLE_VARIABLE}"), []
    origin = Origin(entry.name, distribution)
    try:
        return origin, _registered(manager, origin, entry.load)
    except Exception as error:  # noqa: BLE001 - loading runs the plugin's code; it is set aside and named
        if manager.has_plugin(entry.name):
            manager.unregister(name=entry.name)
        return Origin(entry.name, distribution, "broken", f"{type(error).__name__}: {error}"), []


def _registered(manager: pluggy.PluginManager, origin: Origin, load: Callable[[], Any]) -> list[Offer]:
    """Register a plugin, refuse hooks that dpp does not have, and return what it offers."""
    plugin = load()
    manager.register(plugin, origin.plugin)
    manager.check_pending()
    return list(_offers(manager, origin, plugin))


def _offers(manager: pluggy.PluginManager, origin: Origin, plugin: Any) -> Iterator[Offer]:
    """Yield what one plugin offers, by calling the hooks for it alone."""
    others = [other for other in manager.get_plugins() if other is not plugin]

    def call(hook: str) -> list[Any]:
        return list(manager.subset_hook_caller(hook, others)())

    for kind in KINDS:
        for classes in call(f"dpp_{kind.replace('-', '_')}s"):
            for cls in classes:
                yield Offer(kind, _checked_class(kind, cls), cls, origin)
    for fetchers in call("dpp_fetchers"):
        for scheme, cls in fetchers.items():
            yield Offer("fetcher", scheme.lower(), cls, origin)


def _checked_class(kind: str, cls: Any) -> str:
    if not (isinstance(cls, type) and callable(getattr(cls, KINDS[kind], None))):
        raise TypeError(f"{cls!r} is no {kind} class")
    return step_name(cls)
