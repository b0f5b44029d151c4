"""What the hardware did: share of its roofline, energy, utilisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_rwkvperf.reports import plots
from pytest_rwkvperf.reports.sections.bars import Bar, Bars

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_rwkvperf.machine.roofline import Ceilings
    from pytest_rwkvperf.reports.sections.shown import Shown
    from pytest_rwkvperf.store.record import RecordedItem


@dataclass(frozen=True, slots=True)
class Hardware:
    """Bars of what the hardware did, by kind, with the device's measured ceilings."""

    roofline: Bars | None
    energy: Bars | None
    busy: Bars | None
    ceilings: Sequence[tuple[str, Ceilings]]

    @property
    def gist(self) -> str:
        """Which of the kinds are known."""
        kinds = {"roofline": self.roofline, "energy": self.energy, "utilisation": self.busy}
        return ", ".join(name for name, bars in kinds.items() if bars)


def hardware(shown: Shown) -> Hardware | None:
    """Shares of the roofline, energy of a token and utilisation; None where none of them is known."""
    found = Hardware(
        _bars(shown, "Share of the roofline", lambda item: item.roofline_share, lambda _: 1.0),
        _bars(shown, "Energy of a token", lambda item: item.joules_per_token, lambda item: item.net_joules_per_token),
        _bars(shown, "Utilisation", lambda item: item.utilisation, lambda item: item.device_share, end=1.0),
        _ceilings(shown),
    )
    return found if found.roofline or found.energy or found.busy else None


def _bars(
    shown: Shown,
    title: str,
    value: Callable[[RecordedItem], float | None],
    reference: Callable[[RecordedItem], float | None],
    end: float | None = None,
) -> Bars | None:
    """Bars of a figure of each workload that has it, with another one as its tick."""
    found = [
        (f"{shown.names[case.case]} {item.workload}", own, reference(item))
        for case, item in shown.record.items()
        if (own := value(item)) is not None
    ]
    if not found:
        return None
    scale = plots.amounts([end, *(one for _, *pair in found for one in pair)])
    bars = [Bar(name, own, plots.mark(scale, own, reference=tick)) for name, own, tick in found]
    return Bars(title, bars, plots.ticks(scale))


def _ceilings(shown: Shown) -> list[tuple[str, Ceilings]]:
    """Each device's measured ceilings; every case measured them, and the highest ones count."""
    best: dict[str, Ceilings] = {}
    for _, measured in shown.measured():
        if ceilings := measured.ceilings:
            name = measured.device.name
            if name not in best or ceilings.copy_bytes_per_second > best[name].copy_bytes_per_second:
                best[name] = ceilings
    return list(best.items())
