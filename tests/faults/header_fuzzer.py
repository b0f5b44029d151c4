"""Fuzz the header readers of `.st` and `.gguf`: none hangs, crashes, or allocates more than the file's size.

    python tests/faults/header_fuzzer.py --examples 10000

Half of the inputs are whole files with damage, half are built from the formats' grammar with false counts, lengths
and types. A reader must end within 5 s, with a model or with a ModelError that names the file; Python's and NumPy's
allocations (tracemalloc) must stay under the file's size and 64 KiB, which the interpreter's own objects need for the
smallest file. The process has 4 GiB of address space (RLIMIT_AS), which also limits allocations that
tracemalloc cannot see.
"""

from __future__ import annotations

import argparse
import json
import signal
import struct
import sys
import tempfile
import time
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st

from pytest_rwkvperf.core.errors import ModelError
from pytest_rwkvperf.models import derive, gguf, gguf_header
from pytest_rwkvperf.models import st as safetensors
from pytest_rwkvperf.models.shapes import Shape
from pytest_rwkvperf.models.synthetic import SyntheticModel

if TYPE_CHECKING:
    from collections.abc import Callable

TINY = Shape(layers=2, width=64, rank_w=16, rank_a=24, rank_v=8, rank_g=40, vocabulary=128)
ADDRESS_SPACE = 4 << 30
HANG_SECONDS = 5.0
SLACK = 64 << 10
"""Bytes that a reader may hold whatever the file's size is."""

READERS: dict[str, Callable[[Path], object]] = {"st": safetensors.read_header, "gguf": gguf_header.read_header}

_SIZES = st.one_of(
    st.integers(0, 300),
    st.sampled_from([2**k + d for k in (8, 16, 24, 31, 32, 40, 63) for d in (-1, 0, 1)]),
    st.sampled_from([2**64 - 1, 2**64 - 24, 10**9]),
)
_NAMES = st.text(max_size=80) | st.sampled_from(
    [
        "emb.weight", "blocks.0.att.r_k", "blocks.9999.att.w1", "blocks.0.att.w1", "token_embd.weight", "output.weight",
        "blk.0.time_mix_w1.weight", "blk.9999.channel_mix_key.weight", "__metadata__", "",
    ]
)  # fmt: skip


_TEXT, _ARRAY = 8, 9  # .gguf's numbers of these types


def u32(value: int) -> bytes:
    """Little-endian, cut to 32 bits."""
    return struct.pack("<I", value % 2**32)


def u64(value: int) -> bytes:
    """Little-endian, cut to 64 bits."""
    return struct.pack("<Q", value % 2**64)


def _text(value: str) -> bytes:
    data = value.encode(errors="replace")
    return u64(len(data)) + data


@st.composite
def gguf_values(draw: st.DrawFn, kinds: range = range(14)) -> bytes:
    """A typed value: scalar, text, array, or an invalid type."""
    kind = draw(st.sampled_from(kinds))
    widths = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    if kind == _TEXT:
        return u32(kind) + draw(st.one_of(_NAMES.map(_text), _SIZES.map(u64)))
    if kind == _ARRAY:
        inner = draw(st.sampled_from([0, 4, 8, 9, 12, 99]))
        count = draw(_SIZES)
        body = (
            b"".join(_text(draw(_NAMES)) for _ in range(min(count, 5)))
            if inner == _TEXT
            else draw(st.binary(max_size=64))
        )
        return u32(kind) + u32(inner) + u64(count) + body
    return u32(kind) + draw(st.binary(min_size=widths.get(kind, 0), max_size=widths.get(kind, 9)))


@st.composite
def gguf_files(draw: st.DrawFn) -> bytes:
    """Magic, version, counts that may be false, keys, tensors, and some data."""
    keys = draw(st.lists(st.tuples(_NAMES, gguf_values()), max_size=8))
    tensors = draw(st.lists(st.tuples(_NAMES, st.lists(_SIZES, max_size=5), _SIZES, _SIZES), max_size=12))
    counts = draw(st.one_of(st.just((len(tensors), len(keys) + 1)), st.tuples(_SIZES, _SIZES)))
    out = b"GGUF" + u32(draw(st.sampled_from([1, 2, 3, 3, 3, 4]))) + u64(counts[0]) + u64(counts[1])
    out += _text("general.architecture") + u32(8) + _text("rwkv7")
    out += b"".join(_text(name) + value for name, value in keys)
    for name, dims, kind, offset in tensors:
        out += _text(name) + u32(len(dims)) + b"".join(map(u64, dims)) + u32(kind % 40) + u64(offset)
    return out + bytes(draw(st.sampled_from([0, 100, 100_000])))


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), _SIZES, st.integers(-5, 5), st.floats(allow_nan=False), _NAMES),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_NAMES, inner, max_size=4)),
    max_leaves=12,
)
_ENTRIES = st.fixed_dictionaries(
    {"dtype": st.sampled_from(["F16", "BF16", "F32", "I8"]), "shape": st.lists(_SIZES, max_size=9)},
    optional={"data_offsets": st.lists(_SIZES, min_size=1, max_size=3), "x": _JSON},
)


@st.composite
def st_files(draw: st.DrawFn) -> bytes:
    """A length that may be false, a header of entries or of any JSON, and some data."""
    header = draw(st.one_of(st.dictionaries(_NAMES, st.one_of(_ENTRIES, _JSON), max_size=8), _JSON))
    text = json.dumps(header).encode(errors="replace")
    text *= draw(st.sampled_from([1, 1, 1, 0, 50]))
    length = draw(st.one_of(st.just(len(text)), _SIZES))
    return u64(length) + text + bytes(draw(st.sampled_from([0, 1000, 16 * len(text) + 16])))


@st.composite
def damaged(draw: st.DrawFn, whole: bytes, header: int) -> bytes:
    """A valid file with a few changed bytes or numbers, sometimes truncated."""
    raw = bytearray(whole)
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, header - 1))
        change = draw(st.one_of(st.binary(min_size=1, max_size=1), _SIZES.map(u32), _SIZES.map(u64)))
        raw[at : at + len(change)] = change
    return bytes(raw[: draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))])


@dataclass(slots=True)
class Tally:
    """The results so far; `largest_share` is the largest peak as a share of the allowed bytes."""

    inputs: int = 0
    models: int = 0
    refused: int = 0
    largest_peak_bytes: int = 0
    largest_share: float = 0.0
    slowest_seconds: float = 0.0
    seconds: float = 0.0


def read_counted(kind: str, path: Path, tally: Tally) -> None:
    """Read one header and count its allocations. Any exception but a ModelError is a crash and propagates."""
    tracemalloc.start()
    started = time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, HANG_SECONDS)
    message = path.name
    try:
        READERS[kind](path)
        tally.models += 1
    except ModelError as error:
        message = str(error)
        tally.refused += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert path.name in message, f"the file is not named: {message}"
    allowed = path.stat().st_size + SLACK
    assert peak <= allowed, f"{peak} bytes were allocated for a file of {path.stat().st_size}"
    tally.inputs += 1
    tally.largest_peak_bytes = max(tally.largest_peak_bytes, peak)
    tally.largest_share = max(tally.largest_share, peak / allowed)
    tally.slowest_seconds = max(tally.slowest_seconds, time.perf_counter() - started)


def fuzz(kind: str, folder: Path, examples: int, number: int) -> Tally:
    """Read examples, half of them damaged files, half built from the grammar."""
    whole = folder / f"whole.{kind}"
    gguf.world_tokens = lambda: (b"<s>", b"a", b"b")  # type: ignore[assignment]  # a vocabulary that fits the tiny model
    derive.write(SyntheticModel("tiny", TINY), whole, kind, "tiny", lambda *_: None)  # type: ignore[arg-type]
    raw = whole.read_bytes()
    header = 8 + struct.unpack("<Q", raw[:8])[0] if kind == "st" else header_bytes(whole)
    READERS[kind](whole)  # so that its imports are not counted
    tally, path, started = Tally(), folder / f"input.{kind}", time.perf_counter()

    def read(data: bytes) -> None:
        path.write_bytes(data)
        read_counted(kind, path, tally)

    for strategy in (damaged(raw, header), st_files() if kind == "st" else gguf_files()):
        checks = settings(
            max_examples=examples // 2,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            verbosity=Verbosity.quiet,
            suppress_health_check=list(HealthCheck),
        )
        checks(seed(number)(given(strategy)(read)))()
    tally.seconds = time.perf_counter() - started
    return tally


def header_bytes(path: Path) -> int:
    """The offset of the first tensor."""
    return min(tensor.start for tensor in gguf_header.read_header(path).tensors.values())


def hang(_number: int, _frame: object) -> NoReturn:
    """End a reader that takes too long."""
    raise TimeoutError(f"a reader took longer than {HANG_SECONDS} s")


def limit_memory() -> None:
    """Limit the address space, where the system can."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))


def main() -> None:
    """Fuzz both readers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=10_000, help="inputs for each reader; default 10000")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    limit_memory()
    signal.signal(signal.SIGALRM, hang)
    with tempfile.TemporaryDirectory(prefix="rwkvperf-fuzz-") as folder:
        for kind in READERS:
            tally = fuzz(kind, Path(folder), options.examples, options.seed)
            print(
                f".{kind}: {tally.inputs} inputs, {tally.refused} refused, {tally.models} models, largest peak "
                f"{tally.largest_peak_bytes} bytes ({tally.largest_share:.0%} of what was allowed), slowest "
                f"{tally.slowest_seconds:.3f} s, {tally.seconds:.0f} s in all",
                flush=True,
            )


if __name__ == "__main__":
    main()
