"""Everything this project shows on a GPU, in resumable steps: each leaves a file in --out, and one that has is skipped.

    python benchmarks/gpu/proof.py --out /tmp/proof                     # baseline and report, builds included
    python benchmarks/gpu/proof.py --out /tmp/proof own-tools slowdown  # these steps, evidence about the figures
    python benchmarks/gpu/proof.py --out /tmp/proof --again web-rwkv    # once more

On a machine that reaches no registry, what it needs travels with it (builds.py), and it begins with the set-up. It ends
after so many minutes, and the same command again goes on, until it ends with 0 and has made the report:

    python benchmarks/gpu/proof.py --out /tmp/proof --carried FOLDER --minutes 9

Without --carried it needs the engines (`make setup-cuda`) and .venv's Python. Both need a CUDA device, nvcc, a C++
compiler, and about 45 GB of disk for 2.9b in its formats. `--baseline-dir` is where the baseline lies or goes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import builds

from pytest_rwkvperf.backends import registry
from pytest_rwkvperf.certify import planted

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_rwkvperf.core.cases import Format

    Step = Callable[[argparse.Namespace], str]

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
FILES: tuple[tuple[Format, str | None, tuple[str, ...]], ...] = (
    ("pth", None, ("",)),
    ("st", None, ("", "web-rwkv:int8", "web-rwkv:nf4")),
    ("gguf", "f16", ("",)),
    ("gguf", "q8_0", ("",)),
    ("gguf", "q4_k_m", ("",)),
)


def say(sentence: str) -> None:
    """A line with the time."""
    print(f"[{time.strftime('%H:%M:%S')}] {sentence}", flush=True)


def quiet(_sentence: str, _fraction: float) -> None:
    """Nobody is told how far a file is."""


def _make_files(options: argparse.Namespace, *, plain: bool) -> None:
    """2.9b in its plain formats, or in the quantized ones, which are made from the plain ones; the oracle's logits."""
    from pytest_rwkvperf.core.cases import Workload
    from pytest_rwkvperf.models.model_store import ModelStore
    from pytest_rwkvperf.oracle import expected
    from pytest_rwkvperf.worker.tools import WorkerTools

    tools = WorkerTools(quiet)
    models = ModelStore(tools, quiet)
    model = models.resolve(options.model)
    wanted = [one for one in FILES if (one[1] in {None, "f16"}) is plain]
    with ThreadPoolExecutor() as pool:
        made = list(pool.map(lambda one: models.file_for(model, one[0], one[1]), wanted))
    for file in made:
        say(f"{file.path.name}: {file.size_bytes / 2**30:.2f} GiB")
    asked = [(file, one) for file, (_, _, emulations) in zip(made, wanted, strict=True) for one in emulations]
    # Each one would take all processors, and wait for the others in loops.
    share = {"OPENBLAS_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // len(asked)))}
    with patch.dict(os.environ, share), ThreadPoolExecutor() as pool:
        list(pool.map(lambda pair: expected.logits_files(*pair, deep=True, solver=tools), asked))
        timed = [Workload.parse(name) for name in ("pp512", "tg128")]
        list(pool.map(lambda pair: expected.known_answers(pair[0], pair[1], timed, tools), asked))
    say(f"the oracle's logits of {len(asked)} weights")


def build(options: argparse.Namespace) -> str:
    """The plain files and rwkv's kernels; with --carried the set-up compiles llama.cpp meanwhile."""
    with ThreadPoolExecutor() as pool:
        making = pool.submit(_make_files, options, plain=True)
        told = kernels()
        making.result()
    return f"rwkv's kernels: {told}"


def files(options: argparse.Namespace) -> str:
    """2.9b in every format, and the oracle's logits of each."""
    for plain in (True, False):
        _make_files(options, plain=plain)
    return ""


def kernels() -> str:
    """Rwkv's CUDA kernels, compiled as a case would."""
    code = "import os; os.environ.update(RWKV_V7_ON='1', RWKV_JIT_ON='1', RWKV_CUDA_ON='1'); import rwkv.model"
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    return f"{time.monotonic() - started:.1f} s"


def bare(options: argparse.Namespace) -> Path:
    """A folder without tests, where the shipped suite is all that pytest finds: --out holds packages and sources."""
    folder: Path = options.out / "bare"
    folder.mkdir(exist_ok=True)
    return folder


def pytest_in(options: argparse.Namespace) -> list[str]:
    """The command that starts pytest there."""
    return [sys.executable, "-m", "pytest", f"--rootdir={bare(options)}", "-p", "no:cacheprovider"]


def run_pytest(options: argparse.Namespace, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A run of the plugin: the record and what it printed are kept, of a run that is stopped too."""
    command = [*pytest_in(options), f"--rwkv-model={options.model}", *arguments]
    command += [f"--rwkv-report={options.out / name}.json"]
    environment = {**os.environ, "COLUMNS": "220"}
    log = options.out / f"{name}.txt"
    with log.open("w", encoding="utf-8") as printed:
        code = subprocess.call(command, stdout=printed, stderr=subprocess.STDOUT, cwd=bare(options), env=environment)
    text = log.read_text(encoding="utf-8")
    print(text, flush=True)
    return subprocess.CompletedProcess(command, code, text)


def measuring(name: str, *arguments: str, save: bool = True) -> Step:
    """A step that is a run against the baseline."""

    def run(options: argparse.Namespace) -> str:
        saving = ["--rwkv-save-baseline"] if save else []
        done = run_pytest(options, name, f"--rwkv-baseline-dir={options.baseline_dir}", *arguments, *saving)
        if done.returncode:
            raise SystemExit(f"{name}: pytest ended with {done.returncode}")
        return ""

    return run


def batches(name: str, backend: str, quant: str, workload: str, sizes: str, *device: str) -> Step:
    """A step that measures a generation with several numbers of sequences, without a baseline and witnesses."""
    case = (f"--rwkv-backend={backend}", f"--rwkv-quant={quant}", f"--rwkv-workload={workload}")
    return measuring(name, *case, f"--rwkv-batch={sizes}", "--rwkv-witness=none", *device, save=False)


def against(options: argparse.Namespace, name: str, old: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A/B of this Python against itself with the variables `old`."""
    python = options.out / f"{name}-python"
    python.write_text(f'#!/bin/sh\n{old} exec "{sys.executable}" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    return run_pytest(options, name, f"--rwkv-ab={python}", "--rwkv-budget=180", *arguments)


def slowdown(options: argparse.Namespace) -> str:
    """A/B through the ordinary command: a llama.cpp that takes 5 % longer against itself."""
    offered = options.out / "offered"
    offered.mkdir(parents=True, exist_ok=True)
    planted.offer(offered)
    case = (f"--rwkv-backend={planted.NAME}", "--rwkv-quant=f16", "--rwkv-workload=tg128", "--rwkv-tolerance=1%")
    with patch.dict(os.environ, planted.variables(offered, registry.BUILT_IN["llama-cpp"], 1.05)):
        done = against(options, "slowdown", f"{planted.SLOWDOWN}=1", *case)
    if done.returncode != 1 or "REGRESSION" not in done.stdout:
        raise SystemExit(f"the slowdown was not found: pytest ended with {done.returncode}")
    return "found"


def threads(options: argparse.Namespace) -> str:
    """web-rwkv's generation with a thread per core, as it is, against two threads, as the binding once had them."""
    case = ("--rwkv-backend=web-rwkv", "--rwkv-quant=fp16", "--rwkv-workload=tg128", "--rwkv-device=vulkan:0")
    done = against(options, "threads", "TOKIO_WORKER_THREADS=2", *case)
    if done.returncode not in {0, 1}:  # a verdict either way is what was asked for
        raise SystemExit(f"threads: pytest ended with {done.returncode}")
    return ""


def own_tools(options: argparse.Namespace) -> str:
    """web-rwkv's own `bench`, the native protocol and the uniform one, in turn."""
    command = [sys.executable, str(CHECKOUT / "benchmarks" / "fidelity" / "own_tools.py"), "--engines", "web-rwkv"]
    command += ["--model", options.model, "--workloads", "pp512,tg128", "--rounds", "4", "--name", "own_tools"]
    command += ["--folder", str(options.out)]
    bench = options.web_rwkv_bench or (builds.web_rwkv_bench(options.carried) if options.carried else None)
    if bench:
        command += ["--web-rwkv-bench", str(bench)]
    subprocess.run(command, check=True)
    return ""


def neighbours(options: argparse.Namespace) -> str:
    """What a measurement on one GPU loses while another GPU of the host is measured."""
    command = [sys.executable, HERE / "neighbours.py", "--model", options.model]
    subprocess.run([*command, "--out", options.out / "neighbours.json"], check=True)
    return ""


def report(options: argparse.Namespace) -> str:
    """The tables of what the other steps left."""
    command = [sys.executable, HERE / "report.py", "--name", "report", "--folder", options.out, options.out]
    subprocess.run(command, check=True)
    return str(options.out / "report.md")


# A prefill at a depth is left to steps of their own: RWKV's state is of one size, and it is as fast as at none.
_DEEP_PREFILL = "--rwkv-workload=pp512@d4096"
_WORKLOADS = "--rwkv-workload=pp512,tg128,tg128@d4096"
_SHALLOW = "--rwkv-workload=pp512,tg128"
_CUDA = ("--rwkv-budget=1", "--rwkv-device=cuda:0")  # the documented minimum of three processes a case
_VULKAN = ("--rwkv-budget=1", "--rwkv-device=vulkan:0")
_LLAMA_QUANTS = "llama-cpp=f16+q8_0+q4_k_m"
_LLAMA = ("--rwkv-backend=llama-cpp", f"--rwkv-quant={_LLAMA_QUANTS}")
_WEB = ("--rwkv-backend=web-rwkv", "--rwkv-quant=fp16,int8,nf4")
_KERNELS = ("--rwkv-backend=rwkv", "--rwkv-quant=fp16@kernels,bf16@kernels,fp32@kernels")
_FLA = ("fla", "fp16", "tg16")
_WEB_BATCHES = ("web-rwkv", "fp16", "tg16")
STEPS: dict[str, Step] = {
    "build": build,
    "files": files,
    # rwkv without kernels goes along, which saves a start of pytest; its prefill is a loop over the tokens, and 4096 of
    # them would take half a minute
    "llama-cpp": measuring(
        "llama-cpp", "--rwkv-backend=llama-cpp,rwkv", f"--rwkv-quant={_LLAMA_QUANTS},rwkv=fp16", _WORKLOADS, *_CUDA,
        "-k", "llama or not d4096",
    ),
    "web-rwkv": measuring("web-rwkv", *_WEB, _WORKLOADS, *_VULKAN),
    "rwkv": measuring("rwkv", *_KERNELS, _WORKLOADS, *_CUDA),
    "report": report,
    "own-tools": own_tools,
    "slowdown": slowdown,
    "threads": threads,
    "compare-llama": measuring("compare-llama", *_LLAMA, _SHALLOW, *_CUDA, save=False),
    "compare-rwkv": measuring("compare-rwkv", *_KERNELS, _SHALLOW, *_CUDA, save=False),
    "compare-web": measuring("compare-web", *_WEB, _SHALLOW, *_VULKAN, save=False),
    "deep-llama-cpp": measuring("deep-llama-cpp", *_LLAMA, _DEEP_PREFILL, *_CUDA),
    "deep-web-rwkv": measuring("deep-web-rwkv", *_WEB, _DEEP_PREFILL, *_VULKAN),
    "deep-rwkv": measuring("deep-rwkv", *_KERNELS, _DEEP_PREFILL, *_CUDA),
    # with LLAMA_CPP_LIB_PATH at a llama.cpp that was built with GGML_VULKAN
    "llama-vulkan": measuring("llama-vulkan", *_LLAMA, _SHALLOW, *_VULKAN),
    # for benchmarks/batches/scaling.py, which joins parts
    "batches-llama-cpp": batches("batches-llama-cpp", "llama-cpp", "f16", "tg32", "1,2,4,8,16,32,64,128,256", *_CUDA),
    "batches-fla-64": batches("batches-fla-64", *_FLA, "1,2,4,8,16,32,64", *_CUDA),
    "batches-fla-256": batches("batches-fla-256", *_FLA, "1,128,256", *_CUDA),
    "batches-fla-1024": batches("batches-fla-1024", *_FLA, "1,512,1024", *_CUDA),
    "batches-web-16": batches("batches-web-16", *_WEB_BATCHES, "1,2,4,8,16", *_VULKAN),
    "batches-web-64": batches("batches-web-64", *_WEB_BATCHES, "1,32,64", *_VULKAN),
    "batches-web-256": batches("batches-web-256", *_WEB_BATCHES, "1,128,256", *_VULKAN),
    # these two with two GPUs
    "neighbours": neighbours,
    "spread": measuring(
        "spread", "--rwkv-backend=all", "--rwkv-quant=llama-cpp=f16,web-rwkv=fp16,rwkv=fp16@kernels",
        "--rwkv-device=cuda:0,cuda:1,vulkan:0,vulkan:1", "--rwkv-budget=1", "-n2", save=False,
    ),
}  # fmt: skip

THE_PROOF = list(STEPS)[: list(STEPS).index("report") + 1]
"""What is run when no step is named: the baseline and its report. The others are evidence about them."""

SECONDS = {
    "llama-cpp": 340, "web-rwkv": 500, "rwkv": 450, "own-tools": 330,
    "batches-llama-cpp": 600, "batches-fla-64": 400, "batches-fla-256": 300, "batches-fla-1024": 400,
    "batches-web-16": 300, "batches-web-64": 300, "batches-web-256": 500,
    "deep-web-rwkv": 400, "deep-rwkv": 250, "slowdown": 240, "threads": 330, "neighbours": 240,
}  # fmt: skip
"""What a step takes at most on an H200 with 16 cores, where that is more than OTHER_SECONDS."""

OTHER_SECONDS = 150

GO_ON = 75
"""Exit code when there is more to do and no time: EX_TEMPFAIL (sysexits.h)."""


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "steps", nargs="*", help=f"of {', '.join(STEPS)}; default: the first ones, {THE_PROOF[0]} to {THE_PROOF[-1]}"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="synthetic:2.9b")
    parser.add_argument("--baseline-dir", type=Path, default=CHECKOUT / "baselines")
    parser.add_argument("--carried", type=Path, help="the folder of what travelled: see builds.py")
    parser.add_argument("--engines", default="", help="with --carried, set up only these, separated by commas")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no step that may end after these")
    parser.add_argument("--again", action="store_true", help="also the steps that have been done")
    parser.add_argument("--web-rwkv-bench", help="the program; default: what travelled, else own_tools.py builds it")
    return parser.parse_args()


def main() -> int:
    """Run the steps."""
    options = parsed()
    begun = float(os.environ.setdefault("RWKVPERF_PROOF_BEGUN", str(time.monotonic())))  # by the first process's clock
    options.out = options.out.absolute()
    options.baseline_dir = options.baseline_dir.absolute()  # steps run elsewhere
    options.out.mkdir(parents=True, exist_ok=True)
    if options.carried and not builds.inside():
        carried = options.carried.absolute()
        beside = [__file__, "--out", str(options.out), "--model", options.model, "--carried", str(carried), "build"]
        builds.set_up(carried, options.out, options.engines, beside)
        os.execv(builds.PYTHON, [str(builds.PYTHON), *sys.argv])  # noqa: S606 - the same command, where the engines are
    sys.path.insert(0, str(HERE))
    if options.carried:
        from pytest_rwkvperf.core import folders  # not in the first process: it needs packages

        builds.take_oracle(options.carried, folders.cache() / "oracle")
    for name in options.steps or THE_PROOF:
        note = options.out / f"{name}.done"
        if note.exists() and not options.again:
            continue
        if time.monotonic() - begun + SECONDS.get(name, OTHER_SECONDS) > options.minutes * 60:
            say(f"{name} may take longer than is left: the same command again goes on with it")
            return GO_ON
        started = time.monotonic()
        told = STEPS[name](options)
        seconds = round(time.monotonic() - started, 1)
        note.write_text(json.dumps({"seconds": seconds, "told": told}) + "\n", encoding="utf-8")
        say(f"{name}: {seconds} s {told}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
