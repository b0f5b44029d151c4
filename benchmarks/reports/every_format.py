"""Is every report what its own consumer reads? One record of a real run, each format, and the program it is meant for.

A run of all engines on synthetic:nano leaves a record and pytest-benchmark's JSON. `rwkvperf report` makes every format
of the record, and then: a JSON Schema validator reads the record, Chromium the page, GitHub's own markdown renderer
(cmark-gfm) the markdown, llama.cpp's compare-llama-bench.py and SQLite llama-bench's formats beside what llama-bench
itself measured on the same file, and `pytest-benchmark compare` its JSON. What a consumer shows is compared with the
record. Programs that this project does not depend on are installed into an environment of their own (--tools names one
that has them); a consumer that is not there is a line that says so. The history has a proof of its own,
benchmarks/history/planted.py, which is quoted.

    python benchmarks/reports/every_format.py
"""

from __future__ import annotations

import argparse
import html.parser
import json
import re
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.core import folders
from pytest_rwkvperf.reports import formats, llama_bench
from pytest_rwkvperf.reports import html as pages
from pytest_rwkvperf.store import record as records

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_rwkvperf.measure.record import ModelFacts
    from pytest_rwkvperf.store.record import Record, RecordedCase

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TOOLS = ("cmarkgfm>=2024.11", "GitPython>=3.1", "tabulate>=0.9")
RENDER = "import cmarkgfm, sys; print(cmarkgfm.github_flavored_markdown_to_html(sys.stdin.read()))"
LAUNCH = ("--no-sandbox",)  # root has no sandbox; the page is this project's own


class SkipError(Exception):
    """A consumer is not here; the sentence says which and how to get it."""


class WrongError(Exception):
    """A consumer refused a report, or showed something else than the record."""


@dataclass(frozen=True, slots=True)
class Said:
    """What became of one format: its own command, the consumer's, and what that said. `ok` is None when skipped."""

    name: str
    made: str
    consumer: str
    text: str
    ok: bool | None


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a run's files lie, and what reads them."""

    folder: Path
    record: Record
    tools: Path
    script: Path | None

    def run(self, *command: str | Path, **options: Any) -> str:  # noqa: ANN401 - what subprocess takes
        """A program's stdout, in the folder.

        Raises:
            WrongError: it failed; with its last words.
        """
        ended = subprocess.run(
            list(map(str, command)), cwd=self.folder, capture_output=True, text=True, check=False, **options
        )
        if ended.returncode:
            raise WrongError(f"exit {ended.returncode}: {(ended.stderr or ended.stdout).strip()[-400:]}")
        return str(ended.stdout)

    def rate_of(self, case: RecordedCase, workload: str) -> float:
        """Tokens per second as llama-bench's formats have them."""
        (row,) = (row for row in llama_bench.rows_of(self.record, [case]) if row.test == _their_name(workload))
        return row.avg_ts


def _their_name(workload: str) -> str:
    return workload.replace("@", " @ ")


def measure(folder: Path, budget: int) -> str:
    """The shipped bench, and the command as a person would write it."""
    options = ["--rwkv-backend=all", f"--rwkv-budget={budget}", "--rwkv-report=run.json", "--benchmark-json=bench.json"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--rootdir={folder}", *options]
    subprocess.run(command, cwd=folder, check=True)
    return f"pytest {' '.join(options)}"


def make(scene: Scene, name: str, output: str, *more: str) -> str:
    """One report; gives the command as a person would write it."""
    arguments = ["report", "run.json", "--format", name, "-o", output, *more]
    scene.run(sys.executable, "-m", "pytest_rwkvperf.cli", *arguments)
    return f"rwkvperf {' '.join(arguments)}"


# Consumers: each gives its own command and what it said


def schema(scene: Scene, name: str) -> tuple[str, str]:
    """A validator of JSON Schema on the record."""
    import jsonschema

    published = json.loads((ROOT / "docs" / "record.schema.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(published)
    told = json.loads((scene.folder / name).read_text(encoding="utf-8"))
    if errors := [error.message[:200] for error in validator.iter_errors(told)]:
        raise WrongError("; ".join(errors[:3]))
    if validator.is_valid({**told, "surprise": 1}):
        raise WrongError("an unknown key is valid: the schema says nothing")
    same = "the same bytes as" if _bytes(scene, name) == _bytes(scene, "run.json") else "not the bytes of"
    said = f"valid (draft 2020-12; one with an unknown key is not), {same} what the run wrote"
    return f"jsonschema {version('jsonschema')}, docs/record.schema.json", said


def _bytes(scene: Scene, name: str) -> bytes:
    return (scene.folder / name).read_bytes()


def chromium(scene: Scene, name: str) -> tuple[str, str]:
    """A real browser: what it says, what it fetches, and the figures that it shows."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        raise SkipError("Chromium is not installed: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    heard: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(LAUNCH))
        page = browser.new_page()
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("request", lambda request: heard.append(request.url))
        started = time.monotonic()
        page.goto((scene.folder / name).as_uri())
        page.wait_for_selector("#speed-prefill[data-drawn=yes]")
        seconds = time.monotonic() - started
        charts = page.eval_on_selector_all(".chart", "all => all.map(one => one.id)")
        for chart in charts:
            page.locator(f"#{chart}").scroll_into_view_if_needed()
            page.wait_for_selector(f"#{chart}[data-drawn]")
        shown = page.eval_on_selector_all("#figures tbody td:nth-child(5)", "all => all.map(one => one.textContent)")
        told = browser.version
        browser.close()
    expected = [pages.speed(item.rate.median if item.rate else None) for _, item in scene.record.items()]
    if heard != [(scene.folder / name).as_uri()] or shown != expected:
        raise WrongError(f"{heard[1:4]}; speeds {shown}, expected {expected}")
    size = (scene.folder / name).stat().st_size / 1e6
    said = f"{len(charts)} charts, {len(shown)} speeds as in the record, no word on the console, no request"
    return f"Chromium {told} by Playwright", f"{said}; {size:.1f} MB, first chart after {seconds:.2f} s"


class Tables(html.parser.HTMLParser):
    """The text of each table's cells, by row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self._within = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - its signature
        """A table, a row or a cell begins."""
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in {"td", "th"}:
            self.tables[-1][-1].append("")
            self._within = True

    def handle_endtag(self, tag: str) -> None:
        """A cell ends."""
        self._within = self._within and tag not in {"td", "th"}

    def handle_data(self, data: str) -> None:
        """Text of the cell that is open."""
        if self._within:
            self.tables[-1][-1][-1] += data.strip()


def _rendered(scene: Scene, name: str) -> list[list[list[str]]]:
    """The tables of a markdown file as GitHub shows them; every row of a table has as many cells as its head."""
    if not _has(scene.tools, "cmarkgfm"):
        raise SkipError("cmarkgfm is not installed: pip install cmarkgfm")
    text = (scene.folder / name).read_text(encoding="utf-8")
    tables = Tables(scene.run(scene.tools, "-c", RENDER, input=text)).tables
    ragged = [row for table in tables for row in table if len(row) != len(table[0])]
    if ragged or len(tables) != len(re.findall(r"^\|[ :|-]+\|$", text, re.MULTILINE)):
        raise WrongError(f"{len(tables)} tables; rows of another length: {ragged[:2]}")
    return tables


def _has(python: Path, module: str) -> bool:
    return subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0


def _cells(tables: list[list[list[str]]]) -> set[str]:
    return {cell for table in tables for row in table for cell in row}


def markdown(scene: Scene, name: str) -> tuple[str, str]:
    """The terminal's tables."""
    tables = _rendered(scene, name)
    wanted = {pages.speed(item.rate.median) for _, item in scene.record.items() if item.rate}
    if missing := wanted - _cells(tables):
        raise WrongError(f"not in the tables: {sorted(missing)}")
    return "cmark-gfm, GitHub's renderer", f"{len(tables)} tables, all {len(wanted)} speeds in their cells"


def llama_markdown(scene: Scene, name: str) -> tuple[str, str]:
    """llama-bench's table."""
    tables = _rendered(scene, name)
    wanted = {f"{row.avg_ts:.2f} ± {row.stddev_ts:.2f}" for row in llama_bench.rows(scene.record)}
    if len(tables) != 1 or (missing := wanted - _cells(tables)):
        raise WrongError(f"{len(tables)} tables; not in them: {sorted(missing)}")
    return "cmark-gfm, GitHub's renderer", f"one table with all {len(wanted)} speeds"


def issues(scene: Scene, stem: str) -> tuple[str, str]:
    """One file for each engine, in one language."""
    files = sorted(scene.folder.glob(f"{stem}-*.md"))
    engines = {case.case.backend for case in scene.record.cases if case.measured}
    if len(files) != len(engines):
        raise WrongError(f"{len(files)} files for {len(engines)} engines")
    tables = [table for file in files for table in _rendered(scene, file.name)]
    wanted = {f"{item.rate.median:.2f}" for _, item in scene.record.items() if item.rate}
    if missing := wanted - _cells(tables):
        raise WrongError(f"not in the tables: {sorted(missing)}")
    return "cmark-gfm, GitHub's renderer", f"{len(files)} files, {len(tables)} tables, all {len(wanted)} speeds in them"


def _llama_case(record: Record) -> tuple[RecordedCase, ModelFacts]:
    for case in record.cases:
        if case.case.backend == "llama-cpp" and case.measured and case.case.device == "cpu":
            return case, case.measured.model
    raise SkipError("llama.cpp was not measured on the CPU, so there is nothing to hold beside llama-bench")


def _theirs(scene: Scene, notation: str) -> tuple[str, str]:
    """What llama-bench prints of the same file, and its command."""
    case, model = _llama_case(scene.record)
    programs = sorted(folders.cache().glob("build/llama-bench-*/bin/llama-bench"))
    if not programs:
        raise SkipError("llama-bench is not built: benchmarks/fidelity/llama_bench.py does it")
    there = folders.cache() / "models" / model.content_hash[:16]
    if not (there / model.file_name).exists():
        raise SkipError(f"{model.file_name} is not in the cache any more")
    kinds = [item.workload for item in case.items]
    lengths = {kind: ",".join(one[2:] for one in kinds if one.startswith(kind)) or "0" for kind in ("pp", "tg")}
    batch, threads = case.case.chunk, case.case.threads
    options = f"-m {model.file_name} -p {lengths['pp']} -n {lengths['tg']} -r 3 -t {threads} -b {batch} -ngl 0"
    command = [str(programs[-1]), *options.split(), "-o", notation]
    ended = subprocess.run(command, cwd=there, capture_output=True, text=True, check=True)
    return ended.stdout, f"llama-bench {options} -o {notation}"


def _compared(scene: Scene, inputs: list[str], theirs: str) -> tuple[str, str]:
    """llama.cpp's script on both; gives the consumer and what it shows."""
    if scene.script is None:
        raise SkipError(
            "compare-llama-bench.py is not here: it is in llama-cpp-python's source distribution, --script names one"
        )
    if not _has(scene.tools, "git, tabulate"):
        raise SkipError("what the script imports is not installed: pip install GitPython tabulate")
    case, _ = _llama_case(scene.record)
    ours = llama_bench.rows_of(scene.record, [case])[0].build_commit
    given = [part for one in inputs for part in ("-i", one)]
    table = scene.run(scene.tools, scene.script, "-t", "llama-bench", *given, "-b", theirs, "-c", ours)
    lines = [line for line in table.splitlines() if line.startswith("|")][2:]
    for item in case.items:
        speed = f"{scene.rate_of(case, item.workload):.2f}"
        if not any(_their_name(item.workload) in line and speed in line for line in lines):
            raise WrongError(f"{item.workload} at {speed} is not in:\n{table}")
    command = f"compare-llama-bench.py -t llama-bench {' '.join(given)} -b {theirs} -c {ours}"
    shown = "; ".join(" ".join(line.strip("| ").split()) for line in lines)
    return command, f"joins llama-bench's {len(lines)} rows with ours: {shown}"


def compared(notation: str) -> Callable[[Scene, str], tuple[str, str]]:
    """The consumer of one of llama-bench's formats that the script reads."""

    def consume(scene: Scene, name: str) -> tuple[str, str]:
        text, command = _theirs(scene, notation)
        commit = llama_bench.read(text, notation)[0].build_commit  # type: ignore[arg-type]
        ours, inputs = (scene.folder / name).read_text(encoding="utf-8"), [f"theirs.{notation}", name]
        if notation == "jsonl":  # of which it takes one file alone
            inputs, text = ["both.jsonl"], text + ours
        (scene.folder / inputs[0]).write_text(text, encoding="utf-8")
        asked, said = _compared(scene, inputs, commit)
        return f"{command}; {asked}", said

    return consume


def sql(scene: Scene, name: str) -> tuple[str, str]:
    """SQLite, and the script on the database."""
    rows = llama_bench.rows(scene.record)
    with sqlite3.connect(scene.folder / "runs.sqlite") as database:
        database.executescript((scene.folder / name).read_text(encoding="utf-8"))
        found = database.execute("SELECT build_commit, n_prompt, n_gen, avg_ts FROM llama_bench").fetchall()
    if found != [(row.build_commit, row.n_prompt, row.n_gen, row.avg_ts) for row in rows]:
        raise WrongError(f"SQLite has {found}")
    said = f"{len(found)} rows with the record's speeds"
    try:
        text, command = _theirs(scene, "sql")
        with sqlite3.connect(scene.folder / "runs.sqlite") as database:
            database.executescript(text)
            (commit,) = database.execute("SELECT build_commit FROM llama_bench ORDER BY rowid DESC LIMIT 1").fetchone()
        database.close()
        asked, also = _compared(scene, ["runs.sqlite"], commit)
    except SkipError as reason:
        return f"SQLite {sqlite3.sqlite_version}", f"{said}; the script: {reason}"
    return f"SQLite {sqlite3.sqlite_version}; {command} into it too; {asked}", f"{said}; the script {also}"


def benchmark(scene: Scene, name: str) -> tuple[str, str]:
    """pytest-benchmark's own comparison: every workload by name, with the mean of this project's samples."""
    table = scene.run(Path(sys.executable).with_name("pytest-benchmark"), "compare", name, "--columns=mean,rounds")
    told = {one["name"]: one["stats"] for one in json.loads(_bytes(scene, name))["benchmarks"]}
    wrong = []
    for case, item in scene.record.items():
        samples = [time for row in case.times(item.workload) for time in row]
        named = f"test_throughput[{case.case.backend}-{case.case.quant}-"
        (stats,) = [one for key, one in told.items() if key.startswith(named) and key.endswith(f"-{item.workload}]")]
        if stats["rounds"] != len(samples) or abs(stats["mean"] * 1e9 * len(samples) / sum(samples) - 1) > 1e-6:  # noqa: PLR2004
            wrong.append(item.workload)
    lines = [line for line in table.splitlines() if line.startswith("test_throughput[")]
    if wrong or len(lines) != len(list(scene.record.items())):
        raise WrongError(f"{wrong}; {table}")
    return f"pytest-benchmark {version('pytest-benchmark')} compare {name}", (
        f"{len(lines)} rows, each with the mean and the number of the record's samples"
    )


FORMATS: dict[str, tuple[str, Callable[[Scene, str], tuple[str, str]]]] = {
    "json": ("again.json", schema),
    "html": ("report.html", chromium),
    "issue": ("issue.md", lambda scene, _: issues(scene, "issue")),
    "markdown": ("summary.md", markdown),
    "llama-bench-md": ("table.md", llama_markdown),
    "llama-bench-json": ("ours.json", compared("json")),
    "llama-bench-jsonl": ("ours.jsonl", compared("jsonl")),
    "llama-bench-csv": ("ours.csv", compared("csv")),
    "llama-bench-sql": ("ours.sql", sql),
}


def consumed(scene: Scene) -> list[Said]:
    """Every format made and read."""
    if forgotten := set(formats.FORMATS) - set(FORMATS):
        raise WrongError(f"without a consumer here: {', '.join(sorted(forgotten))}")
    found = []
    for name, (output, consumer) in FORMATS.items():
        found.append(_asked(name, make(scene, name, output), scene, output, consumer))
    chinese = make(scene, "issue", "zh.md", "--language", "zh")
    found.append(_asked("issue, in Chinese", chinese, scene, "zh", issues))
    found.append(_asked("pytest-benchmark", "the run's own --benchmark-json", scene, "bench.json", benchmark))
    return found


def _asked(name: str, made: str, scene: Scene, output: str, consumer: Callable[[Scene, str], tuple[str, str]]) -> Said:
    try:
        asked, text = consumer(scene, output)
    except SkipError as reason:
        return Said(name, made, "", f"skipped: {reason}", ok=None)
    except WrongError as error:
        return Said(name, made, consumer.__name__, f"WRONG: {error}", ok=False)
    return Said(name, made, asked, text, ok=True)


def history() -> str:
    """What the proof of the history last found."""
    planted = json.loads((ROOT / "benchmarks" / "history" / "planted.json").read_text(encoding="utf-8"))
    quiet = planted["rows"][0]
    return (
        f"The history's proof is [planted.md](../history/planted.md): in histories of {planted['runs']} stored runs"
        f" that move by {quiet['noise']} each, an 8 % step was found at its run, and its version named, in"
        f" {quiet['at its run, named']} of {planted['seeds']}, with {quiet.get('false alarm', 0)} false alarms in the"
        f" {planted['seeds']} without a step; noisier ones are in its table."
    )


def table(scene: Scene, command: str, found: list[Said]) -> str:
    """The result as markdown."""
    measured = [case for case in scene.record.cases if case.measured]
    engines = ", ".join(f"{case.case.backend} {case.case.quant}" for case in measured)
    lines = [
        "# Every format and its own consumer",
        "",
        f"Made by `every_format.py` from one record: {engines} on {scene.record.cases[0].case.model};",
        f"{scene.record.fingerprint.id}, Python {scene.record.system.python}, {scene.record.started}. The run:",
        "",
        f"```\n{command}\n```",
        "",
    ]
    for one in found:
        verdict = {True: "read as it should be", False: "WRONG", None: "not tried"}[one.ok]
        lines += [f"## {one.name}: {verdict}", "", f"```\n{one.made}\n```", ""]
        if one.consumer:
            lines += [f"`{one.consumer}`", ""]
        lines += [one.text.replace("|", "\\|"), ""]
    return "\n".join([*lines, "## History", "", history(), ""])


def tools(folder: Path) -> Path:
    """An environment with the programs of others; without a package index it stays empty, and they are skipped."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *TOOLS], check=False)
    return python


def compare_script(folder: Path) -> Path | None:
    """llama.cpp's script of the installed llama-cpp-python's release; None without a package index."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "-d", str(folder)]
    subprocess.run([*pip, f"llama-cpp-python=={version('llama-cpp-python')}"], check=False)
    for sdist in folder.glob("llama_cpp_python-*.tar.gz"):
        with tarfile.open(sdist) as archive:
            for member in archive:
                if member.name.endswith("/scripts/compare-llama-bench.py"):
                    archive.extract(member, folder, filter="data")
                    return folder / member.name
    return None


def main() -> int:
    """Measure, make, ask and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=int, default=120, help="seconds of measuring")
    parser.add_argument("--run", type=Path, help="a folder with run.json and bench.json instead of measuring")
    parser.add_argument("--tools", type=Path, help=f"a Python that has {', '.join(TOOLS)}")
    parser.add_argument("--script", type=Path, help="llama.cpp's compare-llama-bench.py; default: fetched")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "run")
        folder.mkdir()
        if options.run:
            for name in ("run.json", "bench.json"):
                shutil.copy(options.run / name, folder)
            own = records.read(folder / "run.json").command
            command = " ".join(["pytest", *(one for one in own if one.startswith(("--rwkv", "--benchmark")))])
        else:
            command = measure(folder, options.budget)
        python = options.tools.absolute() if options.tools else tools(Path(temporary, "tools"))
        script = options.script.resolve() if options.script else compare_script(Path(temporary))
        scene = Scene(folder, records.read(folder / "run.json"), python, script)
        found = consumed(scene)
        text = table(scene, command, found)
    (HERE / "every_format.md").write_text(text, encoding="utf-8")
    print(text)
    return 1 if any(one.ok is False for one in found) else 0


if __name__ == "__main__":
    raise SystemExit(main())
