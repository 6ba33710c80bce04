"""Finds providers by looking: every folder of `tillgate.providers`, then entry points `tillgate.providers`.

A folder is its registration and its name is the provider's name. A broken one stops the start.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Final

from tillgate.domain.errors import Misconfigured
from tillgate.spi import Provider

_MISSING: Final = object()


@cache
def providers() -> dict[str, Provider[Any]]:
    """All providers by name. Raises `Misconfigured` for a folder that cannot be used."""
    import tillgate.providers as folder

    found: dict[str, Provider[Any]] = {}
    for module in sorted(pkgutil.iter_modules(folder.__path__), key=lambda one: one.name):
        if module.ispkg:
            _add(found, module.name, importlib.import_module(f"tillgate.providers.{module.name}"))
    for point in sorted(entry_points(group="tillgate.providers"), key=lambda one: one.name):
        _add(found, point.name, point.load())
    return found


def _add(found: dict[str, Provider[Any]], name: str, module: Any) -> None:
    provider = getattr(module, "PROVIDER", _MISSING)
    if provider is None:
        return  # says itself that the hub does not offer it
    if not isinstance(provider, Provider):
        raise Misconfigured(f"provider {name}: its module has no PROVIDER")
    if provider.name != name:
        raise Misconfigured(f"provider {name} calls itself {provider.name}")
    if name in found:
        raise Misconfigured(f"there are two providers named {name}")
    found[name] = provider
