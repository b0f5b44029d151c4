"""Two files of speeds set side by side. They hold no samples, so there are ratios and no verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_rwkvperf.core.convention import check_shared
from pytest_rwkvperf.core.errors import RecordError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_rwkvperf.core.convention import Convention
    from pytest_rwkvperf.store.speeds import Speed

_ALIKE = "measure both with one tool, protocol, version and chunk"


@dataclass(frozen=True, slots=True)
class SpeedRatio:
    """One series of both files."""

    old: Speed
    new: Speed

    @property
    def ratio(self) -> float:
        """New over old: below 1 is slower."""
        return self.new.value / self.old.value

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The least and the largest ratio within both intervals; None where one has none."""
        old, new = self.old, self.new
        if old.low is None or old.high is None or new.low is None or new.high is None:
            return None
        return new.low / old.high, new.high / old.low


def compare(old: Sequence[Speed], new: Sequence[Speed]) -> list[SpeedRatio]:
    """Each series that both files have, in the new file's order.

    Raises:
        ConventionError: the files, or a series of both, were measured under two conventions.
        RecordError: the files have no series in common.
    """
    check_shared(_conventions(old), _conventions(new), "everything", _ALIKE)
    for series in {speed.series for speed in old} & {speed.series for speed in new}:
        check_shared(_conventions(old, series), _conventions(new, series), series, _ALIKE)
    before = {speed.name: speed for speed in old}
    found = [SpeedRatio(before[speed.name], speed) for speed in new if speed.name in before]
    if not found:
        raise RecordError(
            f"the two files have no series in common; the old one begins with {old[0].series!r}, the new one with "
            f"{new[0].series!r}: measure the same workloads with the same settings"
        )
    return found


def _conventions(speeds: Sequence[Speed], series: str | None = None) -> set[Convention]:
    return {speed.convention for speed in speeds if series in (None, speed.series)}
