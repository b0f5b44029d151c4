"""Backends by name: the built-in ones, and those that other distributions offer by entry point.

An engine of this project needs a module in this folder and a line in BUILT_IN; another distribution's needs an entry
point in GROUP. `core/engine.py` says what either offers. Help and errors name engines from here, so every pytest run
of the environment imports this module, and it imports nothing heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_rwkvperf.core.engine import Backend

GROUP = "pytest_rwkvperf.backends"

# In the order of reports.
BUILT_IN = {
    "rwkv": "pytest_rwkvperf.backends.rwkv_pip:BACKEND",
    "llama-cpp": "pytest_rwkvperf.backends.llama_cpp:BACKEND",
    "web-rwkv": "pytest_rwkvperf.backends.web_rwkv:BACKEND",
    "fla": "pytest_rwkvperf.backends.fla:BACKEND",
    "rwkv7-hf": "pytest_rwkvperf.backends.rwkv7_hf:BACKEND",
    "reference": "pytest_rwkvperf.backends.reference:BACKEND",
}

BY_HAND_ONLY = frozenset({"fla", "rwkv7-hf", "reference"})
"""Not in `all`: one for GPUs alone, and two that are made to be read, which those who measure need not wait for."""

IN_ALL = tuple(name for name in BUILT_IN if name not in BY_HAND_ONLY)
"""The built-in ones that `all` measures."""

EXECUTABLES = {
    "llama-bench": "pytest_rwkvperf.backends.executables:LlamaBench",
    "llama-batched-bench": "pytest_rwkvperf.backends.batched_bench:LlamaBatchedBench",
    "web-rwkv-bench": "pytest_rwkvperf.backends.executables:WebRwkvBench",
}
"""Programs, which `--rwkv-backend` names with their paths; a location's third part is the path."""


def locations() -> dict[str, str]:
    """Where each backend lives, as `module:attribute`, built-in ones first."""
    from importlib.metadata import entry_points  # slow to import, and no worker needs it

    known = dict(BUILT_IN)
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        known.setdefault(entry.name, entry.value)
    return known


def load(location: str) -> Backend:
    """Import a backend from `module:attribute`, or make one with `module:attribute:path`.

    Raises:
        OptionError: it cannot be imported, or is not a backend.
    """
    from pytest_rwkvperf.core.engine import Backend

    module_name, _, rest = location.partition(":")
    attribute, separator, path = rest.partition(":")
    try:
        offered = getattr(importlib.import_module(module_name), attribute)
        offered = offered(path=path) if separator else offered
    except Exception as error:  # a third party's module may raise anything
        message = f"backend at {location!r} cannot be imported ({error}); check the distribution that offers it"
        raise OptionError(message) from error
    backend = offered if isinstance(offered, Backend) else _completed(offered)
    if isinstance(offered, type) or not isinstance(backend, Backend):
        protocol = f"{Backend.__module__}.{Backend.__name__}"
        message = f"{location!r} is not a backend: it must be an instance with all parts of {protocol}"
        raise OptionError(message)
    return backend


def _completed(offered: object) -> object:
    """The parts of a backend that an object has, with the defaults for those that it lacks."""
    from pytest_rwkvperf.core.engine import Backend, BackendDefaults

    completed = BackendDefaults()
    parts = [part for part in vars(Backend) if not part.startswith("_") and hasattr(offered, part)]
    vars(completed).update({part: getattr(offered, part) for part in parts})
    return completed


def by_distribution() -> Mapping[str, str]:
    """The built-in backend that measures an installed distribution; of several the first."""
    known: dict[str, str] = {}
    for name, location in BUILT_IN.items():
        for distribution in load(location).distributions:
            known.setdefault(distribution, name)
    return known


def choose(text: str, option: str = "--rwkv-backend") -> tuple[dict[str, str], bool]:
    """Read the value of `--rwkv-backend`: the chosen locations by name, and whether they were named by hand.

    `option` is its name in errors.

    Raises:
        OptionError: a name is unknown.
    """
    known = locations()
    names = [name.strip() for name in text.split(",") if name.strip()]
    if names == ["all"]:
        return {name: location for name, location in known.items() if name not in BY_HAND_ONLY}, False
    if "all" in names:
        raise OptionError(f"{option}={text!r} names all and others; write all alone, or the names")
    programs = _programs(names, option)
    unknown = [name for name in names if name not in known and name.partition(":")[0] not in programs]
    if unknown or not names:
        from pytest_rwkvperf.core.text import did_you_mean

        value = unknown[0] if unknown else text
        allowed = ", ".join([*known, *(f"{name}:/path" for name in EXECUTABLES)])
        meant = did_you_mean(value, ["all", *known, *EXECUTABLES])
        raise OptionError(f"{option}={value!r} is unknown{meant}; allowed: all, {allowed}")
    known |= programs
    return {name: known[name] for name in dict.fromkeys(text.partition(":")[0] for text in names)}, True


def _programs(names: list[str], option: str) -> dict[str, str]:
    """The chosen programs' locations.

    Raises:
        OptionError: one does not exist, or is named twice.
    """
    programs: dict[str, str] = {}
    for chosen in names:
        name, _, path = chosen.partition(":")
        if name not in EXECUTABLES:
            continue
        from pytest_rwkvperf.backends.executables import located

        location = f"{EXECUTABLES[name]}:{located(name, path, option)}"
        if programs.setdefault(name, location) != location:
            raise OptionError(f"{option} names two programs {name}; measure one after the other")
    return programs
