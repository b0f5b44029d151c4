"""Set up, measure and check pytest-rwkvperf; everything goes into .venv in the checkout.

setup        install all that measuring and testing need; --engines=NAME,NAME: of the engines only these
setup-cuda   the same with llama.cpp for NVIDIA's GPUs; --with-installed: with the packages of the Python that runs this
bench ...    set-up, then the shipped suite: `pytest rwkvperf --rwkv-backend=all ...`
test ...     set-up, then all tests of the project and of the binding, or `pytest ...`
lint         ruff and import-linter; rustfmt and clippy where they are installed
types        mypy, strict, over the package, the tests, the tools and the benchmarks
docs         the documentation's site, in site/; a broken link fails
prove ...    the longer proofs of what this project claims about itself: all, or those named
clean        remove what the others made in this checkout

Where the environment variable CI is set, an engine that cannot be installed is a failure.
"""

# .venv/rwkvperf-setup.json has a hash of each finished step's inputs, `cuda`, CMake's variables of a llama.cpp with
# CUDA, and `lender`, the prefix of the Python whose packages .venv also sees. Only the standard library is there yet.

from __future__ import annotations

import sys

if sys.version_info < (3, 10):  # noqa: UP036 -- the message is for people with an older Python
    sys.exit(f"pytest-rwkvperf needs Python 3.10 or newer, not {sys.version}: make bench PYTHON=python3.12")

import ast
import contextlib
import hashlib
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
WINDOWS = sys.platform == "win32"
PYTHON = VENV / ("Scripts/python.exe" if WINDOWS else "bin/python")
PACKAGES = "Lib/site-packages" if WINDOWS else "lib/python3*/site-packages"
STAMPS = VENV / "rwkvperf-setup.json"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "pytest-rwkvperf", "build")
CARGO = {"CARGO_TARGET_DIR": os.environ.get("CARGO_TARGET_DIR") or str(CACHE / "cargo-target")}  # clones share it
CXX = shlex.split(os.environ.get("CXX") or "c++")
REPORT_SECONDS = 30.0
TESTED_EXTRAS = "hub,history,html"
PROCESSOR = Path("/proc/cpuinfo").read_text(errors="replace") if sys.platform == "linux" else ""

PROOFS = {  # what `prove` runs, in this order, from benchmarks/
    "startup": "startup/startup.py", "gate": "gate/reruns.py", "steps": "gate/steps.py",
    "fidelity": "fidelity/llama_bench.py", "tools": "fidelity/own_tools.py", "parity": "parity/spread.py",
    "planted": "parity/planted.py", "formats": "models/write_formats.py", "history": "history/planted.py",
    "faults": "faults/table.py", "merge": "fleet/merge.py", "fleet": "fleet/cluster.py",
    "witnesses": "witnesses/witnesses.py",
    "verdicts": "verdicts/verdicts.py", "simulated": "verdicts/simulated.py", "ab": "ab/levels.py",
}  # fmt: skip
CRATE = "--manifest-path native/web-rwkv/Cargo.toml"
COMMANDS = {  # what the other commands run, each a program of .venv but for cargo
    "bench": ("pytest rwkvperf --rwkv-backend=all",),  # the shipped suite alone: the project's tests are not collected
    "test": (
        f"cargo test {CRATE} --release --locked",
        "pytest -c native/web-rwkv/pyproject.toml native/web-rwkv/tests",
        # A file's tests share engines; three processes, because much of their time is waiting.
        "pytest -n 3 --dist loadfile --no-loadscope-reorder",
    ),
    "lint": (
        "ruff check .",
        "ruff format --check .",
        "lint-imports",
        f"cargo fmt {CRATE} --check",
        f"cargo clippy {CRATE} --release --locked --all-targets -- -D warnings",
    ),
    "types": ("mypy",),
    "docs": ("mkdocs build --strict --clean",),  # --quiet would hide warnings from --strict too
}


class SetupError(Exception):
    """The set-up of everything, or of one engine, cannot go on; the message is a whole sentence."""


@dataclass(frozen=True, slots=True)
class Step:
    """A part of the set-up. `prepare` returns the installer's arguments; `check` is code that fails if it is broken."""

    name: str
    typical: str
    prepare: Callable[[], list[str]]
    distribution: str
    check: str
    files: tuple[str, ...] = ("constraints.txt",)


def say(text: str) -> None:
    """Print a line at once, also into a file or a pipe, and in whatever encoding."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def output(*command: str | Path) -> str:
    """What a program prints; empty where it cannot be run."""
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return ""


def run(name: str, title: str, *command: str | Path, **variables: str) -> None:
    """Run a command with its output in a log, saying every 30 seconds for how long; SetupError where it fails."""
    say(f"{title} ...")
    started, log = time.monotonic(), VENV / "rwkvperf-setup-logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    pins = {f"{tool}_BUILD_CONSTRAINT": str(ROOT / "constraints.txt") for tool in ("UV", "PIP")}
    environment = {**os.environ, **CARGO, **pins, "PIP_NO_INPUT": "1", **variables}
    with log.open("a", encoding="utf-8", errors="backslashreplace") as written:
        print(f"\n$ {shlex.join(map(str, command))}", file=written, flush=True)
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=written, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(REPORT_SECONDS)
                break
            say(f"  {time.monotonic() - started:.0f} s so far")
    finally:
        if process.poll() is None:
            process.terminate() if sys.platform == "win32" else os.killpg(process.pid, signal.SIGTERM)
            process.wait()
    if process.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").rpartition("\n$ ")[2].splitlines()
        shown = "\n    ".join([*lines[-25:], f"Whole log: {log}"])
        raise SetupError(f"{title} ended with exit code {process.returncode}. Its last lines:\n    {shown}")
    say(f"  done after {time.monotonic() - started:.0f} s")


def run_in_view(*command: str | Path, **variables: str) -> int:
    """Run a command in the foreground and return its exit code; interrupted, it may end its own children first."""
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, **variables}) as process:
        try:
            code = process.wait()
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt):  # the command got Ctrl-C too
                process.terminate()
            process.wait()
            raise
    return code if code >= 0 else 128 - code  # ended by a signal: as shells count


def require(program: str, why: str, how: str) -> None:
    """Raise SetupError where a program is missing; not on Windows, where Visual Studio's are on no PATH."""
    if not WINDOWS and shutil.which(program) is None:
        raise SetupError(f"{why} needs {program}, which is not installed. {how}, then run this again.")


def apt_install(why: str, *packages: str) -> None:
    """Install Debian packages where that needs no password; the SetupError has the command for people who do."""
    command = f"apt-get install -y --no-install-recommends {' '.join(packages)}"
    script = f"apt-get update && DEBIAN_FRONTEND=noninteractive {command} -o DPkg::Lock::Timeout=120"
    root = [] if WINDOWS or os.geteuid() == 0 else ["sudo", "-n"]
    run("apt", f"{why}: `sudo {command}`", "env", *root, "sh", "-c", script)


def prepare_core() -> list[str]:
    """This project as an editable install, with its tools; with lent packages, what compiles llama.cpp beside them."""
    programs = [name for name in ("cmake", "ninja") if not shutil.which(name)]
    lent = ["--editable", str(ROOT), "scikit-build-core>=0.9.2", *programs]
    return lent if read_stamps()["lender"] else ["--editable", f"{ROOT}[{TESTED_EXTRAS}]", "--group", "dev"]


def prepare_web_rwkv() -> list[str]:
    """The web-rwkv binding by its path: the name is never looked up on an index."""
    folders = os.environ.get("PIP_FIND_LINKS", "").split()
    wheels = [str(wheel) for folder in folders for wheel in Path(folder).glob("rwkvperf_web_rwkv-*.whl")]
    if wheels and not shutil.which("cargo"):
        say(f"There is no cargo: {wheels[-1]} is installed, whatever sources it was made from.")
        return wheels[-1:]
    require("cargo", "native/web-rwkv is compiled and", RUSTUP)
    return [str(ROOT / "native" / "web-rwkv")]


def prepare_llama_cpp() -> list[str]:
    """The wheel of llama-cpp-python, compiled with `llama_cpp_variables` unless a clone has done so before."""
    require(CXX[0], "llama-cpp-python is compiled and", COMPILER)
    options = [f"-Ccmake.define.{name}={value}" for name, value in llama_cpp_variables().items()]
    options += ["--no-binary=llama-cpp-python"] if read_stamps()["cuda"] else []  # a wheel is most likely for the CPU
    options += ["--no-build-isolation"] if read_stamps()["lender"] else []  # in which a lent cmake does not start
    # pip's cache does not look at -C, and uv's is of no use where an index does not let it keep sdists.
    (pin,) = re.findall(r"^llama-cpp-python==\S+", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    inputs = [pin, *options, os.environ.get("CMAKE_ARGS", ""), (ROOT / LEAN).read_text(encoding="utf-8")]
    wheels = CACHE / f"llama-cpp-{digest(*inputs, *re.findall('^flags.*', PROCESSOR, re.MULTILINE)[:1])}"
    if not any(wheels.glob("*.whl")):
        fresh = wheels.with_suffix(f".{os.getpid()}")
        options.append(f"-Ccmake.define.CMAKE_PROJECT_llama_cpp_INCLUDE={(ROOT / LEAN).as_posix()}")
        pip = [str(PYTHON), "-m", "pip", "wheel", "--no-deps", "--no-cache-dir", "--wheel-dir", str(fresh), *options]
        run("llama-cpp", "Compiling llama-cpp (3 to 6 min on 2 cores, 30 with CUDA)", *pip, pin)
        with contextlib.suppress(OSError):  # another clone was faster
            fresh.replace(wheels)
    return [str(next(wheels.glob("*.whl")))]


def llama_cpp_variables() -> dict[str, str]:
    """How llama.cpp is compiled: without images, with CUDA where that is wanted, without AMX where GCC is before 14."""
    # llama.cpp's q8_0 ended with SIGILL at its first `tilezero` on a Xeon with AMX, compiled by Debian 12's GCC 12.2; a
    # plain program's AMX worked. Most likely its amxtileintrin.h is wrong: by it `ldtilecfg` reads 8 of 64 bytes, so
    # what sets the others may be dropped. Each processor with AMX has these parts of AVX-512.
    variables = {"LLAVA_BUILD": "OFF", **read_stamps()["cuda"]}
    if " amx_tile" in PROCESSOR:
        macros = output(*CXX, "-dM", "-E", "-x", "c++", os.devnull)
        gcc = re.search(r"__GNUC__ (\d+)", macros)
        if gcc and int(gcc[1]) < 14 and "__clang__" not in macros:  # noqa: PLR2004 -- see above
            parts = ("AVX512", "AVX512_VBMI", "AVX512_VNNI", "AVX512_BF16")
            variables |= {"GGML_NATIVE": "OFF", **{f"GGML_{part}": "ON" for part in parts}}
    return variables


def cuda_variables() -> dict[str, str]:
    """CMake's variables for llama.cpp with CUDA, for this machine's GPUs and compiler; SetupError without nvcc."""
    how = "Install NVIDIA's CUDA toolkit of the version that `nvidia-smi` names, or set CUDA_HOME to where it is"
    require("nvcc", "compiling llama.cpp and rwkv's kernels for CUDA", how)
    nvcc = str(shutil.which("nvcc"))
    gpus = {*output("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader").replace(".", "").split()}
    target = {"CMAKE_CUDA_COMPILER": nvcc, "CMAKE_CUDA_ARCHITECTURES": ";".join(sorted(gpus)) or "native"}
    # Without kernels for attention, which RWKV has none of, llama.cpp compiles in half the time.
    return {"GGML_CUDA": "ON", "GGML_CUDA_FA": "OFF", "RWKVPERF_NVCC": digest(output(nvcc, "--version")), **target}


def digest(*parts: str) -> str:
    """A hash of texts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


RUSTUP = "Get Rust with rustup (https://rustup.rs)"
COMPILER = "Debian has it in g++, macOS by `xcode-select --install`, Windows in Visual Studio's Build Tools"
SOURCES = tuple(f"native/web-rwkv/{each}" for each in ("*.toml", "*.lock", "*.rs", "src/*.rs", "python/*/*.py*"))
CORE = Step(
    "core", "1 min", prepare_core, "pytest_rwkvperf", "import pytest_rwkvperf", ("pyproject.toml", "constraints.txt")
)
RWKV = Step("rwkv", "1 to 5 min, torch is 2 GB on Linux", lambda: ["rwkv", "torch"], "rwkv", "import rwkv, torch")
ADAPTERS = "import rwkvperf_web_rwkv as web; any(a.backend != 'gl' for a in web.adapters()) or exit('no device')"
WEB_RWKV = Step("web-rwkv", "2 to 5 min on 2 cores", prepare_web_rwkv, "rwkvperf_web_rwkv", ADAPTERS, SOURCES)
LEAN = "tools/llama_cpp.cmake"
LLAMA_CPP = Step(
    "llama-cpp", "1 s", prepare_llama_cpp, "llama_cpp_python", "import llama_cpp", ("constraints.txt", LEAN)
)
OFFLOAD = "import llama_cpp; llama_cpp.llama_supports_gpu_offload() or exit('llama.cpp lists no CUDA device')"
RWKV7_HF = Step("rwkv7-hf", "10 s", lambda: ["rwkv7-hf", "torch"], "rwkv7_hf", "import rwkv7_hf")
FLA = Step("fla", "10 s", lambda: ["flash-linear-attention", "torch"], "flash_linear_attention", "import fla")
ENGINES = (RWKV, RWKV7_HF, FLA, WEB_RWKV, LLAMA_CPP)
MEASURED = (RWKV, WEB_RWKV, LLAMA_CPP)  # by `--rwkv-backend=all`


def has(distribution: str) -> bool:
    """Whether a distribution is installed in .venv."""
    return any(VENV.glob(f"{PACKAGES}/{distribution}-*.dist-info"))


def read_stamps() -> dict[str, Any]:
    """What the set-up has finished; an unreadable file means nothing."""
    stamps = None
    with contextlib.suppress(OSError, ValueError):
        stamps = json.loads(STAMPS.read_text(encoding="utf-8"))
    return {"lender": "", "cuda": {}, **(stamps if isinstance(stamps, dict) else {})}


def write_stamps(**stamps: object) -> None:
    """Note what is finished; the file is replaced as a whole, so an interrupt cannot leave half of it."""
    fresh = STAMPS.with_suffix(".tmp")
    fresh.write_text(json.dumps({**read_stamps(), **stamps}, indent=2) + "\n", encoding="utf-8")
    fresh.replace(STAMPS)


def key_of(step: Step) -> str:
    """A hash of what a step's result is made from."""
    flags = llama_cpp_variables() if step is LLAMA_CPP else {}
    paths = sorted(path for pattern in step.files for path in ROOT.glob(pattern))
    contents = [f"{path.relative_to(ROOT).as_posix()}\0{path.read_text('utf-8', 'replace')}" for path in paths]
    return digest(str(ROOT), read_stamps()["lender"], step.distribution, repr(sorted(flags.items())), *contents)


def finished(step: Step) -> bool:
    """Whether a step's result is there and made from what the checkout holds now."""
    there = PYTHON.exists() and (bool(read_stamps()["lender"]) or has(step.distribution))
    return there and read_stamps().get(step.name) == key_of(step)


def make_venv(lender: str) -> None:
    """Remove .venv and make it with the running Python, without pip; `lender` is written into its stamps."""
    if Path(sys.prefix).resolve() == VENV.resolve():
        raise SetupError(f"{VENV} has to be replaced: run this with the Python that it was made with.")
    if VENV.exists():
        shutil.rmtree(VENV)
    if not Path(os.__file__).with_name("ensurepip").exists() and not lender:  # Debian's python3
        apt_install("This Python makes no virtual environments", f"python3.{sys.version_info.minor}-venv")
    run("venv", "Making .venv", sys.executable, "-m", "venv", "--without-pip", VENV)
    write_stamps(lender=lender)


def lend_packages() -> None:
    """Let .venv see the running Python's packages, where venv lends the base Python's, and pin only what is missing."""
    names = next(VENV.glob(PACKAGES)) / "rwkvperf-installed.pth"
    encoding = "utf-8" if sys.version_info >= (3, 13) else None  # as `site` reads it
    if not names.exists():
        names.write_text("\n".join(each for each in sys.path if each.endswith("-packages")), encoding)
    lent = importlib.metadata.distributions(path=names.read_text(encoding).splitlines())
    there = {re.sub(r"[-_.]+", "-", each.metadata["Name"]).lower() for each in lent}
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = "".join(pin for pin in pins if pin.partition("==")[0] not in there)
    (VENV / "rwkvperf-constraints.txt").write_text(kept, encoding="utf-8")


def install_uv() -> None:
    """Install pip and uv as pinned in constraints.txt; only pip if uv cannot be installed."""
    pins = re.findall(r"^(?:pip|uv)==\S+", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    if read_stamps().get("installers") != pins:
        if not has("pip"):
            run("uv", "Adding pip", PYTHON, "-m", "ensurepip")
        try:
            run("uv", "Installing pip and uv", PYTHON, "-m", "pip", "install", "--only-binary=:all:", *pins)
        except SetupError as error:
            say(f"uv cannot be installed, so pip installs everything. {error}")
            if "--group" not in output(PYTHON, "-m", "pip", "install", "--help"):  # the Python's own pip is before 25.1
                run("uv", "Installing pip", PYTHON, "-m", "pip", "install", "--only-binary=:all:", pins[0])
        write_stamps(installers=pins)


def installer(step: Step) -> tuple[list[str], dict[str, str]]:
    """The command that installs packages, and its variables: uv reads none of pip's settings and sees nothing lent."""
    uv = shutil.which("uv", path=str(PYTHON.parent)) or shutil.which("uv")
    lines = [line.partition("=") for line in output(PYTHON, "-m", "pip", "config", "list").splitlines()]
    settings = {name.rpartition(".")[2]: ast.literal_eval(value).split() for name, _, value in reversed(lines)}
    if uv and not read_stamps()["lender"] and not {"no-index", "proxy", "trusted-host", "client-cert"} & {*settings}:
        names = {"index-url": "UV_DEFAULT_INDEX", "extra-index-url": "UV_INDEX", "cert": "SSL_CERT_FILE"}
        known = {name: own for name, own in names.items() if name in settings and own not in os.environ}
        folders = [f"--find-links={folder}" for folder in settings.get("find-links", ())]
        command = [uv, "pip", "install", "--no-progress", "--python", str(PYTHON), *folders]
        variables = {own: " ".join(settings[name]) for name, own in known.items()}
        fresh = ["--refresh-package", step.distribution] if step in {CORE, WEB_RWKV} else []  # made from a folder here
        return [*command, *fresh], variables
    return [str(PYTHON), "-m", "pip", "install", "--progress-bar=off"], {}


def install(step: Step) -> None:
    """Install a step that is not finished, check that it can be imported, and note that it is finished."""
    if finished(step):
        return
    arguments, (command, variables) = step.prepare(), installer(step)
    pins = VENV / "rwkvperf-constraints.txt" if read_stamps()["lender"] else ROOT / "constraints.txt"
    if step in {WEB_RWKV, LLAMA_CPP} and has(step.distribution):  # another build of the same version would be kept
        run(step.name, f"Removing {step.name}", PYTHON, "-m", "pip", "uninstall", "-y", step.distribution)
    run(step.name, f"Installing {step.name} ({step.typical})", *command, "-c", pins, *arguments, **variables)
    code = OFFLOAD if step is LLAMA_CPP and read_stamps()["cuda"] else step.check
    check = (step.name, f"Checking {step.name}", PYTHON, "-c", code)
    try:
        run(*check)
    except SetupError:
        if step is not WEB_RWKV or sys.platform != "linux":
            raise
        apt_install("web-rwkv needs a Vulkan loader and a driver", "mesa-vulkan-drivers", "libvulkan1")
        run(*check)
    write_stamps(**{step.name: key_of(step)})


def set_up(engines: Sequence[Step] = ENGINES) -> int:
    """Bring .venv up to date; 0, or 1 where an engine is missing and CI is set. SetupError where the core is."""
    if all(map(finished, (CORE, *engines))):
        return 0
    started, missing = time.monotonic(), []
    if not PYTHON.exists():
        make_venv("")
    if read_stamps()["lender"]:
        lend_packages()
    else:
        install_uv()
    install(CORE)
    for step in engines:
        try:
            install(step)
        except SetupError as error:  # noqa: PERF203 -- without one engine the others are installed all the same
            say(f"{step.name} is not installed: {error}")
            missing.append(step.name)
    again = f" Missing, see above: {', '.join(missing)}. The next run of this command tries again." if missing else ""
    say(f"Set-up took {time.monotonic() - started:.0f} s.{again}")
    return 1 if missing and os.environ.get("CI", "").lower() not in {"", "0", "false"} else 0


def named_engines(names: str) -> Sequence[Step]:
    """The steps of some engines, separated by commas; SetupError for a name that is none."""
    known = {step.name: step for step in ENGINES}
    unknown = [name for name in names.split(",") if name not in known]
    if unknown:
        raise SetupError(f"--engines={names}: there is no {', '.join(unknown)}; known are {', '.join(known)}.")
    return [known[name] for name in names.split(",")]


def setup(*, cuda: bool, with_installed: bool, engines: str = "") -> int:
    """Install all that measuring and testing need into .venv.

    `cuda`: with llama.cpp for NVIDIA's GPUs; `with_installed`: with the packages of the Python that runs this;
    `engines`: names, separated by commas; by default all, and beside a Python's own packages those of `bench`.
    """
    wanted = named_engines(engines) if engines else MEASURED if with_installed else ENGINES
    variables = cuda_variables() if cuda else {}
    lender = sys.prefix if with_installed else ""
    if not PYTHON.exists() or read_stamps()["lender"] != lender:
        make_venv(lender)
    if cuda or not finished(LLAMA_CPP):  # without setup-cuda, a build for CUDA that works stays
        write_stamps(cuda=variables)
    code = set_up(wanted)
    say(f"Measure with: {PYTHON.relative_to(ROOT)} -m pytest --rwkv-backend=all")
    return 1 if cuda and LLAMA_CPP in wanted and not finished(LLAMA_CPP) else code


def run_lines(command: str, rest: Sequence[str]) -> int:
    """Set up, then run all lines of a command; with arguments for pytest (`rest`) only the last one."""
    if command != "bench" and read_stamps()["lender"]:
        raise SetupError(f"{VENV} is for measuring alone (setup-cuda --with-installed); `setup` makes it whole.")
    if code := set_up({"bench": MEASURED, "test": ENGINES}.get(command, ())):
        return code
    codes = []
    for line in COMMANDS[command][-1 if rest else 0 :]:
        program, *arguments = line.split()
        needed = {"fmt": "cargo-fmt", "clippy": "cargo-clippy"}.get(arguments[0] if arguments else "", program)
        if program == "cargo" and not shutil.which(needed):
            say(f"`{line}` is skipped, as there is no {needed}. {RUSTUP}.")
        elif program == "cargo":
            codes.append(run_in_view(program, *arguments, **CARGO))
        elif "native" not in line or has(WEB_RWKV.distribution):
            start = [PYTHON.with_name(program)] if program == "lint-imports" else [PYTHON, "-m", program]
            codes.append(run_in_view(*start, *arguments, *rest, NO_MKDOCS_2_WARNING="1"))
    return max(codes)


def prove(names: Sequence[str]) -> int:
    """Run proofs, all or those named."""
    if unknown := {*names} - {*PROOFS}:
        raise SetupError(f"No proof is called {', '.join(sorted(unknown))}. There are: {', '.join(PROOFS)}.")
    return set_up() or max([run_in_view(PYTHON, f"benchmarks/{PROOFS[name]}") for name in names or PROOFS])


def clean() -> int:
    """Remove what the others made in this checkout."""
    for name in (".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "site"):
        shutil.rmtree(ROOT / name, ignore_errors=True)
    return 0


def main(argv: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    command, rest = "".join(argv[:1]), [part for part in argv[1:] if part != "--"]
    engines = next((part for part in rest if part.startswith("--engines=")), "")
    takes = {
        **dict.fromkeys(("bench", "test", "prove"), rest),
        "setup": [part for part in rest if part == engines],
        "setup-cuda": [part for part in rest if part in {"--with-installed", engines}],
    }
    choice = engines.removeprefix("--engines=")
    actions: dict[str, Callable[[], int]] = {
        "setup": lambda: setup(cuda=False, with_installed=False, engines=choice),
        "setup-cuda": lambda: setup(cuda=True, with_installed="--with-installed" in rest, engines=choice),
        "prove": lambda: prove(rest),
        "clean": clean,
        **{name: lambda: run_lines(command, rest) for name in COMMANDS},
    }
    if command not in actions or rest not in ([], takes.get(command)):
        say(str(__doc__))
        return 0 if command in {"", "-h", "--help"} else 2
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    # Where rustup and NVIDIA's installers put their programs before a new shell knows.
    homes = (os.environ.get("CARGO_HOME") or Path.home() / ".cargo", os.environ.get("CUDA_HOME") or "/usr/local/cuda")
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", ""), *(str(Path(home, "bin")) for home in homes)])
    try:
        return actions[command]()
    except SetupError as error:
        say(f"The set-up cannot go on. {error}")
        return 1
    except KeyboardInterrupt:
        say("\nInterrupted. The next run goes on from the last finished step.")
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
