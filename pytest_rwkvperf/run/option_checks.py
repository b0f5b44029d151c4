"""Options that no chosen engine can serve: refused before anything is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_rwkvperf.core.engine_settings import Setting
from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.core.text import did_you_mean
from pytest_rwkvperf.run.option_values import MAX_NUMBER
from pytest_rwkvperf.run.selection import is_called
from pytest_rwkvperf.run.settings import EVERY

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_rwkvperf.core.engine import Backend
    from pytest_rwkvperf.run.discovery import FoundEngine
    from pytest_rwkvperf.run.selection import Request
    from pytest_rwkvperf.run.settings import Settings


def check_quants(settings: Settings, request: Request, backends: Sequence[Backend]) -> None:
    """Refuse a quant that no backend would be measured with.

    Raises:
        OptionError: naming the quants that are allowed.
    """
    allowed = "; ".join(f"{backend.name}: {', '.join(backend.quants)}" for backend in backends)
    for quant in (*settings.quants, *request.quants):
        if not any(backend.accepts(quant) for backend in backends):
            meant = _meant(quant, backends)
            raise OptionError(f"quant {quant!r} is known to none of the backends in use{meant}; allowed: {allowed}")
    for quant in settings.quants:
        _check_not_overridden(quant, settings, backends)
    selected = _selected(settings.quants_by_backend, backends, "--rwkv-quant")
    for name, quants in settings.quants_by_backend.items():
        for quant in quants:
            if not selected[name].accepts(quant):
                meant = _meant(quant, [selected[name]])
                raise OptionError(f"--rwkv-quant={name}={quant}: unknown to it{meant}; allowed: {allowed}")


def _check_not_overridden(quant: str, settings: Settings, backends: Sequence[Backend]) -> None:
    """Refuse a quant for all backends if each backend that knows it has a list of its own without it."""
    knowing = [backend.name for backend in backends if backend.accepts(quant)]
    own = [settings.quants_by_backend.get(name, ()) for name in knowing]
    if all(own) and not any(quant in quants for quants in own):
        listed = "+".join((*settings.quants_by_backend[knowing[0]], quant))
        raise OptionError(
            f"--rwkv-quant={quant} would be left out, as {knowing[0]} has a list of its own; "
            f"instead of it write {knowing[0]}={listed}"
        )


def _selected(names: Iterable[str], backends: Sequence[Backend], option: str) -> dict[str, Backend]:
    """The chosen backends by name.

    Raises:
        OptionError: `option` has one of `names` that was not chosen.
    """
    by_name = {backend.name: backend for backend in backends}
    for name in names:
        if name not in by_name:
            meant = did_you_mean(name, by_name)
            raise OptionError(
                f"{option} names {name!r}, which --rwkv-backend did not select{meant} ({', '.join(by_name)})"
            )
    return by_name


def _meant(quant: str, backends: Sequence[Backend]) -> str:
    """A question about the quant that was meant, which a backend may accept without listing it (int8@31)."""
    lower = quant.strip().lower()
    unlisted = [lower] if any(backend.accepts(lower) for backend in backends) else []
    return did_you_mean(quant, [*(name for backend in backends for name in backend.quants), *unlisted])


def check_settings(settings: Settings, backends: Sequence[Backend]) -> None:
    """Refuse a setting that an engine does not have, a value that it does not take, and too large a chunk.

    Raises:
        OptionError: naming what is allowed.
    """
    selected = _selected(settings.settings_by_backend, backends, "--rwkv-set")
    for name, given in settings.settings_by_backend.items():
        for setting, values in given.items():
            _check_values(selected[name], setting, values)
    for backend in backends:
        has_own = "chunk" in settings.settings_by_backend.get(backend.name, {})
        if settings.chunk and not has_own and backend.max_chunk and settings.chunk > backend.max_chunk:
            raise OptionError(
                f"--rwkv-chunk={settings.chunk} is more than {backend.name} computes rightly; at most "
                f"{backend.max_chunk}, by --rwkv-set={backend.name}.chunk={backend.max_chunk} for it alone, or leave "
                f"{backend.name} out of --rwkv-backend"
            )


def _check_values(backend: Backend, name: str, values: Sequence[str]) -> None:
    known = settings_of(backend)
    setting, option = known.get(name), f"--rwkv-set={backend.name}.{name}"
    if setting is None:
        listed = "; ".join(f"{each.name} ({each.allowed}): {each.help}" for each in known.values() if not each.refused)
        raise OptionError(f"{option} is no setting of {backend.name}{did_you_mean(name, known)}; it has {listed}")
    if setting.refused:
        raise OptionError(f"{option}: {setting.refused}")
    for value in values:
        if not setting.accepts(value):
            raise OptionError(f"{option}={value!r} cannot be; allowed: {setting.allowed} ({setting.help})")


def settings_of(backend: Backend) -> dict[str, Setting]:
    """What `--rwkv-set` may set of a backend, by name: the chunk, which all have, and its own settings."""
    chunk = Setting("chunk", "most tokens in one prefill call", numbers=(1, backend.max_chunk or MAX_NUMBER))
    return {setting.name: setting for setting in (chunk, *backend.settings)}


def check_devices(settings: Settings, engines: Sequence[FoundEngine]) -> None:
    """Refuse a device that no engine lists.

    Raises:
        OptionError: naming the devices that are there.
    """
    available = {engine.backend.name: [device.id for device in engine.devices] for engine in engines}
    for wanted in settings.devices:
        if wanted != EVERY and not any(is_called(id_, wanted) for ids in available.values() for id_ in ids):
            listed = "; ".join(f"{name}: {', '.join(ids)}" for name, ids in available.items())
            meant = did_you_mean(wanted, [EVERY, *(id_ for ids in available.values() for id_ in ids)])
            raise OptionError(f"--rwkv-device={wanted!r} is not a device of any engine here{meant}; there are {listed}")
