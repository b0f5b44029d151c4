"""Workload texts, case keys and their cross product."""

from __future__ import annotations

import re
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_rwkvperf.core.cases import Case, Item, Workload, WorkloadKind, cross, disambiguated
from pytest_rwkvperf.core.errors import OptionError

KINDS: tuple[WorkloadKind, ...] = ("prefill", "generation")
WORKLOADS = st.builds(
    Workload,
    st.sampled_from(KINDS),
    st.integers(1, 9_999_999),
    st.integers(0, 9_999_999),
    st.just(1) | st.integers(1, 9_999_999),
)
CASE = Case("llama-cpp", "synthetic:nano", "q8_0", "cpu", 2, 512)
NUMBER = "[1-9][0-9]{0,6}"
GRAMMAR = f"(pp|tg){NUMBER}(@d{NUMBER})?(@b([2-9]|[1-9][0-9]{{1,6}}))?"
ANY_ORDER = f"(pp|tg){NUMBER}(@d{NUMBER})?(@b{NUMBER})?|(pp|tg){NUMBER}@b{NUMBER}@d{NUMBER}"
"""What is read: also the batch before the depth, and @b1."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pp512", Workload("prefill", 512)),
        ("tg128", Workload("generation", 128)),
        ("tg128@d4096", Workload("generation", 128, 4096)),
        (" pp1@d1\n", Workload("prefill", 1, 1)),
        ("tg128@b8", Workload("generation", 128, batch=8)),
        ("tg128@d4096@b32", Workload("generation", 128, 4096, 32)),
        ("tg128@b32@d4096", Workload("generation", 128, 4096, 32)),
        ("pp512@b1", Workload("prefill", 512)),
        ("pp9999999", Workload("prefill", 9_999_999)),
    ],
)
def test_a_workload_is_read_as_llama_bench_writes_it(text: str, expected: Workload) -> None:
    assert Workload.parse(text) == expected


@given(WORKLOADS)
def test_a_workload_survives_a_round_trip(workload: Workload) -> None:
    assert Workload.parse(str(workload)) == workload


@given(st.from_regex(GRAMMAR, fullmatch=True, alphabet=st.characters(codec="ascii")))
def test_a_workload_has_only_one_text(text: str) -> None:
    assert str(Workload.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "pp", "tg", "512", "PP512", "pp0", "tg0", "pp012", "pp-1", "pp+1", "pp1.5", "pp1e3", "pp1_000",
        "pp10000000", "tg128@", "tg128@d", "tg128@d0", "tg128@4096", "tg128@d10000000", "tg128@d1@d1", "pp512,tg128",
        "tg128@b", "tg128@b0", "tg128@b2@b2", "tg128@b10000000", "tg128@d1@b2@d1", "tg128@8", "tg128b8",
        "pp512+tg128", "pg512", "pp 512",
        "pp1\u0662", "pp\uff1512", "tg128@d\u096a",  # digits of other scripts, which Python's int() takes
    ],
)  # fmt: skip
def test_a_malformed_workload_is_refused_and_named(text: str) -> None:
    with pytest.raises(OptionError, match="is not understood; write ppN") as caught:
        Workload.parse(text)
    assert repr(text) in str(caught.value)


@given(
    st.text()
    | st.from_regex(r"(pp|tg)\d{0,9}(@[db]?\d{0,9}){0,3}", fullmatch=True)
    | st.builds("{}{}".format, WORKLOADS, st.text(max_size=2))
)
def test_every_text_is_a_workload_or_refused(text: str) -> None:
    stripped = text.strip()
    assert Workload.is_name(text) == bool(re.fullmatch(GRAMMAR, text))
    if re.fullmatch(ANY_ORDER, stripped):
        assert sorted(str(Workload.parse(text)).split("@")) == sorted(
            part for part in stripped.split("@") if part != "b1"
        )
    else:
        with pytest.raises(OptionError) as caught:
            Workload.parse(text)
        assert repr(text) in str(caught.value)


def test_a_batch_generates_so_many_times_the_tokens() -> None:
    assert Workload("generation", 128, 4096, 8).total_tokens == 1024
    assert Workload("prefill", 512).total_tokens == 512


def test_the_key_contains_every_field_of_a_case() -> None:
    assert CASE.key == "llama-cpp | synthetic:nano | q8_0 | cpu | threads=2 chunk=512"
    other = Case("rwkv", "m.pth", "fp32", "cuda:0", 1, 128, "native", (("ubatch", "8"),))
    changed = [replace(CASE, **{name: value}) for name, value in asdict(other).items()]
    assert len({CASE.key, *(case.key for case in changed)}) == 9


def test_ids_are_readable() -> None:
    assert CASE.label == "llama-cpp-q8_0-cpu"
    assert Item(CASE, Workload("generation", 128, 4096)).id == "llama-cpp-q8_0-cpu-tg128@d4096"


def test_own_settings_are_part_of_key_id_and_variant() -> None:
    case = replace(CASE, settings=(("mmap", "off"), ("ubatch", "128")))
    assert case.key == f"{CASE.key} mmap=off ubatch=128"
    assert replace(case, protocol="native").key == f"{CASE.key} protocol=native mmap=off ubatch=128"
    assert case.label == "llama-cpp-q8_0-cpu-mmap-off-ubatch128"
    assert replace(case, protocol="native").label == "llama-cpp-q8_0-cpu-native-mmap-off-ubatch128"
    assert case.variant == "q8_0 (mmap=off ubatch=128)"
    assert replace(case, protocol="native").variant == "q8_0 (native mmap=off ubatch=128)"


def test_cases_that_differ_only_in_the_chunk_show_it() -> None:
    longer = replace(CASE, chunk=1024, settings=(("ubatch", "64"),))
    shorter = replace(longer, chunk=128)
    shown = disambiguated([CASE, longer, shorter])
    assert [case.label for case in shown.values()] == [
        "llama-cpp-q8_0-cpu",
        "llama-cpp-q8_0-cpu-chunk1024-ubatch64",
        "llama-cpp-q8_0-cpu-chunk128-ubatch64",
    ]


def test_cases_that_differ_only_in_threads_show_them() -> None:
    other = replace(CASE, quant="f16")
    shown = disambiguated([CASE, other, replace(CASE, threads=16), CASE])
    assert [*shown] == [CASE, other, replace(CASE, threads=16)]
    assert [case.label for case in shown.values()] == [
        "llama-cpp-q8_0-cpu-t2",
        "llama-cpp-f16-cpu",
        "llama-cpp-q8_0-cpu-t16",
    ]
    assert disambiguated([CASE, other]) == {CASE: CASE, other: other}


def test_both_protocols_of_a_case_show_their_threads_or_neither_does() -> None:
    native = replace(CASE, protocol="native", chunk=256)
    assert disambiguated([CASE, native]) == {CASE: CASE, native: native}
    shown = disambiguated([CASE, native, replace(CASE, threads=1)])
    assert {case.device for case in shown.values()} == {"cpu-t2", "cpu-t1"}
    assert shown[native].device == "cpu-t2"


def test_the_cross_product_keeps_a_cases_items_together() -> None:
    second = Case("rwkv", "synthetic:nano", "fp32", "cpu", 2, 512)
    prefill, generation = Workload("prefill", 512), Workload("generation", 128)
    items = [Item(case, workload) for case in (CASE, second) for workload in (prefill, generation)]
    assert cross([CASE, second], iter([prefill, generation])) == tuple(items)
    assert cross([], [prefill]) == ()
