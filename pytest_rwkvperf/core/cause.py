"""What differs between two measurements of a workload and may explain why one is slower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

SHOWN = 3
"""Most differences that are shown with a REGRESSION; the record has all."""

CauseKind = Literal["operator", "count", "software", "settings", "machine"]
"""What differs: an operator's time, how often an operator ran, what was loaded, how it was run, or where."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One difference. `old` and `new` are values in words, empty where `what` says it all.

    `change` is the new value over the old one, minus 1. `share` is the extra time of an operator as a share of all
    operators' old time. Both are null where there is none; `witness` is what counted or timed the operators.
    """

    kind: CauseKind
    what: str
    old: str = ""
    new: str = ""
    change: float | None = None
    share: float | None = None
    witness: str = ""

    def __str__(self) -> str:
        values = f" {self.old} → {self.new}" if self.old or self.new else ""
        change = "" if self.change is None else f" {self.change:+.1%}"
        if self.kind == "operator":
            share = "" if self.share is None else f", {self.share:+.1%} of all operators' time"
            return f"{self.what}{change} ({self.old} → {self.new}{share}; {self.witness})"
        return f"{self.what}{values}{change}" + (f" ({self.witness})" if self.witness else "")


def why(causes: Sequence[Cause]) -> list[str]:
    """What differs and may be why something is slower, in at most SHOWN sentences."""
    if not causes:
        return ["nothing differs that was recorded: not the operators, the software, the settings nor the machine"]
    sentences = [str(cause) for cause in causes[:SHOWN]]
    if (rest := len(causes) - SHOWN) > 0:
        sentences[-1] += f" (and {rest} more in the record)"
    return sentences
