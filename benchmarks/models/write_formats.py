"""How fast, and in how much memory, a synthetic model is written in each format, and converted from one to another.

    python benchmarks/models/write_formats.py --shape 2.9b

Each format is written by a process of its own, through the code the plugin uses (temporary file, fsync, rename), in
turns with a plain copy of the very file (read from the page cache, written in 8 MiB blocks, fsync), which is what the
disk can do at that moment. Peak memory is the highest anonymous resident memory of the writing process, sampled every
5 ms: pages of mapped files are the kernel's to drop and do not count. The conversions `.pth` to `.st` and to `.gguf`
are measured likewise, from a file to a file, as the plugin's worker does them. Their time includes reading with torch,
not torch's import, which does not depend on the model. Results go to `write_formats.json` and `.md` beside this script,
one entry per shape.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from pytest_rwkvperf.core.cases import FORMATS, Format
from pytest_rwkvperf.models import cache, derive, synthetic
from pytest_rwkvperf.models.shapes import SHAPES

RESULTS = Path(__file__).with_suffix(".json")
TABLE = Path(__file__).with_suffix(".md")
CONVERTED: tuple[Format, ...] = ("st", "gguf")
COPY_BLOCK = 8 << 20
SAMPLE_SECONDS = 0.005
MIB = 1 << 20


class PeakAnonymous(threading.Thread):
    """Watches this process's resident memory without that of mapped files."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._done = threading.Event()

    def run(self) -> None:
        """Sample until stopped."""
        process = psutil.Process()
        while not self._done.wait(SAMPLE_SECONDS):
            self.peak = max(self.peak, anonymous_bytes(process))

    def stop(self) -> int:
        """The peak, in bytes."""
        self._done.set()
        self.join()
        return self.peak


def anonymous_bytes(process: psutil.Process) -> int:
    """Resident bytes that no file backs; where the system does not tell them apart, all resident bytes."""
    memory = process.memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))


def write_one(shape: str, kind: Format, target: Path, source: Path | None) -> dict[str, float]:
    """Write one file in this process, from a `.pth` if one is named, and say what it took."""
    if source is not None:
        return convert_one(source, kind, target)
    model = synthetic.parse(f"{synthetic.PREFIX}{shape}")
    needed = derive.size_in(kind, model.shape, derive.precision_in(kind, model))
    watch = PeakAnonymous()
    watch.start()
    started = time.perf_counter()
    with cache.replacing(target, needed) as temporary:
        derive.write(model, temporary, kind, model.label, lambda _sentence, _fraction: None)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "bytes": target.stat().st_size, "peak_anonymous_bytes": watch.stop()}


def convert_one(source: Path, kind: Format, target: Path) -> dict[str, float]:
    """Convert a `.pth` in this process and say what it took; the memory that torch itself takes is told apart."""
    import torch  # noqa: F401 - its import is not part of the work

    idle = anonymous_bytes(psutil.Process())
    watch = PeakAnonymous()
    watch.start()
    started = time.perf_counter()
    with cache.replacing(target, source.stat().st_size) as temporary:
        derive.convert_pth(source, temporary, kind, lambda _sentence, _fraction: None)
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "bytes": target.stat().st_size,
        "peak_anonymous_bytes": watch.stop(),
        "idle_anonymous_bytes": idle,
    }


def copy_plainly(source: Path, target: Path) -> float:
    """Seconds to copy a file and have it on the disk."""
    started = time.perf_counter()
    with source.open("rb") as reader, target.open("wb") as writer:
        while block := reader.read(COPY_BLOCK):
            writer.write(block)
        writer.flush()
        os.fsync(writer.fileno())
    return time.perf_counter() - started


def measure(shape: str, kind: Format, folder: Path, repeats: int, source: Path | None = None) -> dict[str, Any]:
    """Write and copy in turns. A plain copy is of what a conversion reads, its source; else of what was written."""
    target, copied = folder / f"{shape}.{kind}", folder / f"{shape}.{kind}.copy"
    writes, copies = [], []
    for _ in range(repeats):
        target.unlink(missing_ok=True)
        command = [sys.executable, __file__, "--shape", shape, "--one", kind, "--folder", str(folder)]
        command += ["--source", str(source)] if source else []
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        writes.append(json.loads(done.stdout))
        copies.append(copy_plainly(source or target, copied))
        copied.unlink()
    size = int(writes[0]["bytes"])
    copied_size = source.stat().st_size if source else size
    seconds, copy_seconds = (statistics.median(times) for times in ([write["seconds"] for write in writes], copies))
    target.unlink()
    return {
        "bytes": size,
        "write_seconds": [round(write["seconds"], 3) for write in writes],
        "copy_seconds": [round(copy, 3) for copy in copies],
        "write_mb_per_s": round(size / seconds / 1e6, 1),
        "copy_mb_per_s": round(copied_size / copy_seconds / 1e6, 1),
        "write_to_copy": round(copy_seconds / seconds, 3),
        "peak_anonymous_mib": round(max(write["peak_anonymous_bytes"] for write in writes) / MIB, 1),
        "idle_anonymous_mib": round(max(write.get("idle_anonymous_bytes", 0) for write in writes) / MIB, 1),
    }


def conditions() -> dict[str, Any]:
    """Where and when the figures come from."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / (1 << 30), 1),
        "load_1min": round(psutil.getloadavg()[0], 2),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def record(shape: str, result: dict[str, Any]) -> None:
    """Put one shape's result into the JSON file and write the table anew."""
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    results[shape] = result
    results = {name: results[name] for name in SHAPES if name in results}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    lines = [
        "# Writing and converting a synthetic model",
        "",
        "Made by `write_formats.py`, medians; conditions and every repetition are in `write_formats.json`.",
        "Memory is anonymous. `.pth` to another format is a conversion of a file; the last column is what torch",
        "takes when idle.",
        "",
        "| shape | format | size | write | MB/s | plain copy MB/s | write ÷ copy | peak memory | of it torch |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, entry in results.items():
        for kind, row in entry["formats"].items():
            lines.append(
                f"| {name} | {kind.replace(' to ', ' → ')} | {row['bytes'] / 1e9:.2f} GB"
                f" | {statistics.median(row['write_seconds']):.1f} s"
                f" | {row['write_mb_per_s']:.0f} | {row['copy_mb_per_s']:.0f} | {row['write_to_copy']:.2f}"
                f" | {row['peak_anonymous_mib']:.0f} MiB | {row.get('idle_anonymous_mib', 0):.0f} MiB |"
            )
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Measure one shape in every format and record it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SHAPES), default="0.1b")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to write; default the folder of cached models")
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--one", choices=FORMATS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(
            json.dumps(
                write_one(options.shape, options.one, options.folder / f"{options.shape}.{options.one}", options.source)
            )
        )
        return
    place = cache.folder(options.folder)
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place, prefix="benchmark-") as folder:
        result: dict[str, Any] = {"conditions": conditions(), "formats": {}}
        for kind in FORMATS:
            result["formats"][f".{kind}"] = measure(options.shape, kind, Path(folder), options.repeats)
            print(f"{options.shape} .{kind}: {json.dumps(result['formats'][f'.{kind}'])}", flush=True)
        source = Path(folder) / "source.pth"
        write_one(options.shape, "pth", source, None)
        for kind in CONVERTED:
            row = measure(options.shape, kind, Path(folder), options.repeats, source)
            result["formats"][f".pth to .{kind}"] = row
            print(f"{options.shape} .pth to .{kind}: {json.dumps(row)}", flush=True)
    record(options.shape, result)


if __name__ == "__main__":
    main()
