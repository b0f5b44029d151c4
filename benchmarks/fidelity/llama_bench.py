"""Does this project measure what llama-bench measures? Both on the same file, in turn, on one machine.

llama-bench is built from the llama.cpp source inside the sdist of the installed llama-cpp-python, so that the engine is
the same. Each pair is one worker process of this project and one llama-bench process, in alternating order; each side's
first repetition is dropped and the median of the others counts; the ratio's interval is Student's t over the pairs.

    python benchmarks/fidelity/llama_bench.py --model synthetic:0.1b --pairs 8
    python benchmarks/fidelity/llama_bench.py --threads 1 --name llama_bench_one_thread

Two threads of a virtual machine are as fast as its host lets their processors stand, which changes while one side runs
(benchmarks/verdicts): with one thread the ratio shows what the two programs do, and not where they ran.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

from scipy.special import stdtrit

from pytest_rwkvperf.backends.llama_cpp import BACKEND
from pytest_rwkvperf.backends.registry import BUILT_IN
from pytest_rwkvperf.core import folders
from pytest_rwkvperf.core.cases import Case, Workload
from pytest_rwkvperf.core.engine import Device
from pytest_rwkvperf.machine import fingerprint
from pytest_rwkvperf.measure import plan
from pytest_rwkvperf.measure.process import MeasuredCase, Target
from pytest_rwkvperf.measure.record import ModelFacts
from pytest_rwkvperf.models.model_store import ModelStore
from pytest_rwkvperf.oracle.expected import logits_files
from pytest_rwkvperf.run.lease import lease
from pytest_rwkvperf.worker.parent import IMPORT_SECONDS, Worker
from pytest_rwkvperf.worker.tools import WorkerTools

HERE = Path(__file__).resolve().parent
WORKLOADS = (Workload("prefill", 512), Workload("generation", 128))
REPETITIONS = 5  # llama-bench's default


def llama_bench(target: str = "llama-bench") -> Path:
    """The executable of a target, built once per version of llama-cpp-python into the user's cache."""
    release = version("llama-cpp-python")
    build = folders.cache() / "build" / f"{target}-{release}"
    found = build / "bin" / (f"{target}.exe" if sys.platform == "win32" else target)
    if not found.exists():
        print(f"building {target} {release}: 5 to 15 minutes", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            _build(release, Path(folder), build, target)
    return found


def _build(release: str, folder: Path, build: Path, target: str) -> None:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "-d", str(folder)]
    subprocess.run([*pip, f"llama-cpp-python=={release}"], check=True)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    source = next(folder.glob("llama_cpp_python-*")) / "vendor" / "llama.cpp"
    off = [f"-DLLAMA_{part}=OFF" for part in ("CURL", "OPENSSL", "BUILD_TESTS", "BUILD_EXAMPLES", "BUILD_SERVER")]
    subprocess.run(["cmake", "-S", source, "-B", build, "-DCMAKE_BUILD_TYPE=Release", *off], check=True)
    subprocess.run(["cmake", "--build", build, "--target", target, "--parallel"], check=True)


def theirs(executable: Path, model: Path, threads: int) -> dict[str, float]:
    """Median tokens per second by workload, without each one's first repetition."""
    options = ["-p", "512", "-n", "128", "-r", str(REPETITIONS), "-t", str(threads), "-ngl", "0", "-o", "jsonl"]
    out = subprocess.run([executable, "-m", model, *options], check=True, capture_output=True, text=True).stdout
    rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    return {
        f"pp{row['n_prompt']}" if row["n_prompt"] else f"tg{row['n_gen']}": statistics.median(row["samples_ts"][1:])
        for row in rows
    }


def ours(measured: MeasuredCase) -> dict[str, float]:
    """The same from one worker process of this project."""
    plan.run_process(measured, WORKLOADS, lambda _sentence: None)
    return {
        name: statistics.median(int(name[2:]) / sample.nanoseconds * 1e9 for sample in samples[1:])
        for name, samples in measured.runs[-1].samples.items()
    }


def make_target(model_name: str, quant: str, threads: int) -> Target:
    """What a case of the plugin would be."""
    tools = WorkerTools(lambda _sentence, _fraction: None)
    models = ModelStore(tools, lambda _sentence, _fraction: None)
    model = models.resolve(model_name)
    file = models.file_for(model, "gguf", quant)
    with Worker() as worker:
        answer = worker.request("describe", IMPORT_SECONDS, location=BUILT_IN["llama-cpp"])
    device = next(Device(**one) for one in answer["devices"] if one["id"] == "cpu")
    return Target(
        case=Case("llama-cpp", model.name, quant, "cpu", threads, BACKEND.standard_chunk),
        location=BUILT_IN["llama-cpp"],
        environment={},
        python=sys.executable,
        model=ModelFacts(model.name, model.content_hash, model.shape.parameters, file.size_bytes),
        path=file.path,
        device=device,
        expected=tuple(logits_files(file, "", deep=True, solver=tools)),
        known_deep=None,
    )


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """Geometric mean of the pairs' ratios with its 95 % interval."""
    logs = [math.log(ratio) for ratio in ratios]
    centre, spread = statistics.mean(logs), statistics.stdev(logs)
    reach = float(stdtrit(len(logs) - 1, 0.975)) * spread / math.sqrt(len(logs))
    return math.exp(centre), math.exp(centre - reach), math.exp(centre + reach)


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="synthetic:0.1b")
    parser.add_argument("--quants", default="f16,q8_0")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--threads", type=int, default=fingerprint.physical_cores(), help="default: physical cores")
    parser.add_argument("--name", default="llama_bench", help="of the record, beside this script")
    options = parser.parse_args()
    threads, executable = options.threads, llama_bench()
    rows = []
    for quant in options.quants.split(","):
        target = make_target(options.model, quant, threads)
        with lease(target.device, print):
            rows += compare(target, quant, executable, options.pairs, threads)
    facts = {
        "machine": fingerprint.read().id,
        "python": platform.python_version(),
        "llama-cpp-python": version("llama-cpp-python"),
        "model": options.model,
        "threads": threads,
        "rows": rows,
    }
    (HERE / f"{options.name}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (HERE / f"{options.name}.md").write_text(table(facts), encoding="utf-8")
    print(table(facts))


def compare(target: Target, quant: str, executable: Path, pairs: int, threads: int) -> list[dict[str, object]]:
    """All pairs of one quant."""
    pairs_by_name: dict[str, list[tuple[float, float]]] = {str(one): [] for one in WORKLOADS}
    measured = MeasuredCase(target)
    for index in range(pairs):
        if index % 2:
            mine, other = ours(measured), theirs(executable, target.path, threads)
        else:
            other, mine = theirs(executable, target.path, threads), ours(measured)
        for name, taken in pairs_by_name.items():
            taken.append((mine[name], other[name]))
            print(f"{quant} {name} pair {index + 1}: {mine[name]:.1f} / {other[name]:.1f}", flush=True)
    return [summary(quant, name, taken) for name, taken in pairs_by_name.items()]


def summary(quant: str, name: str, taken: list[tuple[float, float]]) -> dict[str, object]:
    """One row: both medians and spreads, and the ratio with its interval."""
    mine, other = [one for one, _ in taken], [two for _, two in taken]
    ratio, low, high = interval([one / two for one, two in taken])
    return {
        "quant": quant,
        "workload": name,
        "ours_median": statistics.median(mine),
        "ours_spread": statistics.stdev(mine) / statistics.mean(mine),
        "llama_bench_median": statistics.median(other),
        "llama_bench_spread": statistics.stdev(other) / statistics.mean(other),
        "ratio": ratio,
        "low": low,
        "high": high,
        "pairs": taken,
    }


def table(facts: dict[str, object]) -> str:
    """The recorded result as markdown."""
    setting = f"llama-cpp-python {facts['llama-cpp-python']}, threads={facts['threads']}, {facts['machine']}"
    lines = [
        f"# This project against llama-bench: {facts['model']}, {setting}",
        "",
        "| quant | workload | ours t/s (spread) | llama-bench t/s (spread) | ratio | 95 % interval |",
        "|---|---|--:|--:|--:|--:|",
    ]
    rows = facts["rows"]
    assert isinstance(rows, list)  # noqa: S101 - made above
    lines += [
        f"| {row['quant']} | {row['workload']} | {row['ours_median']:.1f} ({row['ours_spread']:.1%}) | "
        f"{row['llama_bench_median']:.1f} ({row['llama_bench_spread']:.1%}) | {row['ratio']:.3f} | "
        f"{row['low']:.3f} to {row['high']:.3f} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
