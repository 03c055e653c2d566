"""A registry of plugins: one file in a folder, or one entry point of an installed package, is one plugin."""

import importlib
import pkgutil
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from types import ModuleType
from typing import Generic, TypeVar

from domain.errors import Invalid

T = TypeVar("T")


class Registry(Generic[T]):
    """Plugins by name, found on first use.

    Args:
        kind: what a plugin is called in messages, "stage" for instance.
        package: a package whose modules are imported so that their ``@register`` runs.
        entry_point_group: installed packages name further modules under this group.
    """

    def __init__(self, kind: str, package: str, entry_point_group: str) -> None:
        self._kind = kind
        self._package = package
        self._group = entry_point_group
        self._plugins: dict[str, T] = {}
        self._aliases: dict[str, str] = {}
        self._scanned = False
        self._scanning = threading.RLock()
        self._inside = False

    def register(self, name: str, *aliases: str) -> Callable[[T], T]:
        """Add a plugin under its name, and under other names that users may write."""

        def add(plugin: T) -> T:
            taken = self._plugins.get(name)
            if taken is not None and taken is not plugin:
                raise ValueError(f"two {self._kind}s are named {name!r}")
            self._plugins[name] = plugin
            self._aliases.update(dict.fromkeys(aliases, name))
            return plugin

        return add

    def require(self, name: str, *, location: tuple[str | int, ...] = ()) -> T:
        """Return the plugin of that name or alias.

        Raises:
            Invalid: there is none; the message lists what there is.
        """
        plugin = self.find(name)
        if plugin is None:
            known = ", ".join(sorted(self._plugins))
            raise Invalid(
                f"There is no {self._kind} {name[:200]!r}. Known: {known}.",
                code=f"unknown_{self._kind}",
                location=location,
            )
        return plugin

    def find(self, name: str) -> T | None:
        """Return the plugin of that name or alias, or None."""
        self._scan()
        return self._plugins.get(self._aliases.get(name, name))

    def items(self) -> Iterator[tuple[str, T]]:
        """Yield names and plugins in the order of their names."""
        self._scan()
        yield from sorted(self._plugins.items())

    def _scan(self) -> None:
        if self._scanned:
            return
        with self._scanning:
            if not (self._scanned or self._inside):
                self._inside = True  # a plugin may look another one up while it is imported
                try:
                    self._import_all()
                    self._scanned = True
                finally:
                    self._inside = False

    def _import_all(self) -> None:
        package: ModuleType = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__, prefix=f"{self._package}."):
            importlib.import_module(module.name)
        for entry_point in entry_points(group=self._group):
            entry_point.load()
