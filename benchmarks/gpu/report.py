"""The table of what proof.py left behind on a GPU, and its compact record.

    python benchmarks/gpu/report.py --name h200 RESULTS...

Each RESULTS is a folder that `proof.py --out` filled; several may come from several machines of one kind, a later one's
cases replacing an earlier one's. Writes NAME.json and NAME.md beside this, or into --folder.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.measure.measurement import Measurement
from pytest_rwkvperf.store import record as records

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_rwkvperf.measure.record import CaseRecord
    from pytest_rwkvperf.store.record import Record

HERE = Path(__file__).resolve().parent
NO_RECORDS = ("own_tools", "neighbours", "report")
"""Steps, by how they begin, that leave something else than a record of the plugin."""

JUDGED_ONLY = ("slowdown", "threads", "compare", "spread", "batches")
"""Steps, by how they begin, whose figures are no part of the baseline."""


def rows_of(one: Record, machine: str) -> list[dict[str, Any]]:
    """One row per workload measured."""
    measured = [case.measured for case in one.cases if case.measured is not None]
    return [_row(case, Workload.parse(name), machine) for case in measured for name in case.runs[0].samples]


def _row(case: CaseRecord, workload: Workload, machine: str) -> dict[str, Any]:
    taken = Measurement(case, workload)
    rate = taken.tokens_per_second
    return {
        "backend": case.case.backend,
        "quant": case.case.quant,
        "device": case.case.device,
        "workload": str(workload),
        "machine": machine,
        "versions": case.versions,
        "rate": rate.median,
        "low": rate.low,
        "high": rate.high,
        "processes": rate.processes,
        "samples": rate.samples,
        "parity": case.parity,
        "roofline_share": taken.roofline_share,
        "joules_per_token": taken.joules_per_token,
        "net_joules_per_token": taken.net_joules_per_token,
        "utilisation": taken.utilisation,
        "device_share": taken.device_share,
        "device_time": _device_time(taken),
        "peak_device_bytes": taken.memory.peak_device_bytes,
        "load_seconds": taken.load_seconds,
        "build_seconds": max(run.build_nanoseconds for run in case.runs) / 1e9,
        "ceilings": [case.ceilings.copy_bytes_per_second, case.ceilings.product_per_second] if case.ceilings else None,
    }


def _device_time(taken: Measurement) -> dict[str, Any] | None:
    """A prefill's or a decoded token's kernels, where CUPTI recorded them: milliseconds, counts, the longest ones."""
    found = taken.device_time
    if found is None:
        return None
    steps = 1 if taken.workload.kind == "prefill" else found.tokens
    return {
        "milliseconds": found.busy_nanoseconds / 1e6 / steps,
        "kernels": found.kernels / steps,
        "copies": found.copies / steps,
        "longest": [[one.name, one.count / steps, one.nanoseconds / 1e3 / steps] for one in found.longest],
    }


def gathered(folders: Iterable[Path], known: dict[str, Any]) -> dict[str, Any]:
    """Everything of the folders, each of which is another machine, after what is known."""
    rows = {_key(row): row for row in known.get("rows", [])}
    told: dict[str, Any] = {"verdicts": [], **known}
    measured = [int(row["machine"].split()[1].rstrip(",")) for row in rows.values()]
    first = 1 + max((*measured, *(one["machine"] for one in told["verdicts"])), default=0)
    for number, folder in enumerate(folders, first):
        for path in sorted(folder.glob("*.json")):
            if path.stem.startswith(NO_RECORDS):
                continue
            one = records.read(path)
            told["fingerprint"], told["system"] = one.fingerprint.id, one.system.drivers
            told["verdicts"] += _verdicts(one, path.stem, number)
            if not path.stem.startswith(JUDGED_ONLY):
                for row in rows_of(one, f"machine {number}, {one.started}"):
                    rows[_key(row)] = row
    told["rows"] = [rows[key] for key in sorted(rows)]
    return told


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return row["backend"], row["quant"], row["device"], row["workload"]


def _verdicts(one: Record, step: str, machine: int) -> list[dict[str, Any]]:
    return [
        {
            "step": step,
            "machine": machine,
            "case": f"{case.case.backend} {case.case.quant}",
            "workload": item.workload,
            "verdict": item.verdict,
            "ratio": item.comparison.ratio,
            "low": item.comparison.low,
            "high": item.comparison.high,
            "tolerance": item.comparison.tolerance,
        }
        for case, item in one.items()
        if item.comparison is not None
    ]


_SHOWN = 6

_LEGEND = (
    "*Share*: MFU of a prefill, MBU of a generation, of the ceilings measured on the device. Energy in brackets: "
    "without the board's idle power. *Busy*: NVML's utilisation. *Device*: CUPTI's device time over a repetition's."
)


def table(told: dict[str, Any]) -> str:
    """The tables, in Markdown."""
    drivers = ", ".join(f"{name} {value}" for name, value in told["system"].items())
    lines = [
        f"# {told['fingerprint']}",
        "",
        f"Made by `proof.py` and `report.py`; {drivers}.",
        _LEGEND,
        "",
        (
            "| engine | quant | workload | t/s | ± 95 % | share | J/token (net) | busy | device | GPU memory | parity |"
            " date |"
        ),
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|",
        *map(_line, told["rows"]),
        "",
        "| step | machine | case | workload | verdict | ratio | bounds | tolerance |",
        "|---|--:|---|---|---|--:|--:|--:|",
        *(
            f"| {one['step']} | {one['machine']} | {one['case']} | {one['workload']} | {one['verdict']} | "
            f"{one['ratio']:.3f} | {one['low']:.3f} to {one['high'] or 0:.3f} | {one['tolerance']:.0%} |"
            for one in told["verdicts"]
        ),
        "",
        "| a prefill, or a token | ms on the device | kernels | copies | the longest: microseconds in all, how many |",
        "|---|--:|--:|--:|---|",
        *(_kernels_line(row) for row in told["rows"] if row.get("device_time")),
    ]
    return "\n".join(lines) + "\n"


def _line(row: dict[str, Any]) -> str:
    energy = row["joules_per_token"]
    cells = [
        row["backend"],
        row["quant"],
        row["workload"],
        f"{row['rate']:,.0f}" if row["rate"] >= 1000 else f"{row['rate']:.1f}",  # noqa: PLR2004 - four digits shown
        f"{(row['high'] - row['low']) / 2 / row['rate']:.1%}",
        "" if row["roofline_share"] is None else f"{row['roofline_share']:.1%}",
        "" if energy is None else f"{energy:.3g} ({row['net_joules_per_token']:.3g})",
        "" if row["utilisation"] is None else f"{row['utilisation']:.0%}",
        "" if row.get("device_share") is None else f"{row['device_share']:.0%}",
        "" if row["peak_device_bytes"] is None else f"{row['peak_device_bytes'] / 2**20:.0f} MiB",
        f"{row['parity']:.1e}",
        row["machine"].partition(", ")[2].partition("T")[0],
    ]
    return f"| {' | '.join(cells)} |"


def _kernels_line(row: dict[str, Any]) -> str:
    taken = row["device_time"]
    names = [f"`{_short(name)}` {time:,.0f}, {count:.0f}" for name, count, time in taken["longest"]]
    return (
        f"| {row['backend']} {row['quant']} {row['workload']} | {taken['milliseconds']:.2f} | {taken['kernels']:.0f} | "
        f"{taken['copies']:.0f} | {'; '.join(names[:_SHOWN])} |"
    )


def _short(name: str) -> str:
    """A kernel's name without most of what its templates were given.

    Kept is the operation of ggml's element-wise kernels and all that tells CUTLASS's apart, which have nothing else.
    """
    name = re.sub(r"^std::enable_if<.*?>::type ", "", name)
    name = re.sub(r"at::native::|internal::|\(anonymous namespace\)::", "", name)
    name = re.sub(r"^cutlass::Kernel2<(\w+)>?.*", r"\1", name)
    found = re.search(r"\bop_\w+", name)
    return name.partition("<")[0] + (f" {found[0]}" if found else "")


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--folder", type=Path, default=HERE, help="where both files go")
    parser.add_argument("--adding", action="store_true", help="to what the file of that name holds")
    options = parser.parse_args()
    path = options.folder / f"{options.name}.json"
    told = gathered(options.folders, json.loads(path.read_text(encoding="utf-8")) if options.adding else {})
    path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(table(told), encoding="utf-8")
    print(table(told))


if __name__ == "__main__":
    main()
