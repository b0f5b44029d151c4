"""Baselines to store, and a separate cache folder, which holds the locks, for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_rwkvperf.core.cases import Case
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.machine.fingerprint import Fingerprint
from pytest_rwkvperf.store.baseline import BaselineEntry, StoredCase

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def machine() -> Fingerprint:
    return Fingerprint("Linux", "x86_64", "AMD EPYC 9B14", "family 25 model 17 stepping 1", 2, 1)


@pytest.fixture
def make_stored() -> Callable[..., StoredCase]:
    """Make a stored case with one session; keywords change the defaults."""

    def make(
        backend: str = "llama-cpp",
        *,
        pp512: tuple[tuple[int, ...], ...] | None = ((1_000_001, 1_000_002), (1_000_003,)),
        tg128: tuple[tuple[int, ...], ...] | None = None,
        model_hash: str = "a" * 64,
        device: Device = Device("cpu", "CPU", "cpu"),  # noqa: B008 - frozen
        recorded: str = "2026-01-01T00:00:00Z",
        version: str = "1",
        protocol: int = 1,
    ) -> StoredCase:
        workloads = {name: runs for name, runs in (("pp512", pp512), ("tg128", tg128)) if runs is not None}
        session = BaselineEntry(recorded, {backend: version}, protocol, 0.5, 0.0, workloads)
        return StoredCase(Case(backend, "synthetic:nano", "f16", device.id, 2, 512), model_hash, device, (session,))

    return make
