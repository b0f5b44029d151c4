"""Hypothesis strategies that make baselines."""

from __future__ import annotations

from hypothesis import strategies as st

from pytest_rwkvperf.core.cases import Case
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.machine.fingerprint import Fingerprint
from pytest_rwkvperf.stats.estimates import MAX_NANOSECONDS
from pytest_rwkvperf.store.baseline import Baseline, BaselineEntry, StoredCase

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
NUMBERS = st.integers(1, 10_000)
TIMES = st.lists(st.lists(st.integers(1, MAX_NANOSECONDS), min_size=1, max_size=3).map(tuple), min_size=1, max_size=3)
DEVICES = st.builds(Device, TEXT, TEXT, st.sampled_from(["cpu", "gpu", "software"]), TEXT)
SESSIONS = st.builds(
    BaselineEntry,
    TEXT,
    st.dictionaries(TEXT, TEXT, max_size=2),
    NUMBERS,
    st.floats(0, 1e6),
    st.floats(0, 1),
    st.dictionaries(st.sampled_from(["pp512", "tg128", "tg128@d64"]), TIMES.map(tuple), max_size=2),
)
STORED = st.builds(
    StoredCase,
    st.builds(Case, TEXT, TEXT, TEXT, TEXT, NUMBERS, NUMBERS),
    TEXT,
    DEVICES,
    st.lists(SESSIONS, max_size=3).map(tuple),
)
MACHINES = st.builds(Fingerprint, TEXT, TEXT, TEXT, TEXT, NUMBERS, NUMBERS, st.lists(TEXT, max_size=2).map(tuple))


@st.composite
def baselines(draw: st.DrawFn) -> Baseline:
    cases = draw(st.lists(STORED, max_size=3))
    return Baseline(draw(MACHINES), cases={stored.case.key: stored for stored in cases})
