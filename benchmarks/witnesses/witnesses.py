r"""Witnesses count the same in every run of the same code, under load too, and name planted faults.

    python benchmarks/witnesses/witnesses.py                                  # the engines that are installed, on nano
    python benchmarks/witnesses/witnesses.py --model synthetic:0.1b --name h200
    python benchmarks/witnesses/witnesses.py --build 0.3.35=/path/to/bin/python   # another build of llama.cpp beside it
    python benchmarks/witnesses/witnesses.py --witness instructions --backend llama-cpp --name instructions \
        --python /path/to/bin/python   # of an environment whose llama.cpp was compiled without AVX-512

Each witness of each engine reads its case twice, and once more while a process computes on every processor. Then faults
are planted in copies of the rwkv package: a product that is computed twice, a copy of the state for every token.
Results go to `witnesses.json` and `witnesses.md` beside this script, or to `witnesses_NAME`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pytest_rwkvperf.backends import registry as backends
from pytest_rwkvperf.core.cases import Case, Workload
from pytest_rwkvperf.core.errors import RwkvPerfError
from pytest_rwkvperf.core.work import differences
from pytest_rwkvperf.machine import fingerprint
from pytest_rwkvperf.measure import witnessing
from pytest_rwkvperf.measure.process import Target
from pytest_rwkvperf.measure.record import ModelFacts
from pytest_rwkvperf.models.model_store import ModelStore
from pytest_rwkvperf.run.discovery import FoundEngine, discover
from pytest_rwkvperf.verdict import work
from pytest_rwkvperf.witnesses import registry
from pytest_rwkvperf.worker.tools import WorkerTools

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_rwkvperf.core.work import Reading

HERE = Path(__file__).resolve().parent
WORKLOADS = (Workload("prefill", 512), Workload("generation", 128))
QUANTS = {"rwkv": "fp32", "llama-cpp": "q8_0"}
ON_CUDA = {"rwkv": "fp16", "llama-cpp": "q8_0"}
CHUNK = 512

_MATMUL = {"operations": "aten::mm", "kernels": "gemm|gemv|nvjet"}
_COPY = {"operations": "aten::clone", "kernels": r"\[copy\]"}

PLANTED = {
    "a product is computed twice": ("r = xr @ R_\n", "r = (2 * xr) @ R_ - xr @ R_\n", _MATMUL),
    "the state is copied once more for each token": (
        "@ O_, x, state, v_first\n",
        "@ O_, x, state.clone(), v_first\n",
        _COPY,
    ),
}
"""In the rwkv package's model.py: an expression, what stands there instead, and what each witness is to name. The copy
is in the path of one token alone."""


def silent(*_said: object) -> None:
    """Progress nobody needs."""


def target(engine: FoundEngine, reference: str, quant: str, device: str) -> Target:
    """A case of an engine, on one thread."""
    models = ModelStore(WorkerTools(silent), silent)
    file = models.file_for(models.resolve(reference), engine.backend.format, engine.backend.file_quant(quant))
    return Target(
        case=Case(engine.backend.name, reference, quant, device, 1, CHUNK),
        location=engine.location,
        environment=dict(engine.backend.environment(device)),
        python=sys.executable,
        model=ModelFacts(reference, file.content_hash, 1, file.size_bytes),
        path=file.path,
        device=next(each for each in engine.devices if each.id == device),
        expected=(),
        known_deep=None,
    )


def read(made: Target, name: str) -> tuple[Reading, float]:
    """What a witness counts, and how long it took."""
    began = time.monotonic()
    reading = witnessing.read(made, WORKLOADS, registry.load(name), silent)
    return reading, time.monotonic() - began


def _spin() -> None:
    while True:
        sum(range(100_000))


@contextmanager
def loaded() -> Iterator[None]:
    """A process that computes on every processor."""
    busy = [multiprocessing.Process(target=_spin, daemon=True) for _ in range(os.cpu_count() or 1)]
    for process in busy:
        process.start()
    try:
        yield
    finally:
        for process in busy:
            process.terminate()


def repeated(made: Target, name: str) -> Iterator[dict[str, Any]]:
    """Whether two readings of the same code, and one under load, have the same counts."""
    first, _ = read(made, name)
    for condition in ("as the machine was", "every processor busy"):
        if condition == "as the machine was":
            second, seconds = read(made, name)
        else:
            with loaded():
                second, seconds = read(made, name)
        for workload in map(str, WORKLOADS):
            one, other = first.workloads[workload], second.workloads[workload]
            yield {
                "witness": name,
                "case": made.case.label,
                "workload": workload,
                "condition": condition,
                "unit": first.unit,
                "count": one.count,
                "again": other.count,
                "bytes": one.bytes,
                "bytes_again": other.bytes,
                "operators_that_differ": len(differences(one, other, first.allowance)),
                "seconds": round(seconds, 1),
            }


def edited(folder: Path, old: str, new: str) -> Path:
    """A copy of the installed rwkv package with a change."""
    spec = find_spec("rwkv")
    if spec is None or spec.submodule_search_locations is None:
        raise SystemExit("the rwkv package is not installed; its faults cannot be planted")
    copy = shutil.copytree(spec.submodule_search_locations[0], folder / "rwkv")
    source = (copy / "model.py").read_text(encoding="utf-8")
    if old not in source:
        raise SystemExit(f"this release of rwkv has no {old!r}; plant the fault elsewhere")
    (copy / "model.py").write_text(source.replace(old, new), encoding="utf-8")
    return folder


def planted(made: Target, name: str) -> Iterator[dict[str, Any]]:
    """What a witness says of each planted fault."""
    sound, _ = read(made, name)
    for fault, (old, new, _) in PLANTED.items():
        with tempfile.TemporaryDirectory() as folder:
            path = os.pathsep.join([str(edited(Path(folder), old, new)), os.environ.get("PYTHONPATH", "")])
            faulty, seconds = read(replace(made, environment={**made.environment, "PYTHONPATH": path}), name)
        yield from compared(fault, faulty, sound, made, seconds=seconds)


def compared(title: str, new: Reading, old: Reading, made: Target, *, seconds: float) -> Iterator[dict[str, Any]]:
    """The verdict on each workload, with the operators that changed most."""
    for workload in WORKLOADS:
        judged = work.judge([new], [old], workload)
        changed = differences(old.workloads[str(workload)], new.workloads[str(workload)], new.allowance)
        yield {
            "change": title,
            "witness": new.witness,
            "case": made.case.label,
            "workload": str(workload),
            "verdict": judged.verdict if judged else "not comparable",
            "told": judged.sentences[0] if judged else "",
            "changed": [msgspec.to_builtins(each) for each in changed[:20]],
            "seconds": round(seconds, 1),
        }


def builds(made: Target, names: Sequence[str], others: dict[str, str]) -> Iterator[dict[str, Any]]:
    """What differs between the installed build and others, by each witness."""
    for name in names:
        here, _ = read(made, name)
        for title, python in others.items():
            old, seconds = read(replace(made, python=python), name)
            yield from compared(f"{title} → installed", here, old, made, seconds=seconds)


def named(each: dict[str, Any]) -> str:
    """Whether a planted fault's operator is among those that changed; empty where it changes nothing."""
    operator = PLANTED[each["change"]][2].get(each["witness"]) if each["change"] in PLANTED else None
    if operator is None or (operator in _COPY.values() and each["workload"].startswith("pp")):
        return ""
    return "yes" if any(re.search(operator, one["operator"]) for one in each["changed"]) else "**no**"


def table(result: dict[str, Any]) -> str:
    """The results as markdown."""
    lines = [
        "# Witnesses: the same code counts the same, and a change has a name\n",
        f"{result['machine']}, {result['date']}, {result['model']}. Written by `witnesses.py`.\n",
        "## The same code again\n",
        "| witness | case | workload | condition | count | again | operators that differ | a reading takes |",
        "|---|---|---|---|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {each['witness']} | {each['case']} | {each['workload']} | {each['condition']} | "
        f"{each['count']} {each['unit']} | {each['again']} | {each['operators_that_differ']} | {each['seconds']} s |"
        for each in result["repeated"]
    ]
    lines += [
        "\n## Changes\n",
        "| change | witness | case | workload | verdict | named | what is told |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {each['change']} | {each['witness']} | {each['case']} | {each['workload']} | {each['verdict']} | "
        f"{named(each)} | {each['told'].replace('|', ' ')} |"
        for each in result["changes"]
    ]
    if result["left_out"]:
        lines += ["\n## Left out\n", *(f"* {each}" for each in result["left_out"])]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Take what is asked and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="synthetic:nano", metavar="REF")
    parser.add_argument("--witness", default=",".join(registry.CHEAP), metavar="LIST")
    parser.add_argument("--backend", default=",".join(QUANTS), metavar="LIST")
    parser.add_argument("--python", default=sys.executable, help="of the environment that the engines run in")
    parser.add_argument("--build", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--name", default="", help="of the results, beside those of another machine")
    options = parser.parse_args()
    others = dict(each.split("=", 1) for each in options.build)
    result: dict[str, Any] = {
        "machine": str(fingerprint.read()),
        "date": time.strftime("%Y-%m-%d"),
        "model": options.model,
        "repeated": [],
        "changes": [],
        "left_out": [],
    }
    for engine in discover({name: backends.BUILT_IN[name] for name in options.backend.split(",")}, named=False):
        if not isinstance(engine, FoundEngine):
            result["left_out"].append(f"{engine.name}: {engine.reason}")
            continue
        device = engine.devices[0]
        quant = (ON_CUDA if device.kind == "gpu" else QUANTS)[engine.backend.name]
        made = replace(target(engine, options.model, quant, device.id), python=options.python)
        chosen = witnessing.suitable(options.witness.split(","), made.case, made.device)
        for witness in chosen:
            try:
                if absence := witness.absence():
                    result["left_out"].append(f"{witness.name}: {absence}")
                    continue
                result["repeated"] += repeated(made, witness.name)
                if engine.backend.name == "rwkv":
                    result["changes"] += planted(made, witness.name)
                else:
                    result["changes"] += builds(made, [witness.name], others)
            except RwkvPerfError as error:
                result["left_out"].append(f"{witness.name} of {made.case.label}: {str(error).splitlines()[0]}")
    place = HERE / f"witnesses{'_' + options.name if options.name else ''}.json"
    place.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    place.with_suffix(".md").write_text(table(result), encoding="utf-8")
    print(place.with_suffix(".md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
