"""What bounds a decoded token where no profiler looks: its time over models of equal depth and different bytes.

    python benchmarks/gpu/width.py --out width.json
    python benchmarks/gpu/width.py --out width.json --backend web-rwkv,llama-cpp,rwkv --shapes 32x512,32x1024,32x2560

Each model has the same number of layers, so the same dispatches a token, and a width and a format that make it a few
times heavier. A straight line through a format's tokens then tells what does not depend on bytes (the host's work and
the dispatches, at no bytes at all) from what does (the slope is a bandwidth); formats lie on one line where bytes alone
count. The fastest third of the tokens stands beside the median: web-rwkv's runtime makes two tokens of three quick.
Synthetic weights, in a folder of their own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from pytest_rwkvperf.backends import registry
from pytest_rwkvperf.core.cases import Case
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.machine import fingerprint
from pytest_rwkvperf.machine.roofline import work_of
from pytest_rwkvperf.models.model import Model
from pytest_rwkvperf.models.model_store import file_for
from pytest_rwkvperf.models.shapes import SHAPES
from pytest_rwkvperf.models.synthetic import SyntheticModel
from pytest_rwkvperf.run.launcher import lease
from pytest_rwkvperf.worker.parent import IMPORT_SECONDS, SAMPLE_SECONDS, Worker
from pytest_rwkvperf.worker.tools import WorkerTools

if TYPE_CHECKING:
    from collections.abc import Sequence

QUANTS = {
    "web-rwkv": ("fp16", "int8", "nf4"),
    "llama-cpp": ("f16", "q8_0", "q4_k_m"),
    "rwkv": ("fp16@kernels",),
}
WORKLOAD = "tg64"
SPAN_SECONDS = 3.0
"""Tokens are timed for so long at least, after a second that does not count."""


def model_of(shape: str) -> Model:
    """A synthetic model `LAYERSxWIDTH` with nano's ranks. It has no content hash: it stays out of the user's cache.

    Raises:
        SystemExit: no shape that every engine takes.
    """
    found = re.fullmatch(r"(\d{1,3})x(\d{3,5})", shape)
    if found is None or int(found[1]) < 2 or int(found[2]) % 256:  # noqa: PLR2004 - layers after the first have a v0
        raise SystemExit(
            f"{shape!r} is no LAYERSxWIDTH with two layers or more and a width in steps of 256, as 32x1024"
        )
    made = SyntheticModel(shape, replace(SHAPES["nano"], layers=int(found[1]), width=int(found[2])))
    return Model(f"synthetic:{shape}", hashlib.sha256(shape.encode()).hexdigest(), made.shape, made)


def tokens_of(worker: Worker) -> list[float]:
    """Milliseconds of each token but a repetition's first, in order."""
    found: list[float] = []
    for span, counts in ((1.0, False), (SPAN_SECONDS, True)):
        until = time.monotonic() + span
        while time.monotonic() < until or (counts and not found):
            answer = worker.request("sample", SAMPLE_SECONDS, workload=WORKLOAD)
            if counts:
                found += [share / 1e6 for share in answer["token_nanoseconds"][1:]]
    return found


def figures(tokens: Sequence[float]) -> dict[str, float]:
    """Milliseconds of a token: the median, the median of the fastest third, the mean."""
    fastest = sorted(tokens)[: max(1, len(tokens) // 3)]
    return {
        "tokens": len(tokens),
        "median_ms": statistics.median(tokens),
        "fastest_third_ms": statistics.median(fastest),
        "mean_ms": statistics.fmean(tokens),
    }


def lines_of(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """By engine and format, of three models: a token's milliseconds at no bytes, and the slope as a bandwidth."""
    found = []
    for backend, quant in dict.fromkeys((row["backend"], row["quant"]) for row in rows):
        own = [row for row in rows if (row["backend"], row["quant"]) == (backend, quant)]
        if len({row["bytes"] for row in own}) < 3:  # noqa: PLR2004 - through two points there is always a line
            continue
        line = {"backend": backend, "quant": quant}
        for name in ("median_ms", "fastest_third_ms"):
            slope, least = statistics.linear_regression([row["bytes"] for row in own], [row[name] for row in own])
            heaviest = max(own, key=lambda row: row["bytes"])
            line[name] = {
                "at_no_bytes_ms": least,
                "gigabytes_per_second": 1e-6 / slope if slope > 0 else None,
                "share_of_the_heaviest": least / heaviest[name],
            }
        found.append(line)
    return found


def _silent(_sentence: str, _fraction: float) -> None:
    """Nobody is told how far a file is."""


def device_of(name: str, asked: str) -> Device:
    """The engine's best device, or the one that was asked for.

    Raises:
        SystemExit: it has none of that name.
    """
    location = registry.BUILT_IN[name]
    with Worker(environment=registry.load(location).environment(None)) as worker:
        listed = [Device(**one) for one in worker.request("describe", IMPORT_SECONDS, location=location)["devices"]]
    found = next((one for one in listed if asked in {"", one.id}), None)
    if found is None:
        raise SystemExit(f"{name} lists no {asked or 'device'}: it has {', '.join(one.id for one in listed)}")
    return found


def row_of(name: str, quant: str, shape: str, device: Device, folder: Path) -> dict[str, Any]:
    """One model in one engine and format."""
    location, model = registry.BUILT_IN[name], model_of(shape)
    backend = registry.load(location)
    file = file_for(
        model, backend.format, backend.file_quant(quant), tools=WorkerTools(_silent), progress=_silent, cache=folder
    )
    case = Case(name, model.name, quant, device.id, psutil.cpu_count(logical=False) or 1, backend.standard_chunk)
    with lease(device, print), Worker(environment=backend.environment(device.id)) as worker:
        versions = worker.open(location, file.path, case)["versions"]
        tokens = tokens_of(worker)
    work = work_of(model.shape, file, quant, name, device.kind)
    facts = {"backend": name, "quant": quant, "shape": shape, "device": device.name, "versions": versions}
    return {**facts, "bytes": work.decode_bytes if work else None, **figures(tokens)}


def table(rows: Sequence[dict[str, Any]], lines: Sequence[dict[str, Any]]) -> str:
    """Both as text."""
    text = [f"{'engine':<10}{'quant':<14}{'shape':<10}{'MB/token':>9}{'median ms':>11}{'fastest third':>15}{'GB/s':>8}"]
    for row in rows:
        moved = row["bytes"] / row["median_ms"] / 1e6
        text.append(
            f"{row['backend']:<10}{row['quant']:<14}{row['shape']:<10}{row['bytes'] / 1e6:>9.0f}"
            f"{row['median_ms']:>11.3f}{row['fastest_third_ms']:>15.3f}{moved:>8.0f}"
        )
    for line in lines:
        for name, told in (("median_ms", "median"), ("fastest_third_ms", "fastest third")):
            one, rate = line[name], line[name]["gigabytes_per_second"]
            text.append(
                f"{line['backend']} {line['quant']}, {told}: {one['at_no_bytes_ms']:.3f} ms at no bytes, "
                f"{one['share_of_the_heaviest']:.0%} of the heaviest's; "
                + (f"beyond that {rate:.0f} GB/s" if rate else "more bytes take no more time")
            )
    return "\n".join(text)


def main() -> None:
    """Measure, print and write; what there is after each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shapes", default="32x512,32x1024,32x2560")
    parser.add_argument("--backend", default="web-rwkv", help=f"of {', '.join(QUANTS)}, between commas")
    parser.add_argument("--quant", default="", help="formats between commas, of one backend; default: all that count")
    parser.add_argument("--device", default="", help="as the backend names it; default: its best one")
    parser.add_argument("--files", type=Path, help="where the models go; default: width-files beside --out")
    options = parser.parse_args()
    folder = options.files or options.out.absolute().parent / "width-files"
    rows: list[dict[str, Any]] = []
    for name in options.backend.split(","):
        device = device_of(name, options.device)
        for shape in options.shapes.split(","):
            for quant in options.quant.split(",") if options.quant else QUANTS[name]:
                rows.append(row_of(name, quant, shape, device, folder))
                found = {"machine": fingerprint.read().id, "rows": rows, "lines": lines_of(rows)}
                options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
                print(table(rows[-1:], ()).splitlines()[-1], flush=True)
    print(table(rows, lines_of(rows)), flush=True)


if __name__ == "__main__":
    main()
