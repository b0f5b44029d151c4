"""Reading callgrind's dumps, and which builds of an engine it can execute."""

from __future__ import annotations

import pytest

from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.core.work import Amount
from pytest_rwkvperf.witnesses.instructions import WITHOUT_AVX512, WITNESS, functions

DUMP = """\
# callgrind format
version: 1
positions: line
events: Ir
summary: 100000

ob=/opt/lib/libggml-cpu.so
fl=ggml.c
fn=_ZN4tiny4gemmIiEEvi
12 60000
fi=simd.h
13 9000
cob=/usr/lib/libm.so.6
cfn=expf
calls=7 0
14 2000

ob=/usr/lib/libm.so.6
fl=expf.c
fn=expf
5 1990
fn=rare'2
6 10

ob=/usr/lib/libpython3.11.so
fl=ceval.c
fn=_PyEval_EvalFrameDefault
9 27000
"""


def test_each_function_has_its_own_instructions() -> None:
    """Without those of what it calls, and without the interpreter's; rare functions are added up."""
    assert functions(DUMP.splitlines()) == {
        "tiny::gemm<int> libggml-cpu.so": Amount(69000),
        "expf libm.so.6": Amount(1990),
        "others": Amount(10),
    }


@pytest.mark.parametrize(
    ("account", "twin"),
    [
        ("CPU : AVX2 = 1 | AVX512 = 1 | FMA = 1 |", True),
        ("CPU : AVX2 = 1 | AVX512 = 0 | FMA = 1 |", False),
        ("", False),
    ],
)
def test_a_build_with_avx_512_needs_a_twin(account: str, twin: bool) -> None:  # noqa: FBT001 - a parameter
    """valgrind does not execute AVX-512."""
    assert WITNESS.build_variables(account) == (WITHOUT_AVX512 if twin else {})


def test_a_short_part_is_counted() -> None:
    """callgrind is slow, and what a context leaves has one size."""
    assert str(WITNESS.part(Workload("prefill", 512, 4096), 512)) == "pp32"
    assert str(WITNESS.part(Workload("prefill", 512), 16)) == "pp16"
    assert str(WITNESS.part(Workload("generation", 128), 512)) == "tg4"


def test_it_counts_on_processors_alone() -> None:
    """Not the code of a GPU."""
    assert WITNESS.suits("llama-cpp", Device("cpu", "CPU", "cpu"))
    assert not WITNESS.suits("llama-cpp", Device("cuda:0", "GPU", "gpu"))
    assert not WITNESS.suits("rwkv", Device("cpu", "CPU", "cpu"))
