"""Set up, measure and check pytest-rwkvperf: what `make` calls, and what people without make call directly.

Standard library only, so that it runs before anything is installed. Every step of the set-up leaves its key (a hash of
what it was made from) in `.venv/rwkvperf-setup.json` and is done again only when that changes or when it failed.
"""

from __future__ import annotations

import platform
import sys

if sys.version_info < (3, 10):  # noqa: UP036 -- people with an older Python are who this sentence is for
    sys.exit(
        f"pytest-rwkvperf needs Python 3.10 or newer; this is {platform.python_version()} ({sys.executable}). "
        "Use a newer one, for example `make bench PYTHON=python3.12` or `python3.12 tools/dev.py bench`."
    )

import argparse
import contextlib
import ctypes
import functools
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import locale
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
WINDOWS = sys.platform == "win32"
OLDEST_PYTHON = (3, 10)
SILENT_SECONDS = 1.0
REPORT_SECONDS = 30.0
TICK_SECONDS = 0.2
GRACE_SECONDS = 10.0
PTH = "utf-8" if sys.version_info >= (3, 13) else locale.getpreferredencoding(do_setlocale=False)
"""How `site` reads a `.pth` file: UTF-8 from Python 3.13 on."""

INTERRUPTED = 130  # a shell's code for a command ended by Ctrl-C: 128 + SIGINT

# What `prove` runs, in this order: name -> (script, what it shows and how long it takes on 2 cores).
PROOFS: dict[str, tuple[str, str]] = {
    "startup": ("benchmarks/startup/startup.py", "what the plugin adds to pytest's start, unused; 3 min"),
    "gate": ("benchmarks/gate/reruns.py", "ten reruns of unchanged code and one slowed run; 10 min"),
    "fidelity": ("benchmarks/fidelity/llama_bench.py", "the same figures as llama-bench; 20 min, its build apart"),
    "tools": ("benchmarks/fidelity/own_tools.py", "the same as the tools when measuring natively; 6 min, builds apart"),
    "parity": ("benchmarks/parity/spread.py", "how far right answers lie from the oracle's; 30 min"),
    "planted": ("benchmarks/parity/planted.py", "which planted bugs the parity check sees; 30 min"),
    "formats": ("benchmarks/models/write_formats.py", "speed and memory of writing and converting models; 2 min"),
    "history": ("benchmarks/history/planted.py", "a step planted in stored runs, found and nothing else; 8 min"),
    "faults": ("benchmarks/faults/table.py", "every fault, how soon it is noticed and what is said; 10 min"),
    "merge": ("benchmarks/fleet/merge.py", "the records of 200 machines joined; 1 min"),
    "fleet": ("benchmarks/fleet/cluster.py", "a Ray cluster with nodes that come to grief; 2 min, needs ray"),
    "verdicts": ("benchmarks/verdicts/verdicts.py", "error rates and power on recorded sessions, beside peers'; 2 min"),
    "simulated": ("benchmarks/verdicts/simulated.py", "error rates where all is as assumed, thousands of runs; 5 min"),
    "ab": ("benchmarks/ab/power.py", "false alarms and power of A/B; 40 min"),
}


class SetupError(Exception):
    """Something that the set-up cannot go on without; the message is a whole sentence for the person."""


class MissingToolError(SetupError):
    """A tool of the system that an engine needs is not there; the message says how to get it."""


@dataclass(frozen=True, slots=True)
class Checkout:
    """One clone of the repository and the virtual environment inside it.

    `lender` is the prefix of the Python whose packages that environment also sees; empty for none.
    """

    root: Path
    cache: Path
    lender: str = ""

    @property
    def with_installed(self) -> bool:
        """Whether the environment sees another Python's packages."""
        return bool(self.lender)

    @property
    def venv(self) -> Path:
        """The virtual environment's folder."""
        return self.root / ".venv"

    @property
    def python(self) -> Path:
        """The virtual environment's interpreter."""
        return self.venv / ("Scripts/python.exe" if WINDOWS else "bin/python")

    @property
    def stamps(self) -> Path:
        """Where the finished steps' keys are kept."""
        return self.venv / "rwkvperf-setup.json"

    @property
    def packages(self) -> Path:
        """Where the virtual environment's own packages lie."""
        major_minor = ".".join(str(number) for number in venv_version(self)[:2])
        return (self.venv / "Lib" if WINDOWS else self.venv / "lib" / f"python{major_minor}") / "site-packages"

    @property
    def lent(self) -> Path:
        """Names, for Python's start, the folders of packages that the virtual environment sees behind its own."""
        return self.packages / "rwkvperf-installed.pth"

    @property
    def constraints(self) -> Path:
        """The exact versions for pip."""
        return self.venv / "rwkvperf-constraints.txt" if self.with_installed else self.root / "constraints.txt"

    @property
    def native(self) -> Path:
        """The web-rwkv binding's sources."""
        return self.root / "native" / "web-rwkv"

    def module(self, name: str, *arguments: str | Path) -> list[str]:
        """The command that runs a module with the virtual environment's interpreter."""
        return [str(self.python), "-m", name, *map(str, arguments)]

    def log(self, step: str) -> Path:
        """Where the output of a step's commands goes."""
        return self.venv / "rwkvperf-setup-logs" / f"{step}.log"


@dataclass(frozen=True, slots=True)
class Step:
    """One part of the set-up: `install` runs when `files` or the installed distributions say that it must."""

    name: str
    title: str
    typical: str
    install: Callable[[Checkout, Step], None]
    files: tuple[str, ...]
    distributions: tuple[str, ...]
    imports: str
    engine: bool = True


@dataclass(slots=True)
class Progress:
    """What is being done and for how long: a live line on a terminal, elsewhere a line every 30 seconds.

    No line stays of what takes less than a second.
    """

    title: str
    typical: str
    stream: TextIO = field(default_factory=lambda: sys.stdout)
    clock: Callable[[], float] = time.monotonic
    started: float = field(init=False)
    reported: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.started = self.clock()

    def tick(self) -> None:
        """Say how long it has been, if it is time to."""
        now = self.clock()
        if self.stream.isatty():
            self.reported = now
            self._live(f"{self.title}: {duration(now - self.started)} so far ({self.typical})")
        elif self.reported is None and now - self.started >= SILENT_SECONDS:
            self.reported = now
            self._line(f"{self.title} ({self.typical}) ...")
        elif self.reported is not None and now - self.reported >= REPORT_SECONDS:
            self.reported = now
            self._line(f"  {duration(now - self.started)} so far ({self.typical})")

    def end(self, outcome: str) -> None:
        """Say how it ended, if it took long enough to be spoken of."""
        elapsed = self.clock() - self.started
        if self.stream.isatty():
            self._live("")
            self.stream.write("\r")
        if elapsed >= SILENT_SECONDS:
            self._line(f"{self.title}: {outcome} after {duration(elapsed)}")

    def _live(self, text: str) -> None:
        width = shutil.get_terminal_size().columns - 1
        self.stream.write("\r" + text[:width].ljust(width))
        self.stream.flush()

    def _line(self, text: str) -> None:
        self.stream.write(text + "\n")
        self.stream.flush()


def duration(seconds: float) -> str:
    """A time span for people: `0.4 s`, `42 s`, `6 min 05 s`."""
    if seconds < 10:  # noqa: PLR2004 -- below ten seconds the tenths are worth reading
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def say(text: str) -> None:
    """Print one sentence now, also where stdout is a file or a pipe."""
    print(text, flush=True)


def build_cache() -> Path:
    """The folder for what the set-up compiles, shared by all clones, inside this project's cache folder of the user.

    The places are platformdirs', which is not installed yet when this runs.
    """
    if WINDOWS:
        local = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        return local / "pytest-rwkvperf" / "Cache" / "build"
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "pytest-rwkvperf" / "build"


# Commands ------------------------------------------------------------------------------------------------------------


def end_tree(process: subprocess.Popen[bytes]) -> None:
    """End a command started by `running` and everything that it started."""
    if WINDOWS:
        subprocess.run(["taskkill", "/T", "/F", "/PID", str(process.pid)], capture_output=True, check=False)
        process.wait()
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)


def run_quietly(
    title: str, typical: str, *commands: Sequence[str], log: Path, env: Mapping[str, str] | None = None
) -> None:
    """Run commands one after the other with their output in `log`, saying what is done and how long it takes.

    Raises SetupError with the output's last lines when one fails. An interrupt ends the whole process tree.
    """
    progress = Progress(title, typical)
    for command in commands:
        with running(command, log, env or {}) as one:
            one.wait(progress)
    progress.end("done")


@dataclass(frozen=True, slots=True)
class Running:
    """A command that has been started; `log` has from byte `start` on what it says."""

    command: Sequence[str]
    process: subprocess.Popen[bytes]
    log: Path
    start: int

    def wait(self, progress: Progress) -> None:
        """Report until it ends; raises SetupError with the output's last lines where it failed."""
        while self.process.poll() is None:
            progress.tick()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(TICK_SECONDS)
        if self.process.returncode != 0:
            progress.end("failed")
            raise SetupError(failure_text(self.command, self.process.returncode, self.log, self.start))


@contextlib.contextmanager
def running(command: Sequence[str], log: Path, env: Mapping[str, str]) -> Iterator[Running]:
    """Start a command in a process group of its own; whoever leaves before it ends, ends its whole process tree."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        output.write(f"\n$ {' '.join(command)}\n".encode())
        output.flush()
        start = output.tell()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **env},
            cwd=ROOT,
            start_new_session=not WINDOWS,
        )
    try:
        yield Running(command, process, log, start)
    finally:
        if process.poll() is None:
            end_tree(process)


def failure_text(command: Sequence[str], code: int, log: Path, start: int, lines: int = 25) -> str:
    """A sentence about a failed command with the last lines of its output, read from byte `start` of `log`."""
    with log.open("rb") as output:
        output.seek(start)
        tail = output.read().decode("utf-8", "replace").splitlines()[-lines:]
    shown = "\n".join(f"    {line}" for line in tail)
    name = " ".join([Path(command[0]).name, *command[1:4]])
    return f"`{name} ...` ended with exit code {code}. Its last lines:\n{shown}\n    Everything it said: {log}"


def run_in_view(command: Sequence[str], *, env: Mapping[str, str] | None = None) -> int:
    """Run a command in the foreground, in the repository's root, and return its exit code.

    On Ctrl-C the command has heard it too: it gets time to end its own children before it is ended.
    """
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, **(env or {})}) as process:
        try:
            code = process.wait()
        except BaseException:
            for end in (process.terminate, process.kill):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE_SECONDS)
                    break
                end()
            raise
    return code if code >= 0 else 128 - code  # ended by a signal: as a shell says it


def pip_install(checkout: Checkout, step: Step, *arguments: str, env: Mapping[str, str] | None = None) -> None:
    """`pip install` into the virtual environment, with the versions of constraints.txt."""
    pip = checkout.module("pip", "install", "--progress-bar", "off", "-c", checkout.constraints, *arguments)
    run_quietly(step.title, step.typical, pip, log=checkout.log(step.name), env=env)


# What a step was made from -------------------------------------------------------------------------------------------


def venv_version(checkout: Checkout) -> tuple[int, ...]:
    """The virtual environment's Python version from its `pyvenv.cfg`, without starting it; () where there is none."""
    try:
        text = (checkout.venv / "pyvenv.cfg").read_text(encoding="utf-8")
    except FileNotFoundError:
        return ()
    found = re.search(r"^version(?:_info)?\s*=\s*(\d+(?:\.\d+)*)", text, re.MULTILINE)
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def input_files(root: Path, names: Sequence[str]) -> Iterator[Path]:
    """The files that `names` stand for, in a fixed order; a folder stands for its sources, without builds and tests."""
    for name in names:
        path = root / name
        if path.is_dir():
            for folder, folders, files in os.walk(path):
                made = {"target", "dist", "tests", "__pycache__"}
                folders[:] = sorted(name for name in folders if name not in made and not name.startswith("."))
                yield from (Path(folder) / file for file in sorted(files) if not file.endswith((".so", ".pyd", ".pyc")))
        elif path.exists():
            yield path


def sources_hash(root: Path, names: Sequence[str]) -> str:
    """A hash of the names and contents of some files, the same in every clone."""
    digest = hashlib.sha256()
    for path in input_files(root, names):
        digest.update(f"\0{path.relative_to(root).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def step_key(checkout: Checkout, step: Step) -> str:
    """A hash of all that decides a step's result: its files, its distributions, the Python and where this is."""
    version = ".".join(map(str, venv_version(checkout)))
    place = (str(checkout.root), sys.platform, platform.machine(), version)
    flags = own_flags(checkout) if step.install is install_llama_cpp else ()
    lent = ("with-installed", checkout.lender) if checkout.with_installed else ()
    parts = (step.name, *place, *lent, *step.distributions, *flags, sources_hash(checkout.root, step.files))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def read_stamps(checkout: Checkout) -> dict[str, str]:
    """The finished steps' keys; an unreadable file means that nothing is known to be finished."""
    try:
        stamps = json.loads(checkout.stamps.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return stamps if isinstance(stamps, dict) else {}


def write_stamp(checkout: Checkout, step: str, key: str) -> None:
    """Note that a step is finished; the file is replaced whole, so that an interrupt cannot leave half of it."""
    stamps = {**read_stamps(checkout), step: key}
    fresh = checkout.stamps.with_suffix(".tmp")
    fresh.write_text(json.dumps(stamps, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    fresh.replace(checkout.stamps)


def installed(checkout: Checkout, distribution: str, version: str = "*") -> bool:
    """Whether the virtual environment holds or is lent a distribution, without starting its Python."""
    lent = checkout.with_installed and checkout.lent.exists()
    folders = (checkout.packages, *(map(Path, checkout.lent.read_text(encoding=PTH).splitlines()[1:]) if lent else ()))
    return any(any(folder.glob(f"{distribution}-{version}.dist-info")) for folder in folders)


def finished(checkout: Checkout, step: Step) -> bool:
    """Whether a step's result is there and made from what the checkout holds now, with whatever flags."""
    made, _, _ = str(read_stamps(checkout).get(step.name)).partition(" ")
    return made == step_key(checkout, step) and all(installed(checkout, name) for name in step.distributions)


# What the system must have -------------------------------------------------------------------------------------------


def need_compiler() -> None:
    """Raise MissingToolError unless there is a C++ compiler for llama-cpp-python."""
    if WINDOWS:
        programs = Path(os.environ.get("ProgramFiles(x86)", r"C:\Program Files (x86)"))  # noqa: SIM112 -- its real name
        there = (programs / "Microsoft Visual Studio" / "Installer" / "vswhere.exe").exists()
        how = "Install Visual Studio's Build Tools with `Desktop development with C++`"
    elif sys.platform == "darwin":  # /usr/bin/c++ is there always and only asks to install the tools
        there = subprocess.run(["xcode-select", "-p"], capture_output=True, check=False).returncode == 0
        how = "Run `xcode-select --install`"
    else:
        there = any(map(shutil.which, (os.environ.get("CXX") or "c++", "g++", "clang++")))
        how = "On Debian and Ubuntu: `sudo apt-get install g++`"
    if not there:
        message = f"llama-cpp-python is compiled from source and there is no C++ compiler. {how}, then run this again."
        raise MissingToolError(message)


def find_cargo() -> Path:
    """Cargo for the web-rwkv binding: on PATH, or where rustup puts it before a new shell knows.

    Raises MissingToolError where there is none.
    """
    home = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
    found = shutil.which("cargo") or shutil.which("cargo", path=str(home / "bin"))
    if found is None:
        message = (
            "the web-rwkv binding is compiled from native/web-rwkv and there is no cargo. "
            "Get Rust with rustup (https://rustup.rs), then run this again."
        )
        raise MissingToolError(message)
    return Path(found)


def may_use_apt() -> list[str] | None:
    """How to start a command as root without a question: [] for root itself, None where that is not possible."""
    if WINDOWS or not shutil.which("apt-get"):
        return None
    if os.geteuid() == 0:
        return []
    if (
        shutil.which("sudo")
        and subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0
    ):
        return ["sudo", "-n"]
    return None


def apt_install(packages: Sequence[str], why: str, log: Path) -> None:
    """Install Debian packages where that needs no question, else raise MissingToolError with the command."""
    prefix = may_use_apt()
    if prefix is None:
        message = f"{why} On Debian and Ubuntu: `sudo apt-get install {' '.join(packages)}`. Then run this again."
        raise MissingToolError(message)
    apt = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=120"]
    install = [*apt, "install", "-y", "--no-install-recommends", *packages]
    title = f"Installing {' and '.join(packages)} with apt-get"
    run_quietly(title, "usually 1 min", [*apt, "update"], install, log=log)


def vulkan_ready() -> bool:
    """Whether a Vulkan loader and at least one driver are there; always so on systems that bring their own API."""
    if not sys.platform.startswith("linux"):
        return True
    try:
        ctypes.CDLL("libvulkan.so.1")
    except OSError:
        return False
    if os.environ.get("VK_DRIVER_FILES") or os.environ.get("VK_ICD_FILENAMES"):
        return True
    shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    folders = [*shared.split(":"), "/etc", "/etc/xdg", str(Path.home() / ".local/share")]
    return any(any(Path(folder, "vulkan", "icd.d").glob("*.json")) for folder in folders)


# The steps -----------------------------------------------------------------------------------------------------------


def install_core(checkout: Checkout, step: Step) -> None:
    """This project as an editable install, with everything but the engines; a machine that lends develops nothing."""
    extra = "" if checkout.with_installed else "[dev]"
    pip_install(checkout, step, "--editable", f"{checkout.root}{extra}")


def install_rwkv(checkout: Checkout, step: Step) -> None:
    """The rwkv package and torch, from wheels."""
    pip_install(checkout, step, *step.distributions)


def install_llama_cpp(checkout: Checkout, step: Step) -> None:
    """llama-cpp-python from source; pip keeps the wheel, so another clone does not compile it again.

    pip's own cache ignores CMAKE_ARGS, so each set of flags has a cache of its own.
    """
    there = installed(checkout, *step.distributions)
    if not there:
        need_compiler()
    if without_amx():
        say("This processor has AMX, which a GCC before 14 compiles wrongly: llama.cpp is compiled without it.")
    flags = llama_cpp_flags(checkout)
    made_by = hashlib.sha256((checkout.root / LEAN).read_bytes())
    made_by.update("\0".join(flags).replace(checkout.root.as_posix(), "").encode())
    kept = Path(os.environ.get("PIP_CACHE_DIR") or checkout.cache) / f"pip-{made_by.hexdigest()[:12]}"
    again = ("--no-deps", "--force-reinstall") if there else ()
    env = {"CMAKE_ARGS": shlex.join(flags), "PIP_CACHE_DIR": str(kept)}
    pip_install(checkout, step, *again, *step.distributions, env=env)


LEAN = "tools/llama_cpp.cmake"


def llama_cpp_flags(checkout: Checkout, *more: str) -> tuple[str, ...]:
    """CMake's flags for llama.cpp: `own_flags`, `more`, and last what the user's CMAKE_ARGS asks for.

    Raises SetupError where that cannot be read.
    """
    asked = os.environ.get("CMAKE_ARGS", "")
    try:
        return (*own_flags(checkout), *more, *shlex.split(asked))
    except ValueError as error:
        message = f"The variable CMAKE_ARGS is {asked!r}, which no shell can read: {error}. Correct it or unset it."
        raise SetupError(message) from None


def own_flags(checkout: Checkout) -> tuple[str, ...]:
    """Without what llama-cpp-python or RWKV has no use for, and without a broken AMX."""
    lean = (checkout.root / LEAN).as_posix()
    return (*without_amx(), "-DLLAVA_BUILD=OFF", f"-DCMAKE_PROJECT_llama_cpp_INCLUDE={lean}")


@functools.cache
def without_amx() -> tuple[str, ...]:
    """CMake's flags for llama.cpp on a processor whose AMX this compiler gets wrong; none elsewhere.

    llama.cpp's q8_0 ended with SIGILL at its first `tilezero` on a Xeon with AMX, compiled by Debian 12's GCC 12.2; a
    plain program's AMX worked there. Most likely because its amxtileintrin.h tells the compiler that `ldtilecfg` reads
    8 bytes of the configuration's 64, so what sets the others may be dropped. What else the processor has stays: each
    with AMX has these parts of AVX-512.
    """
    try:
        processor = PROCESSORS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    if " amx_tile" not in processor or gcc_version() >= FIRST_GCC_WITH_AMX:
        return ()
    parts = ("AVX512", "AVX512_VBMI", "AVX512_VNNI", "AVX512_BF16")
    return ("-DGGML_NATIVE=OFF", *(f"-DGGML_{part}=ON" for part in parts))


PROCESSORS = Path("/proc/cpuinfo")
FIRST_GCC_WITH_AMX = 14


def gcc_version() -> int:
    """The major version of the compiler that CMake takes; one that is no GCC, or none, counts as the newest."""
    compiler = os.environ.get("CXX") or "c++"
    try:
        told = subprocess.run(
            [compiler, "-dM", "-E", "-x", "c++", os.devnull], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return FIRST_GCC_WITH_AMX
    macros = dict(line.split(" ", 2)[1:] for line in told.stdout.splitlines() if line.count(" ") >= 2)  # noqa: PLR2004
    return FIRST_GCC_WITH_AMX if "__clang__" in macros else int(macros.get("__GNUC__", FIRST_GCC_WITH_AMX))


def install_web_rwkv(checkout: Checkout, step: Step) -> None:
    """The web-rwkv binding from native/web-rwkv, by its wheel's path: the name is never looked up on an index."""
    machine = f"{sys.platform}-{platform.machine()}"  # a home folder may be shared by several kinds
    wheels = checkout.cache / "wheels" / machine / sources_hash(checkout.root, step.files)
    try:
        if not any(wheels.glob("*.whl")):
            build_web_rwkv(checkout, step, wheels)
        wanted = [str(path) for path in wheels.glob("*.whl")]
    except MissingToolError:
        if not os.environ.get("PIP_FIND_LINKS"):
            raise
        say("There is no cargo: a wheel from PIP_FIND_LINKS is taken, whatever sources it was made from.")
        wanted = [step.distributions[0]]  # --no-index below: it is looked for there alone
    pip = checkout.module("pip", "install", "--no-index", "--no-deps", "--force-reinstall", *wanted)
    run_quietly("Installing the web-rwkv binding", "a few seconds", pip, log=checkout.log(step.name))


def build_web_rwkv(checkout: Checkout, step: Step, wheels: Path) -> None:
    """Compile the binding's wheel into `wheels`, which appears only when it is whole."""
    cargo = find_cargo()
    env = {**cargo_env(checkout), "PATH": os.pathsep.join([str(cargo.parent), os.environ.get("PATH", "")])}
    if not installed(checkout, "maturin"):  # it comes with the tools, which a set-up with lent packages leaves out
        pip_install(checkout, step, "maturin>=1.9,<2")
    wheels.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=wheels.parent) as building:
        out = Path(building, "wheels")
        manifest = str(checkout.native / "Cargo.toml")
        options = ["--manifest-path", manifest, "--interpreter", str(checkout.python), "--out", str(out)]
        maturin = checkout.module("maturin", "build", "--release", "--locked", "--auditwheel", "skip", *options)
        run_quietly(step.title, step.typical, maturin, log=checkout.log(step.name), env=env)
        with contextlib.suppress(OSError):  # another clone was faster with the same sources
            out.replace(wheels)


def cargo_env(checkout: Checkout) -> dict[str, str]:
    """Cargo's variables: compiled dependencies are shared by all clones."""
    return {"CARGO_TARGET_DIR": os.environ.get("CARGO_TARGET_DIR") or str(checkout.cache / "cargo-target")}


CORE = Step(
    name="core",
    title="Installing pytest-rwkvperf and its tools",
    typical="usually under 1 min",
    install=install_core,
    files=("pyproject.toml", "constraints.txt"),
    distributions=("pytest_rwkvperf", "pytest", "mypy", "ruff", "maturin"),
    imports="pytest_rwkvperf",
    engine=False,
)
MEASURING = replace(CORE, title="Installing pytest-rwkvperf", distributions=("pytest_rwkvperf", "pytest"))
ENGINES = (
    Step(
        name="rwkv",
        title="Installing torch and rwkv",
        typical="about 2 GB to download on Linux; usually 3 to 6 min",
        install=install_rwkv,
        files=("constraints.txt",),
        distributions=("rwkv", "torch"),
        imports="rwkv, torch",
    ),
    Step(
        name="llama-cpp",
        title="Compiling and installing llama-cpp-python",
        typical="usually 3 to 6 min on 2 cores, seconds when pip has it cached",
        install=install_llama_cpp,
        files=("constraints.txt", LEAN),
        distributions=("llama_cpp_python",),
        imports="llama_cpp",
    ),
    Step(
        name="web-rwkv",
        title="Compiling the web-rwkv binding",
        typical="usually 3 to 5 min on 2 cores",
        install=install_web_rwkv,
        files=("native/web-rwkv",),
        distributions=("rwkvperf_web_rwkv",),
        imports="rwkvperf_web_rwkv",
    ),
)


# Set-up --------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def alone(checkout: Checkout) -> Iterator[None]:
    """Let one set-up work on a checkout at a time; a second one waits."""
    locks = checkout.cache / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(str(checkout.root).encode()).hexdigest()[:16]
    with (locks / name).open("wb") as handle:
        told = False
        while not try_lock(handle.fileno()):
            if not told:
                say("Another set-up is at work on this checkout; waiting for it.")
                told = True
            time.sleep(0.5)
        yield  # closing the file, or the end of this process, gives the lock back


def try_lock(descriptor: int) -> bool:
    """Take an exclusive lock on an open file; False when another process has it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def pip_version(checkout: Checkout) -> str:
    """The pip that constraints.txt names: older ones ignore parts of what the set-up asks for."""
    text = (checkout.root / "constraints.txt").read_text(encoding="utf-8")
    found = re.search(r"^pip==(\S+)$", text, re.MULTILINE)
    if found is None:
        message = f"{checkout.root / 'constraints.txt'} names no version of pip; restore the file with git."
        raise SetupError(message)
    return found[1]


def ensure_venv(checkout: Checkout) -> None:
    """Make the virtual environment, or adopt the one that is there; raises SetupError where neither is possible."""
    version = venv_version(checkout)
    if version and version < OLDEST_PYTHON:
        message = f"{checkout.venv} was made with Python {version[0]}.{version[1]}; remove it and run this again."
        raise SetupError(message)
    if not version or not checkout.python.exists():
        make_venv(checkout)
    lend_installed(checkout)
    log = checkout.log("venv")
    if not installed(checkout, "pip"):
        run_quietly("Adding pip to .venv", "a few seconds", checkout.module("ensurepip"), log=log)
    wanted = pip_version(checkout)
    if not checkout.with_installed and not installed(checkout, "pip", wanted):
        pip = checkout.module("pip", "install", f"pip=={wanted}")
        run_quietly(f"Updating .venv's pip to {wanted}", "a few seconds", pip, log=log)


def make_venv(checkout: Checkout) -> None:
    """A fresh virtual environment of the running Python, without pip."""
    pip = importlib.util.find_spec("ensurepip") or (checkout.with_installed and importlib.util.find_spec("pip"))
    if not pip:  # Debian's python3 comes without ensurepip
        package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
        why = "This Python cannot make virtual environments by itself."
        apt_install([package], why, checkout.cache / "apt.log")
    if checkout.venv.exists() and any(checkout.venv.iterdir()):
        say("The Python that .venv was made with is gone: making .venv anew.")
    venv = [sys.executable, "-m", "venv", "--clear", "--without-pip", str(checkout.venv)]
    title = f"Making .venv with Python {platform.python_version()}"
    run_quietly(title, "a few seconds", venv, log=checkout.cache / "venv.log")


def lend_installed(checkout: Checkout) -> None:
    """With `with_installed`: .venv sees the running Python's packages, and pip pins only what these lack. Else neither.

    venv's own `--system-site-packages` lends the base Python's, and the running one may be an environment itself.
    """
    if not checkout.with_installed:
        checkout.lent.unlink(missing_ok=True)
        return
    running, made = sys.version_info[:2], venv_version(checkout)[:2]
    itself = Path(sys.prefix).resolve() == checkout.venv.resolve()
    whole = not checkout.lent.exists() and any(checkout.packages.glob("torch-*.dist-info"))
    if itself or whole or running != made or sys.prefix != checkout.lender:
        message = (
            f"{checkout.venv} (Python {'.'.join(map(str, made))}) cannot be lent the packages of {sys.executable} "
            f"({platform.python_version()}): it is of another version, has a torch of its own, or is lent those of "
            f"{checkout.lender}. Run this with that Python, or remove .venv first."
        )
        raise SetupError(message)
    folders = [folder for folder in sys.path if Path(folder).name in {"site-packages", "dist-packages"}]
    write_changed(checkout.lent, "\n".join([f"# {sys.prefix}", *folders]) + "\n", PTH)
    there = {normalized(str(one.metadata["Name"])) for one in importlib.metadata.distributions(path=folders)}
    pins = (checkout.root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    kept = [pin for pin in pins if normalized(pin.partition("==")[0]) not in there]
    write_changed(checkout.constraints, "\n".join(kept) + "\n", "utf-8")


def write_changed(path: Path, text: str, encoding: str) -> None:
    """Write a file that a build may be reading, unless it holds just that."""
    if not path.exists() or path.read_text(encoding=encoding) != text:
        path.write_text(text, encoding=encoding)


def lender_of(checkout: Checkout) -> str:
    """The prefix of the Python whose packages the environment that is there sees; empty for none."""
    try:
        return checkout.lent.read_text(encoding=PTH).partition("\n")[0].removeprefix("# ")
    except FileNotFoundError:
        return ""


def normalized(name: str) -> str:
    """A distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def bring(checkout: Checkout, step: Step) -> None:
    """Install what a step stands for, see that it can be imported, and note that it is finished."""
    key = step_key(checkout, step)
    step.install(checkout, step)
    check = [str(checkout.python), "-c", f"import {step.imports}"]
    run_quietly(f"Importing {step.imports}", "a few seconds", check, log=checkout.log(step.name))
    write_stamp(checkout, step.name, key)


def ensure_vulkan(checkout: Checkout) -> None:
    """Have a Vulkan driver for web-rwkv: the system's, else Mesa's, which computes on the CPU."""
    if not vulkan_ready():
        why = "web-rwkv needs a Vulkan loader and a driver, and there is none."
        apt_install(["mesa-vulkan-drivers", "libvulkan1"], why, checkout.log("vulkan"))


def set_up(checkout: Checkout, *, require_all: bool, engines: Sequence[Step] = ENGINES) -> int:
    """Bring the checkout's virtual environment up to date; 0, or 1 where `require_all` and an engine is missing.

    Raises SetupError when not even the engine-free part can be installed.
    """
    started = time.monotonic()
    core = MEASURING if checkout.with_installed else CORE
    current = checkout.python.exists() and all(finished(checkout, step) for step in (core, *engines))
    if current and (not engines or vulkan_ready()):
        return 0
    with alone(checkout):
        ensure_venv(checkout)
        if not finished(checkout, core):
            bring(checkout, core)
        missing = [step.name for step in engines if not try_engine(checkout, step)]
    there = [step.name for step in engines if step.name not in missing]
    say(f"Set-up took {duration(time.monotonic() - started)}.")
    if there:
        say(f"Engines ready: {', '.join(there)}.")
    if missing:
        say(f"Missing, see above: {', '.join(missing)}. The next run of this command tries again.")
    return 1 if missing and require_all else 0


def try_engine(checkout: Checkout, step: Step) -> bool:
    """Install one engine; where that fails, say why in a sentence, and the others go on."""
    try:
        if not finished(checkout, step):
            bring(checkout, step)
        if step.name == "web-rwkv":
            ensure_vulkan(checkout)
    except MissingToolError as error:
        say(f"{step.name} is skipped: {error}")
    except SetupError as error:
        say(f"{step.name} could not be installed: {error}")
    else:
        return True
    return False


# Commands for people -------------------------------------------------------------------------------------------------


def command_setup(checkout: Checkout, arguments: argparse.Namespace) -> int:
    """Everything that measuring and testing need, in .venv."""
    code = set_up(checkout, require_all=arguments.require_all)
    if code == 0:
        say(f"Ready. Measure with: {checkout.python.relative_to(checkout.root)} -m pytest --rwkv-backend=all")
    return code


CUDA_FLAGS = ("-DGGML_CUDA=ON", "-DGGML_CUDA_FA=OFF", "-DCMAKE_CUDA_ARCHITECTURES=native")
"""RWKV has no attention: without llama.cpp's kernels for it the build takes half the time."""

CUDA_CHECK = """
from pytest_rwkvperf.backends.llama_cpp import BACKEND
found = [device.id for device in BACKEND.devices() if device.id.startswith("cuda")]
raise SystemExit(0 if found else "llama.cpp was compiled for CUDA and lists no CUDA device")
"""


def find_nvcc() -> Path:
    """CUDA's compiler: on PATH, or where NVIDIA's installers put it.

    Raises MissingToolError where there is none.
    """
    home = Path(os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda")
    found = shutil.which("nvcc") or shutil.which("nvcc", path=str(home / "bin"))
    if found is None:
        message = (
            "llama.cpp and rwkv's kernels are compiled with CUDA's nvcc, and there is none. Install NVIDIA's CUDA "
            "toolkit of the version that `nvidia-smi` names, or set CUDA_HOME to where it is, then run this again."
        )
        raise MissingToolError(message)
    return Path(found)


def cuda_stamp(checkout: Checkout, step: Step, nvcc: Path) -> str:
    """What a build for CUDA was made from; the plain set-up leaves it alone for its key, which stands first."""
    asked = ([str(nvcc), "--version"], ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"])
    return " ".join((step_key(checkout, step), *CUDA_FLAGS, *map(answer_hash, asked)))


def answer_hash(command: Sequence[str]) -> str:
    """A hash of what a program prints; of nothing where it cannot be run."""
    try:
        told = subprocess.run(command, capture_output=True, check=False).stdout
    except OSError:
        told = b""
    return hashlib.sha256(told).hexdigest()[:12]


def compile_for_cuda(checkout: Checkout, step: Step, nvcc: Path, meanwhile: Callable[[], int]) -> int:
    """llama-cpp-python with CUDA, compiled while `meanwhile` does the rest, and see that it finds a device.

    Returns what `meanwhile` does: where that is not 0, nothing is installed. While the compiler works, `meanwhile` may
    have the checkout for itself: the wheel goes elsewhere.
    """
    pip, constrained = checkout.module("pip"), ("-c", str(checkout.constraints))
    log = checkout.log(f"{step.name}-cuda")
    options = ["--no-deps", "--no-cache-dir", "--no-binary", "llama-cpp-python"]  # pip's cache has the CPU's build
    if checkout.with_installed:  # pip's own build environments hide lent packages: a cmake that is one does not start
        options.append("--no-build-isolation")
        programs = [name for name in ("cmake", "ninja") if not shutil.which(name)]
        tools = [*pip, "install", *constrained, "scikit-build-core>=0.9.2", *programs]
        with alone(checkout):
            run_quietly("Preparing to compile llama-cpp-python", "a few seconds", tools, log=log)
    env = {"CMAKE_ARGS": shlex.join(llama_cpp_flags(checkout, *CUDA_FLAGS)), "CUDACXX": str(nvcc)}
    title, typical = "Compiling llama-cpp-python with CUDA", "3 min on 16 cores, 20 to 30 min on 2"
    progress = Progress(title, typical)
    with tempfile.TemporaryDirectory() as wheels:
        build = [*pip, "wheel", "--wheel-dir", wheels, *constrained, *options, "llama-cpp-python"]
        with running(build, log, env) as building:
            say(f"{title} ({typical}); meanwhile the rest ...")
            if code := meanwhile():
                say(f"{title}: ended, as something else is missing.")
                return code
            building.wait(progress)
        progress.end("done")
        with alone(checkout):
            # The one that is there is most likely the CPU's build, which pip would leave.
            again = ("--no-deps", "--force-reinstall") if installed(checkout, *step.distributions) else ()
            install = [*pip, "install", *constrained, *again, *map(str, Path(wheels).glob("*.whl"))]
            check = [str(checkout.python), "-c", CUDA_CHECK]
            run_quietly("Installing llama-cpp-python", "a few seconds", install, check, log=log)
            write_stamp(checkout, step.name, cuda_stamp(checkout, step, nvcc))
    return 0


def command_setup_cuda(checkout: Checkout, arguments: argparse.Namespace) -> int:
    """Set-up with llama-cpp-python compiled for this machine's NVIDIA GPU, and not for the CPU first."""
    nvcc = find_nvcc()
    step = next(step for step in ENGINES if step.name == "llama-cpp")
    others = functools.partial(
        set_up, checkout, require_all=arguments.require_all, engines=[one for one in ENGINES if one is not step]
    )
    set_up(checkout, require_all=arguments.require_all, engines=())  # makes .venv, which compiling needs
    if finished(checkout, step) and read_stamps(checkout)[step.name] == cuda_stamp(checkout, step, nvcc):
        code = others()
    else:
        try:
            need_compiler()
        except MissingToolError:
            others()  # that much can be had
            raise
        code = compile_for_cuda(checkout, step, nvcc, others)
    if code:
        return code
    say("Ready. Measure with: .venv/bin/python -m pytest --rwkv-backend=llama-cpp --rwkv-device=cuda:0")
    say("rwkv's kernels are compiled when they are first asked for: --rwkv-quant=fp16@kernels")
    return 0


def command_bench(checkout: Checkout, arguments: argparse.Namespace) -> int:
    """Set-up, then `pytest --rwkv-backend=all` and what else is given."""
    code = set_up(checkout, require_all=arguments.require_all)
    return code or run_in_view(checkout.module("pytest", "--rwkv-backend=all", *arguments.rest))


def command_test(checkout: Checkout, arguments: argparse.Namespace) -> int:
    """Set-up, then all tests of the project and of the binding; with arguments, only what they choose for pytest."""
    code = set_up(checkout, require_all=arguments.require_all)
    if code or arguments.rest:
        return code or run_in_view(checkout.module("pytest", *arguments.rest))
    codes = [rust(checkout, "test", "--release", "--locked"), test_binding(checkout)]
    return max(*codes, run_in_view(checkout.module("pytest")))


def test_binding(checkout: Checkout) -> int:
    """The binding's own Python tests with its own configuration; 0 where the binding is not installed."""
    if not installed(checkout, "rwkvperf_web_rwkv"):
        return 0
    where = ("-c", str(checkout.native / "pyproject.toml"), str(checkout.native / "tests"))
    return run_in_view(checkout.module("pytest", *where))


def rust(checkout: Checkout, command: str, *arguments: str) -> int:
    """A cargo command on the binding; 0 with a sentence where there is no cargo."""
    try:
        cargo = find_cargo()
    except MissingToolError as error:
        say(f"cargo {command} is skipped: {error}")
        return 0
    manifest = ["--manifest-path", str(checkout.native / "Cargo.toml")]
    return run_in_view([str(cargo), command, *manifest, *arguments], env=cargo_env(checkout))


def command_lint(checkout: Checkout, _: argparse.Namespace) -> int:
    """Ruff's rules and format, the contracts on imports; cargo fmt and clippy where they are installed."""
    set_up(checkout, require_all=False, engines=())
    ruff = checkout.module("ruff")
    codes = [run_in_view([*ruff, "check", "."]), run_in_view([*ruff, "format", "--check", "."])]
    codes.append(run_in_view([str(checkout.python.with_name("lint-imports"))]))
    if shutil.which("cargo-fmt"):
        codes.append(rust(checkout, "fmt", "--check"))
    if shutil.which("cargo-clippy"):
        codes.append(rust(checkout, "clippy", "--release", "--locked", "--all-targets", "--", "-D", "warnings"))
    return max(codes)


def command_types(checkout: Checkout, _: argparse.Namespace) -> int:
    """mypy, strict, over the package, the tests and the tools."""
    set_up(checkout, require_all=False, engines=())
    return run_in_view(checkout.module("mypy"))


def command_docs(checkout: Checkout, _: argparse.Namespace) -> int:
    """The documentation's site, in site/; a link that leads nowhere fails."""
    set_up(checkout, require_all=False, engines=())
    # Without --quiet, which would hide warnings from --strict too. The variable: Material advertises its successor.
    quiet = {"NO_MKDOCS_2_WARNING": "1"}
    return run_in_view(checkout.module("mkdocs", "build", "--strict", "--clean"), env=quiet)


def command_prove(checkout: Checkout, arguments: argparse.Namespace) -> int:
    """The longer proofs of what this project claims about itself: all, or those named."""
    unknown = sorted(set(arguments.rest) - set(PROOFS))
    if unknown or not PROOFS:
        say(f"No proof is called {', '.join(unknown) or 'so'}. There are: {', '.join(PROOFS) or 'none yet'}.")
        return 2
    code = set_up(checkout, require_all=arguments.require_all)
    for name in arguments.rest or PROOFS:
        script, shows = PROOFS[name]
        say(f"\n== {name}: {shows}")
        code = max(code, run_in_view([str(checkout.python), script]))
    return code


def command_clean(checkout: Checkout, arguments: argparse.Namespace) -> int:
    """Remove what the set-up and the tools made in this checkout; with --cache also what clones share."""
    names = [".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "site", "native/web-rwkv/target"]
    paths = [checkout.root / name for name in names] + ([checkout.cache] if arguments.cache else [])
    for path in paths:
        if path.is_symlink():
            path.unlink()
        elif path.exists():
            shutil.rmtree(path)
        else:
            continue
        say(f"Removed {path}")
    return 0


COMMANDS: dict[str, Callable[[Checkout, argparse.Namespace], int]] = {
    "setup": command_setup,
    "setup-cuda": command_setup_cuda,
    "bench": command_bench,
    "test": command_test,
    "lint": command_lint,
    "types": command_types,
    "docs": command_docs,
    "prove": command_prove,
    "clean": command_clean,
}


def parser() -> argparse.ArgumentParser:
    """The command line; each command's help is its function's docstring."""
    top = argparse.ArgumentParser(
        prog="dev.py",
        description="Set up, measure and check pytest-rwkvperf. Everything goes into .venv in the checkout.",
        epilog="What bench and test do not know themselves goes to pytest: dev.py bench --rwkv-save-baseline",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, function in COMMANDS.items():
        text = (function.__doc__ or "").strip()
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        if name in {"setup", "setup-cuda", "bench", "test", "prove"}:
            command.add_argument(
                "--require-all",
                action="store_true",
                default=os.environ.get("CI", "").lower() not in {"", "0", "false"},
                help="fail when an engine is missing (always so where the environment variable CI is set)",
            )
        if name == "setup-cuda":
            command.add_argument(
                "--with-installed",
                action="store_true",
                help="use the packages of the Python that runs this, torch above all, and install only what they lack",
            )
        if name == "clean":
            command.add_argument("--cache", action="store_true", help=f"also remove {build_cache()}")
    return top


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; what `bench`, `test` and `prove` do not know is theirs to pass on."""
    top = parser()
    arguments, rest = top.parse_known_args(argv)
    if rest and arguments.command not in {"bench", "test", "prove"}:
        top.error(f"{arguments.command} takes no {' '.join(rest)}")
    arguments.rest = [part for part in rest if part != "--"]
    return arguments


def ended(number: int, _: FrameType | None) -> None:
    """Turn a TERM into an exit that ends the children on its way."""
    raise SystemExit(128 + number)


DEVELOPING = ("test", "lint", "types", "docs")
"""Commands that need tools which an environment with another Python's packages goes without."""


def chosen(checkout: Checkout, arguments: argparse.Namespace) -> Checkout:
    """With the lender that was asked for; the set-up's own commands can end the lending, all others keep to it."""
    if arguments.command == "setup":
        return checkout
    if arguments.command == "setup-cuda":
        return replace(checkout, lender=sys.prefix if arguments.with_installed else "")
    return replace(checkout, lender=lender_of(checkout))


def need_tools(checkout: Checkout, command: str) -> None:
    """Raise SetupError for what an environment that only measures lacks the tools for."""
    if checkout.with_installed and command in DEVELOPING:
        message = f"{checkout.venv} is for measuring alone (setup-cuda --with-installed); `setup` makes it whole."
        raise SetupError(message)


def main(argv: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a path may hold letters that the terminal's encoding lacks
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, ended)
    arguments = parse(argv)
    checkout = chosen(Checkout(ROOT, build_cache()), arguments)
    try:
        need_tools(checkout, arguments.command)
        return COMMANDS[arguments.command](checkout, arguments)
    except SetupError as error:
        say(f"The set-up cannot go on. {error}")
        return 1
    except KeyboardInterrupt:
        say("\nInterrupted. The next run goes on from the last finished step.")
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
