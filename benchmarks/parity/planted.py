"""Which planted bugs the parity check detects, on which cases.

    python benchmarks/parity/planted.py                      # nano and 0.1b
    python benchmarks/parity/planted.py --shape 0.1b --backend rwkv,llama-cpp --quant fp32,bf16,f16,q8_0

For each bug of `bugs.py` that a file can hold, a real engine reads a file with the bug, in a worker process as in a run
of pytest, and the short check compares it with the oracle on the file without the bug. Bugs of the arithmetic run in
this project's NumPy engine, once per shape. A case's check detects one when its deviation exceeds the case's bound by a
third, the error that the case's own engine may add (its bound is three times its own error); the top token is not used.
Results go to `planted.json`, and `planted.md` is rewritten.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bench
import bugs
import msgspec
import numpy as np

from pytest_rwkvperf.models import derive, st, synthetic
from pytest_rwkvperf.oracle import bounds
from pytest_rwkvperf.oracle.agreement import Short
from pytest_rwkvperf.oracle.bounds import Bound
from pytest_rwkvperf.worker import parity

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_rwkvperf.models.model import Model, ModelFile
    from pytest_rwkvperf.models.weights import Weights

RESULTS = Path(__file__).with_suffix(".json")
TABLE = Path(__file__).with_suffix(".md")
SHAPES = ("nano", "0.1b")
SEED = 1
UNQUANTIZED = (
    ("rwkv", "fp32"),
    ("rwkv", "fp16"),
    ("rwkv", "bf16"),
    ("llama-cpp", "f16"),
    ("web-rwkv", "fp16"),
)
QUANTIZED = (
    ("llama-cpp", "q8_0"),
    ("llama-cpp", "q5_k_m"),
    ("llama-cpp", "q4_k_m"),
    ("llama-cpp", "q4_0"),
    ("web-rwkv", "int8"),
    ("web-rwkv", "nf4"),
    ("web-rwkv", "sf4"),
)
_ALLOWANCE = 4 / 3


def in_files(shape: str, cases: Sequence[tuple[str, str]], folder: Path) -> Iterator[dict[str, Any]]:
    """Every bug of a file, on every case."""
    model, weights = bench.model(shape, SEED), synthetic.parse(f"synthetic:{shape}:{SEED}")
    for bug, plant in bugs.IN_FILES.items():
        planted: dict[str, Path] = {}
        for name, quant in cases:
            engine = bench.engine(name)
            correct = bench.file_of(model, engine, quant)
            wanted = bench.right_answers(correct, engine, quant, deep=False)
            path = _planted_file(model, plant(weights), correct, planted, folder)
            short, _ = bench.answers(engine, quant, path, wanted)
            yield _entry(bug, shape, name, quant, short)
        for path in planted.values():
            path.unlink()


def _planted_file(model: Model, weights: Weights, correct: ModelFile, planted: dict[str, Path], folder: Path) -> Path:
    """A file like `correct` with the bug in it; made once per bug."""
    plain = f"planted.{correct.format}"
    if plain not in planted:
        derive.write(weights, folder / plain, correct.format, model.name.replace(":", " "), bench.silent)
        planted[plain] = folder / plain
    if correct.format != "gguf" or correct.quant == "f16":
        return planted[plain]
    quantized = f"planted-{correct.quant}.gguf"
    if quantized not in planted:
        bench.TOOLS.quantize_gguf(planted[plain], folder / quantized, correct.quant)
        planted[quantized] = folder / quantized
    return planted[quantized]


def in_engines(shape: str, cases: Sequence[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """Every bug of the arithmetic, judged by every case's bounds."""
    engine = bench.engine("reference")
    file = bench.file_of(bench.model(shape, SEED), engine, "fp32")
    (wanted,) = bench.right_answers(file, engine, "fp32", deep=False)
    answer = np.load(wanted, allow_pickle=False)
    for bug, plant in bugs.IN_ENGINES.items():
        weights = st.read_header(file.path).weights()
        result = parity.short(plant(weights), engine.backend.standard_chunk, answer, noise=1.0)
        for name, quant in cases:
            yield _entry(bug, shape, name, quant, result)


def _entry(bug: str, shape: str, name: str, quant: str, short: Short) -> dict[str, Any]:
    return {"bug": bug, "shape": shape, "backend": name, "quant": quant, "short": asdict(short)}


def problem(entry: dict[str, Any]) -> str:
    """What is wrong with an entry, by the present bounds."""
    bound = bounds.bound_for(entry["backend"], entry["quant"])
    if entry["bug"] in bugs.IN_ENGINES:
        bound = Bound(bound.relative_l2 * _ALLOWANCE)
    return bounds.broken_short(msgspec.convert(entry["short"], type=Short), bound)


def record(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add entries to the results; returns all of them."""
    held = recorded()
    for entry in entries:
        held[_key(entry)] = entry
    cases = (*UNQUANTIZED, *QUANTIZED)
    names = (*bugs.IN_FILES, *bugs.IN_ENGINES)
    order = sorted(held, key=lambda key: (SHAPES.index(key[1]), names.index(key[0]), cases.index((key[2], key[3]))))
    everything = [{**held[key], "problem": problem(held[key])} for key in order]
    lines = ",\n".join(json.dumps(entry) for entry in everything)
    taken = bench.conditions() if entries else json.loads(RESULTS.read_text(encoding="utf-8"))["conditions"]
    text = f'{{"conditions": {json.dumps(taken)},\n"entries": [\n{lines}\n]}}\n'
    RESULTS.write_text(text, encoding="utf-8")
    TABLE.write_text(table(everything), encoding="utf-8")
    return everything


def recorded() -> dict[tuple[str, str, str, str], dict[str, Any]]:
    """Entries by bug, shape, backend and quant."""
    if not RESULTS.exists():
        return {}
    return {_key(entry): entry for entry in json.loads(RESULTS.read_text(encoding="utf-8"))["entries"]}


def _key(entry: dict[str, Any]) -> tuple[str, str, str, str]:
    return entry["bug"], entry["shape"], entry["backend"], entry["quant"]


def table(entries: Sequence[dict[str, Any]]) -> str:
    """The tables, one per shape: relative L2, in bold where the check detects the bug."""
    lines = [_HEAD]
    for shape in SHAPES:
        held = {(e["bug"], e["backend"], e["quant"]): e for e in entries if e["shape"] == shape}
        cases = [case for case in (*UNQUANTIZED, *QUANTIZED) if any(key[1:] == case for key in held)]
        if not cases:
            continue
        lines += ["", f"## {shape}", "", f"| bug | {' | '.join(' '.join(case) for case in cases)} |"]
        lines.append("|---|" + "--:|" * len(cases))
        for bug in (*bugs.IN_FILES, *bugs.IN_ENGINES):
            cells = [_cell(held.get((bug, *case))) for case in cases]
            lines.append(f"| {bug} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


_HEAD = """# Planted bugs

Made by `planted.py`; every figure and every sentence of the check is in `planted.json`. Each cell is the larger
relative L2 of the two passes of the short check; **bold** is detected, plain is not."""


def _cell(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return ""
    largest = max(entry["short"][name]["relative_l2"] for name in ("prefill", "generation"))
    return f"**{largest:.1e}**" if entry["problem"] else f"{largest:.1e}"


def main() -> None:
    """Plant, check, record and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default=",".join(SHAPES))
    parser.add_argument("--backend", default=",".join(bench.REAL_BACKENDS))
    parser.add_argument("--quant", default="", help="only these")
    parser.add_argument("--table", action="store_true", help="judge the recorded results again and print them")
    options = parser.parse_args()
    only = options.quant.split(",") if options.quant else [quant for _, quant in (*UNQUANTIZED, *QUANTIZED)]
    if not options.table:
        for shape in options.shape.split(","):
            cases = [
                case for case in (*UNQUANTIZED, *QUANTIZED) if case[0] in options.backend.split(",") and case[1] in only
            ]
            with bench.temporary_cache() as folder:
                for entries in (in_engines(shape, cases), in_files(shape, cases, folder)):
                    for entry in entries:
                        record([entry])
                        print(shape, entry["bug"], entry["backend"], entry["quant"], problem(entry), flush=True)
    print(table(record([])))


if __name__ == "__main__":
    main()
