"""Check the gate itself: an unchanged engine passes against its saved baseline, one that takes twice as long fails.

The slowdown is added by a backend that is installed through the entry point for third parties: the plugin itself is
unchanged.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pytest_rwkvperf.backends import registry
from pytest_rwkvperf.certify.trials import UNCHANGED_FACTOR, trials
from pytest_rwkvperf.reports.figures import item_name
from pytest_rwkvperf.verdict.reasons import changed

if TYPE_CHECKING:
    from pytest_rwkvperf.store.record import Record

# Smaller than the planted slowdown, larger than the variation of a shared machine.
TOLERANCE = "--rwkv-tolerance=40%"
# One thread, as the documentation advises: then the placement of virtual processors does not matter.
CASE = ("--rwkv-quant=f16", "--rwkv-threads=1", "--rwkv-workload=pp128,tg32", TOLERANCE)
# Where noise hides the answer, the plugin advises a larger budget; the second try follows that advice.
BUDGETS_SECONDS = (60, 240)


def is_right(title: str, done: Record, exit_status: int, some: str, never: tuple[str, ...]) -> bool:
    """Whether a run ended with a status, some of its verdicts are one and none others; printed with what failed."""
    verdicts = [str(item.verdict) for _, item in done.items()]
    good = done.exit_status == exit_status and some in verdicts and not {*never, "INVALID"} & {*verdicts}
    how = "" if good else ", NOT as expected"
    print(f"{title}: exit {done.exit_status} after {done.seconds:.0f} s, {', '.join(verdicts)}{how}")
    for case, item in done.items():
        if item.fails:
            change = changed(item.comparison, item.rate, item.baseline, item.tolerance)
            print(f"  FAILED {change} {item_name(case, item)}: {item.reason}")
    return good


def gate(budget: int) -> bool:
    """Do the three runs in order with a new baseline; stop at the first that does not end as expected."""
    options = (*CASE, f"--rwkv-budget={budget}")
    with trials(registry.BUILT_IN["llama-cpp"]) as runs:
        return (
            is_right("saving a baseline", runs.save_baseline(*options), 0, "NO-BASELINE", ())
            and is_right(
                "comparing the unchanged engine",
                runs.run(UNCHANGED_FACTOR, *options)[0],
                0,
                "PASS",
                ("NO-BASELINE", "REGRESSION"),
            )
            and is_right("comparing an engine that takes twice as long", runs.run(2, *options)[0], 1, "REGRESSION", ())
        )


if __name__ == "__main__":
    sys.exit(0 if any(map(gate, BUDGETS_SECONDS)) else 1)
