"""Finding backends by name: the built-in ones and those that other distributions offer by entry point."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points

from pytest_rwkvperf.backends.base import Backend
from pytest_rwkvperf.errors import OptionError

GROUP = "pytest_rwkvperf.backends"

# One line adds a backend. The order is that of reports.
BUILT_IN = {
    "rwkv": "pytest_rwkvperf.backends.rwkv_pip:BACKEND",
    "llama-cpp": "pytest_rwkvperf.backends.llama_cpp:BACKEND",
    "web-rwkv": "pytest_rwkvperf.backends.web_rwkv:BACKEND",
    "reference": "pytest_rwkvperf.backends.reference:BACKEND",
}

BY_HAND_ONLY = frozenset({"reference"})
"""Not among `all`: the oracle's speed is nobody's question."""


def locations() -> dict[str, str]:
    """Where each backend lives, as `module:attribute`, built-in ones first."""
    found = dict(BUILT_IN)
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        found.setdefault(entry.name, entry.value)
    return found


def load(location: str) -> Backend:
    """Import a backend from `module:attribute`.

    Raises:
        OptionError: nothing is there, or it is no backend.
    """
    module_name, _, attribute = location.partition(":")
    try:
        backend = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, SyntaxError) as error:
        message = f"backend at {location!r} cannot be imported ({error}); check the distribution that offers it"
        raise OptionError(message) from error
    if isinstance(backend, type) or not isinstance(backend, Backend):
        protocol = f"{Backend.__module__}.{Backend.__name__}"
        message = f"{location!r} is not a backend: it must be an instance with all parts of {protocol}"
        raise OptionError(message)
    return backend


def choose(text: str) -> tuple[dict[str, str], bool]:
    """Read the value of `--rwkv-backend`: the chosen locations by name, and whether they were named by hand.

    Raises:
        OptionError: a name that nobody offers.
    """
    known = locations()
    names = [name.strip() for name in text.split(",") if name.strip()]
    if names == ["all"]:
        return {name: location for name, location in known.items() if name not in BY_HAND_ONLY}, False
    if "all" in names:
        raise OptionError(f"--rwkv-backend={text!r} names all and others; write all alone, or the names")
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        value = unknown[0] if unknown else text
        message = f"--rwkv-backend={value!r} is unknown; allowed: all, {', '.join(known)}"
        raise OptionError(message)
    return {name: known[name] for name in dict.fromkeys(names)}, True
