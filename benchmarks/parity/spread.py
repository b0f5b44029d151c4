"""The distance of correct answers from the oracle's: the parity table, and the figures that the bounds are based on.

    python benchmarks/parity/spread.py                                   # nano, five seeds, every engine and quant
    python benchmarks/parity/spread.py --shape 0.1b --seeds 1-2 --backend rwkv,llama-cpp
    python benchmarks/parity/spread.py --seeds 6-50 --quant fp32,bf16,fp16,f16,q8_0 --short
    python benchmarks/parity/spread.py --backend llama-cpp --quant f16 --device vulkan:0 --short
    python benchmarks/parity/spread.py --table                           # print the recorded results

Every figure comes from the check that runs before a measurement, in a worker process. Results are added to
`spread.json` (one entry per backend, quant, shape and seed; a newer one replaces an older), and `spread.md` is
rewritten. Files and logits are in a temporary folder, for one model at a time. On a software graphics driver the deep
check runs on nano only: on other shapes it takes a quarter of an hour.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bench
import msgspec

from pytest_rwkvperf.backends import registry
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.oracle import bounds
from pytest_rwkvperf.oracle.agreement import Deep, Short

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_rwkvperf.core.engine import DeviceKind
    from pytest_rwkvperf.oracle.bounds import Bound

RESULTS = Path(__file__).with_suffix(".json")
TABLE = Path(__file__).with_suffix(".md")
BACKENDS = (*bench.REAL_BACKENDS, "reference")
SHAPES = ("nano", "0.1b", "0.4b", "1.5b", "2.9b", "7.2b", "13.3b")


def measure(engine: bench.Engine, quant: str, shape: str, seed: int, *, deep: bool) -> dict[str, Any]:
    """One entry: an engine's figures on one model."""
    model = bench.model(shape, seed)
    deep_too = deep and (shape == "nano" or engine.device.kind != "software")
    file = bench.file_of(model, engine, quant)
    wanted = bench.right_answers(file, engine, quant, deep=deep_too)
    started = time.monotonic()
    short, found = bench.answers(engine, quant, file.path, wanted)
    if engine.backend.file_quant(quant) not in {None, "f16"}:
        file.path.unlink()  # another quant's file is as large, and nothing else needs this one
    return {
        "backend": engine.backend.name,
        "quant": quant,
        "shape": shape,
        "seed": seed,
        "device": engine.device.name,
        "device_id": engine.device.id,
        "kind": engine.device.kind,
        "versions": dict(engine.versions),
        "seconds": round(time.monotonic() - started, 1),
        "short": asdict(short),
        "deep": asdict(found) if found else None,
    }


def record(entries: Sequence[dict[str, Any]], *, here: bool = True) -> list[dict[str, Any]]:
    """Add entries, measured here or elsewhere, to the results; returns all of them."""
    held = recorded()
    for entry in entries:
        held[_key(entry)] = entry
    order = sorted(held, key=_order)
    everything = [held[key] for key in order]
    lines = ",\n".join(json.dumps(entry) for entry in everything)
    taken = bench.conditions() if entries and here else json.loads(RESULTS.read_text(encoding="utf-8"))["conditions"]
    text = f'{{"conditions": {json.dumps(taken)},\n"entries": [\n{lines}\n]}}\n'
    RESULTS.write_text(text, encoding="utf-8")
    TABLE.write_text(table(everything), encoding="utf-8")
    return everything


def recorded() -> dict[tuple[str, str, str, int, str], dict[str, Any]]:
    """Entries by backend, quant, shape, seed, and kind and interface of the device."""
    if not RESULTS.exists():
        return {}
    return {_key(entry): entry for entry in json.loads(RESULTS.read_text(encoding="utf-8"))["entries"]}


def _key(entry: dict[str, Any]) -> tuple[str, str, str, int, str]:
    place = _device_of(entry).id.partition(":")[0]
    return entry["backend"], entry["quant"], entry["shape"], entry["seed"], f"{_place_of(entry)} {place}"


def _place_of(entry: dict[str, Any]) -> DeviceKind:
    """The oldest entries have no kind; then web-rwkv always ran on a software driver."""
    kind: DeviceKind = entry.get("kind", "software" if entry["backend"] == "web-rwkv" else "cpu")
    return kind


def _device_of(entry: dict[str, Any]) -> Device:
    """The oldest entries have no id; then llama.cpp had CUDA."""
    kind = _place_of(entry)
    default = "cpu" if kind == "cpu" else "vulkan:0" if entry["backend"] == "web-rwkv" else "cuda:0"
    return Device(entry.get("device_id", default), entry["device"], kind)


def _order(key: tuple[str, str, str, int, str]) -> tuple[object, ...]:
    quant, _, variant = key[1].partition("@")
    known = registry.load(registry.BUILT_IN[key[0]]).quants
    return (
        key[4].startswith("gpu"),
        BACKENDS.index(key[0]),
        key[4],
        known.index(quant),
        variant,
        SHAPES.index(key[2]),
        key[3],
    )


def table(entries: Iterable[dict[str, Any]]) -> str:
    """The parity table, in Markdown."""
    groups: dict[tuple[str, str, str, str], list[dict[str, Any]]] = {}
    for entry in entries:
        groups.setdefault((entry["backend"], entry["quant"], _where(entry), entry["shape"]), []).append(entry)
    lines = [_HEAD]
    lines += [_line(group) for group in groups.values()]
    return "\n".join(lines) + "\n"


def _where(entry: dict[str, Any]) -> str:
    """The device's name; `CPU` for every CPU, because their kernels are the same."""
    device = _device_of(entry)
    name = device.name.partition(" (")[0]
    through = " Vulkan" if device.kind == "gpu" and entry["backend"] == "llama-cpp" and "vulkan" in device.id else ""
    return "CPU" if device.kind == "cpu" else name + through


def bounds_from(entries: Iterable[dict[str, Any]]) -> str:
    """The lines of the table in `oracle/bounds.py`, by its rule applied to the results."""
    largest: dict[tuple[str, str, str], float] = {}
    for entry in entries:
        key = entry["backend"], entry["quant"].partition("@")[0], _where(entry)
        largest[key] = max(largest.get(key, 0.0), *(pair["relative_l2"] for pair in _pairs(entry)))
    lines = [f'    ("{key[0]}", "{key[1]}"): Bound({_up(3 * found)}),  # {key[2]}' for key, found in largest.items()]
    return "\n".join(lines)


def _up(value: float) -> str:
    """Rounded up to two digits."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return f"{math.ceil(value / unit) * unit:.2g}"


_HEAD = """# Parity with the oracle

Made by `spread.py` on synthetic models; every figure is in `spread.json`. Median / largest over the seeds of the
relative L2 between an engine's logits and the oracle's, which computes with the same quantized weights. *Passed*: seeds
that the bounds in `pytest_rwkvperf/oracle/bounds.py` let pass, of those run; *used*: the largest figure over its bound.

| engine | quant | device | shape | passed | prefill 32 | last 8 decoded | prefill 600 | other chunks | top KL | used |
|---|---|---|---|--:|--:|--:|--:|--:|--:|--:|"""


def _line(group: Sequence[dict[str, Any]]) -> str:
    backend, quant, shape = (group[0][name] for name in ("backend", "quant", "shape"))
    bound = bounds.bound_for(backend, quant, _device_of(group[0]))
    pairs = [pair for entry in group for pair in _pairs(entry)]
    largest_kl = max(pair["kl"] for pair in pairs)
    used = max(max(pair["relative_l2"] for pair in pairs) / bound.relative_l2, largest_kl / bound.kl)
    deep = [entry["deep"] for entry in group if entry["deep"]]
    cells = [
        _both([entry["short"]["prefill"]["relative_l2"] for entry in group]),
        _both([entry["short"]["generation"]["relative_l2"] for entry in group]),
        _both([found["prefill"]["relative_l2"] for found in deep]),
        _both([found["rechunked"] for found in deep]),
    ]
    passed = f"{sum(_passes(entry, bound) for entry in group)} of {len(group)}"
    return (
        f"| {backend} | {quant} | {_where(group[0])} | {shape} | {passed} | {' | '.join(cells)} | {largest_kl:.1e} "
        f"| {used:.0%} |"
    )


def _passes(entry: dict[str, Any], bound: Bound) -> bool:
    short = msgspec.convert(entry["short"], type=Short)
    deep = msgspec.convert(entry["deep"], type=Deep) if entry["deep"] else None
    return not (bounds.broken_short(short, bound) or (deep and bounds.broken_deep(deep, bound)))


def _pairs(entry: dict[str, Any]) -> list[dict[str, Any]]:
    deep = [entry["deep"]["prefill"]] if entry["deep"] else []
    return [entry["short"]["prefill"], entry["short"]["generation"], *deep]


def _both(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1e} / {max(values):.1e}" if values else "not run"


def main() -> None:
    """Measure what the command line names and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="nano", choices=SHAPES)
    parser.add_argument("--seeds", default="1-5", help="FIRST-LAST, or LAST alone")
    parser.add_argument("--backend", default=",".join(BACKENDS))
    parser.add_argument("--quant", default="", help="only these, of each backend that knows them")
    parser.add_argument("--device", default="", help="an id as the engine lists it; default: its best")
    parser.add_argument("--short", action="store_true", help="without the deep check")
    parser.add_argument("--bounds", action="store_true", help="print the bounds that follow from what is recorded")
    parser.add_argument(
        "--add", type=Path, nargs="*", default=[], help="entries measured elsewhere, lists of them in JSON"
    )
    parser.add_argument("--table", action="store_true", help="judge what is recorded anew and print it")
    options = parser.parse_args()
    if options.bounds:
        print(bounds_from(recorded().values()))
        return
    if options.add:
        record([entry for path in options.add for entry in json.loads(path.read_text(encoding="utf-8"))], here=False)
    if options.table or options.add:
        print(table(record([])))
        return
    only = [quant for quant in options.quant.split(",") if quant]
    first, _, last = options.seeds.rpartition("-")
    for seed in range(int(first or 1), int(last) + 1):
        with bench.temporary_cache():
            for name in options.backend.split(","):
                engine = bench.engine(name, options.device)
                for quant in engine.backend.quants:
                    if not only or quant in only:
                        entry = measure(engine, quant, options.shape, seed, deep=not options.short)
                        record([entry])
                        print(name, quant, options.shape, seed, entry["short"], entry["deep"], flush=True)
    print(table(record([])))


if __name__ == "__main__":
    main()
