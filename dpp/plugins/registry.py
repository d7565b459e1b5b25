"""Load plugins one by one, record what each offers, and skip broken ones."""

from __future__ import annotations

import functools
import itertools
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy
from pydantic import ValidationError
from pydantic_core import SchemaError

from dpp import hookspecs, names
from dpp.base import BaseExecutor, BaseFetcher, NoOptions
from dpp.errors import ConfigurationError, DppError, InputError, PluginError
from dpp.plugins import builtin
from dpp.plugins.steps import STEP_METHODS, ConfiguredStep, Steps, has_method, import_class, step_name, with_debug
from dpp.redact import declared_secrets, keep_secret, redact_url
from dpp.settings import Settings, wrong_options
from dpp.workspace.machine import ends_copies

log = logging.getLogger(__name__)

DISABLE_VARIABLE = "DPP_DISABLE_PLUGINS"
STEP_SETTINGS = {"pre_processors", "processor", "post_processors"}
BUILT_IN = "built in"


@dataclass(frozen=True)
class Origin:
    """A plugin, the package that it comes from, and its state.

    Attributes:
        plugin: Name of its entry point, or ``dpp`` for the built-in plugin.
        distribution: Name and version of the installed package.
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
    """A step, fetcher, source or executor that a plugin offers under a name.

    Attributes:
        kind: ``pre-processor``, ``processor``, ``post-processor``, ``fetcher``, ``source`` or ``executor``.
        name: Its name in a batch; for a fetcher or source, the URL scheme.
        cls: The class; for a source, the plugin.
        origin: The plugin that offers it.
    """

    kind: str
    name: str
    cls: Any
    origin: Origin


class Registry:
    """The loaded plugins and what they offer; created by :func:`load_plugins`, never at import."""

    def __init__(self, manager: pluggy.PluginManager, origins: list[Origin], offers: list[Offer]) -> None:
        self.hook = manager.hook
        self.origins = origins
        self.offers = offers
        self._manager = manager
        self._steps: dict[str, Steps] = {}
        self._parts: dict[str, list[tuple[str, Callable[..., Any]]]] = {}

    def _callers(self, hook: str) -> list[tuple[str, Callable[..., Any]]]:
        """Return each plugin's name and its implementation of a hook, in the order of a call."""
        # Called one by one, so that a failure can be attributed to a plugin and does not affect the others.
        if hook not in self._parts:
            found = reversed(getattr(self.hook, hook).get_hookimpls())
            self._parts[hook] = [(one.plugin_name, _alone(self._manager, one.plugin, hook)) for one in found]
        return self._parts[hook]

    def notify(self, hook: str, **facts: Any) -> None:
        """Call a hook without a result; log the failure of a plugin, and continue with the others."""
        for plugin, call in self._callers(hook):
            try:
                with ends_copies():
                    call(**facts)
            except (Exception, SystemExit):  # a plugin's code
                log.exception("plugin %s failed in %s", plugin, hook)

    def has(self, hook: str) -> bool:
        """Return whether a plugin implements a hook."""
        return bool(self._callers(hook))

    def commands(self) -> Iterator[tuple[str, Any]]:
        """Yield the commands that plugins offer, each with the name of its plugin."""
        for plugin, call in self._callers("dpp_commands"):
            for commands in call():
                yield from ((plugin, command) for command in commands)

    def rows(self, files: str, settings: Settings) -> Iterable[Mapping[str, Any]] | None:
        """Return the files that a plugin lists for a source such as a URL, or None if no plugin knows the source.

        Raises:
            PluginError: A plugin failed, and no other plugin knows the source.
        """
        failed: PluginError | None = None
        for plugin, call in self._callers("dpp_sources"):
            try:
                with _blaming(plugin, files):
                    found = call(files=files, settings=settings)
            except PluginError as error:
                failed = failed or error
            else:
                if found is not None:
                    return _guarded(plugin, files, found)
        if failed and "://" in files:
            raise failed
        return None

    def source(self, place: str, settings: Settings, setting: str = "") -> Iterable[Mapping[str, Any]]:
        """Return the files that a plugin lists, as :meth:`rows` does; they are requested when they are read.

        Args:
            place: The source.
            settings: The settings.
            setting: Name of the setting that names it, for the message.

        Raises:
            ConfigurationError: No plugin knows the source.
            PluginError: A plugin failed, and no other plugin knows the source.
        """
        found = self.rows(place, settings)
        if found is None:
            shown = f"{setting}: {redact_url(place)}" if setting else redact_url(place)
            raise ConfigurationError(f"{shown} is not a folder, and no plugin can list it; dpp plugins shows the sources")
        return found

    def steps(self, settings: Settings) -> Steps:
        """Return the steps that the settings name, with their options.

        Raises:
            ConfigurationError: A name is unknown, or an option is invalid; it lists all problems.
            PluginError: Two plugins offer the same name, or a class cannot be imported.
        """
        # A constructor may be slow, so the steps are kept for the lifetime of the process.
        wanted = settings.model_dump_json(include=STEP_SETTINGS | {"options", "debug"})
        if wanted not in self._steps:
            self._steps[wanted] = self._chosen(settings)
        # The settings of a single task may lack later kinds of steps, and still have options for them.
        if settings.model_fields_set >= STEP_SETTINGS:
            used = {step.name for step in self._steps[wanted]} | {name for _, name in _chosen_steps(settings)}
            used |= {settings.executor} - {""}
            _refuse_unused(settings.options, used, self.schemes())
        return self._steps[wanted]

    def _chosen(self, settings: Settings) -> Steps:
        made: dict[str, list[ConfiguredStep]] = {kind: [] for kind in STEP_METHODS}
        problems: list[InputError] = []
        for kind, name in _chosen_steps(settings):
            try:
                made[kind].append(self._step(kind, name, settings))
            except InputError as error:
                problems.append(error)
        if len(problems) > 1:
            raise ConfigurationError("\n".join(map(str, problems)))
        if problems:
            raise problems[0]
        return Steps(made["pre-processor"], made["processor"][0], made["post-processor"])

    def _step(self, kind: str, name: str, settings: Settings) -> ConfiguredStep:
        cls = import_class(kind, name) if ":" in name else self._offered(kind, name)
        options = _with_shared(cls, settings.options.get(step_name(cls), {}) | settings.options.get(name, {}), settings)
        return ConfiguredStep(kind, cls, with_debug(cls, options, settings.debug))

    def _offered(self, kind: str, name: str) -> type[Any]:
        found = [offer for offer in self.offers if offer.kind == kind and offer.name == name]
        if len(found) > 1:
            raise PluginError(_taken(kind, name, found))
        if not found:
            raise ConfigurationError(self._unknown(kind, name))
        cls: type[Any] = found[0].cls
        return cls

    def _unknown(self, kind: str, name: str) -> str:
        also = "MODULE:CLASS" if kind in STEP_METHODS else ""
        hint = names.suggestion(name, (offer.name for offer in self.offers if offer.kind == kind), also=also)
        broken = [f"\n  plugin {origin} is {origin.state}: {origin.reason}" for origin in self.origins if origin.state != "enabled"]
        return f"unknown {kind} {name!r}; {hint}{''.join(broken)}"

    def executor(self, settings: Settings, workers: int, given: Mapping[str, Mapping[str, Any]] | None = None) -> BaseExecutor | None:
        """Return the executor that the settings name, with its options; None for Luigi's workers.

        Args:
            settings: The settings.
            workers: Number of chunks at once if its options have none.
            given: The options of plugins that do not come from luigi.cfg.

        Raises:
            ConfigurationError: The name is unknown, or an option is invalid.
            PluginError: Two plugins offer the name.
        """
        name = settings.executor
        if not name:
            return None
        cls = self._offered("executor", name)
        if own := [step for _, step in _chosen_steps(settings) if step.startswith("__main__:")]:
            raise ConfigurationError(f"{own[0]}: the processes of an executor cannot import a program's main module; use another module")
        if refused := sorted(set((given or {}).get(name, ())).intersection(cls.configured_only)):
            raise ConfigurationError(f"options of {name}: only section [{name}] of luigi.cfg can set {', '.join(refused)}")
        try:
            made: BaseExecutor = cls(**settings.options.get(name, {}))
        except ValidationError as error:
            raise wrong_options(name, error, cls) from error
        keep_secret(declared_secrets(made))
        return made if made.workers else made.model_copy(update={"workers": workers})

    def packages(self, steps: Steps) -> dict[str, str]:
        """Return the versions of the packages whose steps or fetchers a run may use, by name."""
        used = {step.cls for step in steps}
        offers = [offer for offer in self.offers if offer.kind == "fetcher" or offer.cls in used]
        return dict(sorted(offer.origin.distribution.rsplit(" ", 1) for offer in offers if offer.origin.distribution != BUILT_IN))

    def fetchers(self) -> dict[str, type[BaseFetcher]]:
        """Return the fetcher class of each URL scheme; a plugin's fetcher replaces a built-in one.

        Raises:
            PluginError: Two plugins offer the same scheme.
        """
        chosen: dict[str, Offer] = {}
        for offer in (offer for offer in self.offers if offer.kind == "fetcher"):
            known = chosen.get(offer.name)
            if known and known.origin.distribution != BUILT_IN:
                raise PluginError(_taken("fetcher", offer.name, [known, offer]))
            chosen[offer.name] = offer
        return {scheme: offer.cls for scheme, offer in chosen.items()}

    def schemes(self) -> set[str]:
        """Return the URL schemes that can have options: those of fetchers and of sources."""
        return {*self.fetchers(), *self._listed()}

    def _listed(self) -> set[str]:
        return {offer.name for offer in self.offers if offer.kind == "source"}

    def check_fetchers(self, settings: Settings) -> None:
        """Check the options of fetchers, and what they need of the environment, before anything is fetched.

        Raises:
            ConfigurationError: An option is invalid, or a variable names certificates that do not exist.
        """
        for scheme, cls in self.fetchers().items():
            model = getattr(cls, "Options", NoOptions)
            if scheme in settings.options and not (model is NoOptions and scheme in self._listed()):
                settings.options_for(scheme, model)
        # Their constructors may check more.
        for cls in set(self.fetchers().values()):
            close_fetcher(cls(settings))


def close_fetcher(fetcher: BaseFetcher) -> None:
    """Close a fetcher's connections, and warn if that fails."""
    try:
        fetcher.close()
    except Exception as error:  # noqa: BLE001 - a plugin's code; its files are complete
        log.warning("cannot close fetcher %s: %s: %s", type(fetcher).__name__, type(error).__name__, error)


def _taken(kind: str, name: str, offers: Iterable[Offer]) -> str:
    both = " and ".join(str(offer.origin) for offer in offers)
    return f"{kind} {name!r} is offered by {both}; uninstall one, or set {DISABLE_VARIABLE} to its name"


@contextmanager
def _blaming(plugin: str, files: str) -> Iterator[None]:
    """Turn an exception of a plugin's code into a PluginError with the plugin's name; dpp's own errors are not changed."""
    try:
        yield
    except DppError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise PluginError(
            f"plugin {plugin} failed to list {redact_url(files)}: {reason} (plugins can be disabled with {DISABLE_VARIABLE})"
        ) from error


def _guarded(plugin: str, files: str, found: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    with _blaming(plugin, files):
        yield from found


def _alone(manager: pluggy.PluginManager, plugin: Any, hook: str) -> Callable[..., Any]:
    """Return a function that calls a hook of one plugin only."""
    return manager.subset_hook_caller(hook, [other for other in manager.get_plugins() if other is not plugin])


def _chosen_steps(settings: Settings) -> Iterator[tuple[str, str]]:
    chosen = (settings.pre_processors, (settings.processor,), settings.post_processors)
    return ((kind, name) for kind, names_ in zip(STEP_METHODS, chosen, strict=True) for name in names_)


def _with_shared(cls: type[Any], own: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Return a step's options, with those of its shared URL schemes; if the step has one of them itself, the scheme's are ignored."""
    options = own
    for scheme, model in getattr(cls, "shared_options", {}).items():
        if own.keys().isdisjoint(model.model_fields):
            below = settings.options.get(scheme, {})
            options = {option: value for option, value in below.items() if option in model.model_fields} | options
    return options


def option_names(settings: Settings) -> Iterator[str]:
    """Yield the names that can have options in a batch: URL schemes, and steps by their names in the batch and their own names."""
    yield from registry().schemes()
    if settings.executor:
        yield settings.executor
    for kind, name in _chosen_steps(settings):
        yield name
        if ":" in name:
            yield step_name(import_class(kind, name))


def _refuse_unused(options: Mapping[str, Any], used: set[str], schemes: set[str]) -> None:
    unused = sorted(set(options) - used - schemes)
    if unused:
        near = [f"did you mean {close!r}?" for name in unused if (close := names.close_match(name, used | schemes))]
        problem = f"options for {', '.join(unused)}, which this batch does not use; it uses {', '.join(sorted(used))}"
        raise ConfigurationError("; ".join([problem, *near]))


@functools.cache
def registry() -> Registry:
    """Return the plugins of this process; the first call loads them."""
    return load_plugins()


def load_plugins() -> Registry:
    """Load the built-in plugin and all installed ones; a broken plugin does not affect the others."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    own = Origin(hookspecs.PROJECT, BUILT_IN)
    offers = _registered(manager, own, lambda: builtin)
    origins = [own]
    for entry in sorted(entry_points(group=hookspecs.PROJECT), key=lambda entry: (entry.name, _distribution(entry))):
        origin, offered = _loaded(manager, entry)
        origins.append(origin)
        offers += offered
        if origin.state == "broken":
            log.warning("skipped broken plugin %s: %s (%s=%s disables it)", origin, origin.reason, DISABLE_VARIABLE, origin.plugin)
    return Registry(manager, origins, offers)


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown package"


def _disabled() -> set[str]:
    return {name.strip() for name in os.environ.get(DISABLE_VARIABLE, "").split(",") if name.strip()}


def _loaded(manager: pluggy.PluginManager, entry: EntryPoint) -> tuple[Origin, list[Offer]]:
    distribution = _distribution(entry)
    if entry.name in _disabled():
        return Origin(entry.name, distribution, "disabled", f"named in {DISABLE_VARIABLE}"), []
    origin = Origin(entry.name, distribution)
    try:
        return origin, _registered(manager, origin, entry.load)
    except (Exception, SystemExit) as error:
        # pydantic turns an interrupt into a SchemaError.
        if isinstance(error, SchemaError) and KeyboardInterrupt.__name__ in str(error):
            raise KeyboardInterrupt from error
        if manager.has_plugin(str(origin)):
            manager.unregister(name=str(origin))
        return Origin(entry.name, distribution, "broken", f"{type(error).__name__}: {error}"), []


def _registered(manager: pluggy.PluginManager, origin: Origin, load: Callable[[], Any]) -> list[Offer]:
    """Register a plugin, raise for hooks that dpp does not have, and return what the plugin offers."""
    plugin = load()
    manager.register(plugin, str(origin))
    manager.check_pending()
    return list(_offers(manager, origin, plugin))


def _offers(manager: pluggy.PluginManager, origin: Origin, plugin: Any) -> Iterator[Offer]:
    """Yield what one plugin offers, by calling its hooks only."""
    for kind, method in {**STEP_METHODS, "executor": "open"}.items():
        for classes in _alone(manager, plugin, f"dpp_{kind.replace('-', '_')}s")():
            for cls in classes:
                _check_class(kind, cls, method)
                yield Offer(kind, step_name(cls), cls, origin)
    for fetchers in _alone(manager, plugin, "dpp_fetchers")():
        for scheme, cls in fetchers.items():
            _check_class("fetcher", cls, "fetch")
            yield Offer("fetcher", scheme.lower(), cls, origin)
    for schemes in _alone(manager, plugin, "dpp_source_schemes")():
        yield from (Offer("source", scheme.lower(), plugin, origin) for scheme in schemes)
    # Only dpp's command line has imported click, and only it needs commands, which may take long to import.
    if "click" in sys.modules:
        _check_commands(_alone(manager, plugin, "dpp_commands")())


def _check_class(kind: str, cls: Any, method: str) -> None:
    if not has_method(cls, method):
        raise TypeError(f"{cls!r} is not a {kind}: expected a class with a method {method}()")


def _check_commands(offered: Iterable[Iterable[Any]]) -> None:
    for command in itertools.chain.from_iterable(offered):
        if not getattr(command, "name", ""):
            raise TypeError(f"{command!r} is not a click command with a name")
