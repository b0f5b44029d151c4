"""Which step decides an item: the software's identity, stored figures, or A/B against the baseline's software.

Stored figures cost nothing, and hardly ever decide alone: between sessions a machine moves by more than most
tolerances. So what they leave open goes to A/B, and a REGRESSION of theirs is a suspicion that A/B must confirm: a
whole run's false alarms are then A/B's alone. Of the risk of a wrong PASS each step has a part, fixed in advance; by
Bonferroni's inequality an item's risk stays under the whole.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_rwkvperf.stats.slowdown import percent_slower

if TYPE_CHECKING:
    from pytest_rwkvperf.core.software import Software
    from pytest_rwkvperf.measure.record import CaseRecord
    from pytest_rwkvperf.stats.verdicts import ErrorRates
    from pytest_rwkvperf.store.baseline import StoredCase
    from pytest_rwkvperf.verdict.judged import Judgement

STORED_SHARE = 0.2
"""Share of the risk of a wrong PASS that stored figures get where A/B may follow: they rarely decide, so A/B gets most
of it."""

NOT_ASKED = "A/B could not be asked"
"""Words in the reason of a verdict that A/B was to give and could not."""


def rates_of_stored(rates: ErrorRates) -> ErrorRates:
    """The error rates of stored figures where A/B may follow."""
    return replace(rates, wrong_pass=rates.wrong_pass * STORED_SHARE)


def rates_of_ab(rates: ErrorRates) -> ErrorRates:
    """The error rates of A/B after stored figures."""
    return replace(rates, wrong_pass=rates.wrong_pass * (1 - STORED_SHARE))


def is_open(judged: Judgement) -> bool:
    """Whether A/B is to decide: stored figures did not, or suspect a slowdown. Not under a debugger."""
    return judged.verdict in ("INCONCLUSIVE", "NO-BASELINE", "REGRESSION") and judged.voided != "watched"


def same_software(judged: Judgement, record: CaseRecord, stored: StoredCase | None, recorded: Software | None) -> bool:
    """Whether a case was measured with the very software that its newest stored figures were, driver included.

    Where nothing is stored of the case, the recipe's software counts; where what is stored differs in more, nothing.
    """
    if record.software is None or judged.voided:
        return False
    identity = record.software.identity
    if stored is None:
        return recorded is not None and identity == recorded.identity
    if judged.comparison is None:
        return False
    newest = stored.comparable_sessions(str(judged.item.workload))[-1]
    return identity == newest.software and stored.device.detail == record.device.detail


def decided_by_identity(judged: Judgement) -> Judgement:
    """PASS, since the same software cannot have become slower; what was seen is the machine's doing."""
    comparison = judged.comparison
    if comparison is None:
        meanwhile = f"nothing stored shows how fast it was on this machine ({judged.reason})"
    else:
        how = percent_slower(comparison.deciding.ratio)
        meanwhile = f"this machine is {how} than when it was stored, which is the machine's doing"
    reason = f"the same software as the baseline's, to the byte; {meanwhile}"
    return replace(judged, verdict="PASS", reason=reason, step="identity")


def decided_by_ab(stored: Judgement, ab: Judgement) -> Judgement:
    """What A/B says, which has the last word, beside what stored figures said."""
    ratio = "" if stored.comparison is None else f" at {stored.comparison.deciding.ratio:.3f}"
    reason = f"{ab.reason}; stored figures: {stored.verdict}{ratio}"
    return replace(ab, reason=reason, step="ab", stored=stored.stored)


def undecided_by_ab(stored: Judgement, why: str) -> Judgement:
    """What stored figures say, where A/B could not be asked."""
    return replace(stored, reason=f"{stored.reason}; {NOT_ASKED}: {why}")
