"""What CUPTI recorded as figures: intervals joined and cut, names, and what is said where there is nothing to tell."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_rwkvperf.core.errors import DeviceError
from pytest_rwkvperf.machine import cupti, cupti_buffers
from pytest_rwkvperf.machine.cupti import DeviceTime, KernelTime, Recorded, Recorder, readable, summed, union
from pytest_rwkvperf.machine.cupti_buffers import Activity
from tests.scripted.with_cupti.cupti import cupti as fake

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_rwkvperf.core.engine import Engine

INTERVALS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12)


def cells(intervals: list[tuple[int, int]]) -> set[int]:
    return {cell for start, end in intervals for cell in range(start, end)}


# Intervals


@given(INTERVALS)
def test_a_union_is_as_long_as_the_cells_it_covers(intervals: list[tuple[int, int]]) -> None:
    assert union(intervals) == len(cells(intervals))


@given(INTERVALS, INTERVALS)
def test_a_union_has_no_order_and_no_doubles_and_grows(
    some: list[tuple[int, int]], more: list[tuple[int, int]]
) -> None:
    assert union([*some, *more, *some]) == union([*more, *some])
    assert max(union(some), union(more)) <= union([*some, *more]) <= union(some) + union(more)


# Figures

KERNELS = (
    Activity("before", 1, 100, 1),
    Activity("long", 90, 300, 2),  # begins before the repetition
    Activity("short", 250, 310, 3),  # beside it, in another stream
    Activity("short", 400, 410, 4),
    Activity("[copy]", 410, 430, 4),
    Activity("[fill]", 500, 501, 5),
    Activity("long", 980, 1200, 6),
    Activity("after", 1000, 1300, 7),
)


def test_activities_are_cut_at_the_repetitions_edges() -> None:
    assert summed(Recorded(KERNELS, (100, 1000), 950), 16) == DeviceTime(
        tokens=16,
        wall_nanoseconds=950,
        busy_nanoseconds=(310 - 100) + 30 + 1 + 20,
        kernels=4,
        copies=2,
        launches=5,
        longest=(KernelTime("long", 2, 430), KernelTime("short", 2, 70), KernelTime("[copy]", 1, 20),
                 KernelTime("[fill]", 1, 1)),
    )  # fmt: skip


@given(st.lists(st.builds(Activity, st.sampled_from("abc"), st.integers(1, 99), st.integers(1, 99), st.integers(0, 5))))
def test_a_device_is_never_busier_than_the_repetition_is_long(activities: list[Activity]) -> None:
    recorded = Recorded(tuple(activities), (20, 80), 60)
    try:
        found = summed(recorded, 1)
    except DeviceError:
        assert not [one for one in activities if one.start < 80 and one.end > 20]
    else:
        assert 0 <= found.busy_nanoseconds <= 60
        assert 1 <= found.launches <= found.kernels + found.copies <= len(activities)


def test_only_the_longest_names_are_told() -> None:
    many = tuple(Activity(f"kernel{index}", 1, 2 + index, index) for index in range(40))
    assert [one.name for one in summed(Recorded(many, (1, 99), 98), 1).longest] == [
        f"kernel{index}" for index in range(39, 39 - cupti.KEPT, -1)
    ]


@pytest.mark.parametrize(
    ("activities", "told"),
    [
        ((), "recorded nothing in the repetition, and 0 activities outside"),
        (KERNELS[:1], "recorded nothing in the repetition, and 1 activities outside"),
        ((*KERNELS, Activity("untimed", 0, 0, 8)), "could not time 1 of the device's 9 activities"),
    ],
)
def test_no_figure_is_made_of_what_was_not_recorded(activities: tuple[Activity, ...], told: str) -> None:
    with pytest.raises(DeviceError, match=told):
        summed(Recorded(activities, (100, 1000), 900), 1)


# Names


@pytest.mark.skipif(sys.platform != "linux", reason="the C++ library goes by other names elsewhere")
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("_Z13mul_mat_vec_qIL9ggml_type12ELi1ELb0EEvPKvS2_S2_Pf", "mul_mat_vec_q<(ggml_type)12, 1, false>"),
        ("_Z5firstIiEvPKv", "first<int>"),
        ("_Zbroken", "_Zbroken"),
    ],
)
def test_names_are_as_the_source_has_them(name: str, told: str) -> None:
    assert readable(name) == told


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("rwkv_wkv7_f32", "rwkv_wkv7_f32"),
        ("[copy]", "[copy]"),
        ("void kernel<(E)1>(int (*)(float), char)", "kernel<(E)1>"),
        ("unbalanced)", "unbalanced)"),
        ("", ""),
        ("t" * 200, "t" * 119 + "…"),
    ],
)
def test_names_without_mangling_lose_their_arguments_alone(name: str, told: str) -> None:
    assert readable(name) == told


@given(st.text())
def test_any_name_is_readable(name: str) -> None:
    assert len(readable(name)) <= 120
    assert len(readable(f"_Z{name}".replace("\0", ""))) <= 120


# The package


class Idle:
    """An engine that computes nothing."""

    vocabulary = 7

    def synchronise(self) -> None:
        """Nothing is queued."""


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The one that stands for NVIDIA's; nothing stays on in it."""
    monkeypatch.setattr(cupti, "import_module", lambda _name: fake)
    monkeypatch.setattr(cupti, "_recorder", Recorder)
    fake._stamps.clear()
    yield monkeypatch
    assert fake._enabled == set()


def engine() -> Engine:
    return cast("Engine", Idle())


def waited_for(watched: Engine) -> int:
    """A repetition."""
    watched.synchronise()
    return 1


def test_the_repetition_after_the_settling_ones_is_recorded(package: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**12, 2 * 10**12, 10**6))
    package.setattr("time.perf_counter_ns", lambda: next(clock))
    seen = []

    def repeat(watched: Engine) -> int:
        seen.append(watched.vocabulary)
        watched.synchronise()
        return 900_000

    recorded = cupti.record(engine(), repeat, settling=2)
    assert seen == [7, 7, 7]
    assert recorded.window == (10**12 + 2 * 10**6, 10**12 + 3 * 10**6), "the settling ones had the first two stamps"
    found = summed(recorded, 16)
    assert (found.busy_nanoseconds, found.kernels, found.copies, found.launches) == (500_000, 2, 1, 2)


def test_an_engines_error_is_passed_on_and_cupti_is_off(package: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    def fails(_watched: Engine) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cupti.record(engine(), fails, settling=0)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("refuse@activity_register_callbacks", r"refused activity_register_callbacks: ERROR_INSUFFICIENT_PRIVILEGES"),
        ("refuse@activity_enable", r"PRIVILEGES \(35\); let users profile \(the driver's option NVreg_Restrict"),
        (
            "absent",
            "cupti-python is not supported: CUPTI has no cuptiActivityGetNextRecord; install one that is: pip",
        ),
        (
            "strange@cuptiActivityGetNextRecord",
            r"^CUPTI's records cannot be read: cuptiError: ERROR_INVALID_PARAMETER \(1\); install one that is",
        ),
    ],
)
def test_what_cupti_refuses_is_said(package: pytest.MonkeyPatch, script: str, told: str) -> None:
    package.setenv("SCRIPTED_CUPTI", script)
    with pytest.raises(DeviceError, match=told):
        cupti.record(engine(), waited_for, settling=0)


def test_a_buffer_that_there_is_no_memory_for_is_said(package: pytest.MonkeyPatch) -> None:
    package.setattr(cupti_buffers, "BUFFER_BYTES", 1 << 60)
    with pytest.raises(DeviceError, match=r"^CUPTI's records need 64 MiB of memory; end other processes"):
        cupti.record(engine(), waited_for, settling=0)


def test_a_buffer_that_comes_back_is_used_again(package: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    recorder = Recorder()
    buffers = recorder._buffers
    with recorder:
        for _ in range(3):
            recorder.now()
            recorder.now()
            recorder.forget()
            assert (len(buffers._lent), len(buffers._free)) == (0, 1)


def test_ctrl_c_while_records_are_read_is_not_lost(package: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> Activity:
        raise KeyboardInterrupt

    package.setattr(cupti_buffers._Layout, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cupti.record(engine(), waited_for, settling=0)


def test_a_kernel_without_a_name_is_told_as_one() -> None:
    assert cupti_buffers._name(0, {}) == "[unnamed]"


def test_a_kind_of_record_that_is_laid_out_otherwise_is_refused(package: pytest.MonkeyPatch) -> None:
    package.delattr(fake, "activity_memset4_dtype")
    with pytest.raises(DeviceError, match=r"not supported: .*has no activity_memset\(\\d\+\)_dtype"):
        Recorder()


def test_another_package_of_that_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupti, "import_module", lambda _name: SimpleNamespace())
    with pytest.raises(DeviceError, match=r"this version of cupti-python is not supported: .*has no "):
        Recorder()


def test_a_package_that_cannot_be_imported_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_name: str) -> None:
        raise ImportError("libcupti.so.13: cannot open shared object file")

    monkeypatch.setattr(cupti, "import_module", broken)
    with pytest.raises(DeviceError, match=r"cupti-python cannot be imported: libcupti.so.13: cannot open"):
        Recorder()


def test_without_the_package_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupti, "find_spec", lambda _name: None)
    assert not cupti.installed()
