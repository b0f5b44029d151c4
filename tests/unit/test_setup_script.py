"""The set-up script: what it decides, says and cleans up, without installing anything."""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tools import dev

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROOT = Path(dev.__file__).parent.parent
ENGINES = {step.name: step for step in dev.ENGINES}


@pytest.fixture
def checkout(tmp_path: Path) -> dev.Checkout:
    """A checkout with a virtual environment that holds nothing, in a folder that people do have."""
    made = dev.Checkout(tmp_path / "mein Ordner ü", tmp_path / "cache")
    made.venv.mkdir(parents=True)
    (made.venv / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.7\n", encoding="utf-8")
    (made.root / "constraints.txt").write_text("pip==26.3\ntorch==2.13.0\n", encoding="utf-8")
    sources = made.native / "src"
    sources.mkdir(parents=True)
    (sources / "lib.rs").write_text("// binding\n", encoding="utf-8")
    return made


def pretend_installed(checkout: dev.Checkout, name: str, version: str = "1.0") -> None:
    libraries = "Lib" if dev.WINDOWS else "lib/python3.11"
    (checkout.venv / libraries / "site-packages" / f"{name}-{version}.dist-info").mkdir(parents=True)


def scripted_step(install: Callable[[dev.Checkout, dev.Step], None], imports: str = "json") -> dev.Step:
    return dev.Step("scripted", "Doing it", "no time", install, ("constraints.txt",), (), imports)


def eventually(holds: Callable[[], bool], seconds: float = 120) -> bool:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


def running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# A processor whose AMX the compiler gets wrong

AMX = "flags\t\t: fpu avx512f amx_bf16 avx512_fp16 amx_tile amx_int8 flush_l1d\n"


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, int], tuple[str, ...]]:
    def flags(cpuinfo: str, compiler: int) -> tuple[str, ...]:
        (tmp_path / "cpuinfo").write_text(cpuinfo, encoding="utf-8")
        monkeypatch.setattr(dev, "PROCESSORS", tmp_path / "cpuinfo")
        monkeypatch.setattr(dev, "gcc_version", lambda: compiler)
        return dev.without_amx.__wrapped__()

    return flags


def test_llama_cpp_is_compiled_without_amx_where_the_compiler_gets_it_wrong(
    processor: Callable[[str, int], tuple[str, ...]],
) -> None:
    assert processor(AMX, 12)[0] == "-DGGML_NATIVE=OFF"
    assert processor(AMX, 14) == ()
    assert processor(AMX.replace("amx", "xma"), 12) == ()


@pytest.fixture
def lean(checkout: dev.Checkout, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What CMake reads for llama.cpp in this checkout; the user asks nothing of CMake, and of pip no other cache."""
    path = checkout.root / dev.LEAN
    path.parent.mkdir(exist_ok=True)
    path.write_text("set(LLAMA_BUILD_COMMON OFF)\n")
    for name in ("CMAKE_ARGS", "PIP_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(dev, "without_amx", lambda: ())
    return path


def test_each_set_of_flags_is_a_build_of_its_own_with_its_own_cache(
    checkout: dev.Checkout, monkeypatch: pytest.MonkeyPatch, lean: Path
) -> None:
    asked: list[tuple[tuple[str, ...], dict[str, str]]] = []
    monkeypatch.setattr(dev, "pip_install", lambda *words, env: asked.append((words[2:], env)))
    step = ENGINES["llama-cpp"]
    keys = []

    def install() -> dict[str, str]:
        keys.append(dev.step_key(checkout, step))
        dev.install_llama_cpp(checkout, step)
        return asked[-1][1]

    monkeypatch.setattr(dev, "need_compiler", lambda: None)
    plain = install()
    assert [*asked[-1][0]] == ["llama_cpp_python"]
    pretend_installed(checkout, "llama_cpp_python")
    monkeypatch.setattr(dev, "without_amx", lambda: ("-DGGML_NATIVE=OFF", "-DGGML_AVX512=ON"))
    without_amx = install()
    assert [*asked[-1][0]] == ["--no-deps", "--force-reinstall", "llama_cpp_python"], "pip would leave the other build"
    lean.write_text("# everything\n")
    whole = install()
    assert len({*keys}) == 3
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_VULKAN=ON '-DNAME=two words'")
    own = install()
    assert keys[-1] == keys[-2], "who names them once need not do so at each set-up"
    caches = [Path(env["PIP_CACHE_DIR"]) for env in (plain, without_amx, whole, own)]
    assert len({*caches}) == 4
    assert {path.parent for path in caches} == {checkout.cache}
    assert shlex.split(own["CMAKE_ARGS"]) == [
        "-DGGML_NATIVE=OFF", "-DGGML_AVX512=ON", "-DLLAVA_BUILD=OFF",
        f"-DCMAKE_PROJECT_llama_cpp_INCLUDE={lean.as_posix()}", "-DGGML_VULKAN=ON", "-DNAME=two words",
    ]  # fmt: skip


def test_flags_that_cannot_be_read_end_the_set_up_with_a_sentence(
    checkout: dev.Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CMAKE_ARGS", "-DNAME='two words")
    with pytest.raises(dev.SetupError, match=r"CMAKE_ARGS is .*No closing quotation\. Correct it or unset it\."):
        dev.llama_cpp_flags(checkout)


def test_pips_cache_stays_where_the_user_has_it(
    checkout: dev.Checkout, monkeypatch: pytest.MonkeyPatch, lean: Path
) -> None:
    assert lean.exists()
    caches = []
    monkeypatch.setenv("PIP_CACHE_DIR", "elsewhere")
    monkeypatch.setattr(dev, "need_compiler", lambda: None)
    monkeypatch.setattr(dev, "pip_install", lambda *_, env: caches.append(Path(env["PIP_CACHE_DIR"])))
    dev.install_llama_cpp(checkout, ENGINES["llama-cpp"])
    assert caches[0].parent == Path("elsewhere")


def test_clones_share_what_pip_keeps(checkout: dev.Checkout, monkeypatch: pytest.MonkeyPatch, lean: Path) -> None:
    clone = replace(checkout, root=checkout.root.parent / "clone")
    assert " " in str(checkout.root)
    assert " " not in str(clone.root), "nor in any folder above, for the flags need no quotes there"
    (clone.root / dev.LEAN).parent.mkdir(parents=True)
    shutil.copy(lean, clone.root / dev.LEAN)
    caches = []
    monkeypatch.setattr(dev, "need_compiler", lambda: None)
    monkeypatch.setattr(dev, "pip_install", lambda *_, env: caches.append(env["PIP_CACHE_DIR"]))
    for one in (checkout, clone):
        dev.install_llama_cpp(one, ENGINES["llama-cpp"])
    assert caches[0] == caches[1]


def test_the_compilers_version_is_that_of_gcc_and_another_compiler_counts_as_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def told(macros: str) -> int:
        answer = subprocess.CompletedProcess((), 0, stdout=macros)
        monkeypatch.setattr(subprocess, "run", lambda *_words, **_options: answer)
        return dev.gcc_version()

    assert told('#define __GNUC__ 12\n#define __VERSION__ "12.2.0"\n') == 12
    assert told("#define __GNUC__ 4\n#define __clang__ 1\n") == dev.FIRST_GCC_WITH_AMX


# When a step is done again


def test_a_step_is_finished_only_with_its_stamp_and_its_distributions(checkout: dev.Checkout) -> None:
    step = ENGINES["rwkv"]
    assert not dev.finished(checkout, step)
    dev.write_stamp(checkout, step.name, dev.step_key(checkout, step))
    assert not dev.finished(checkout, step)
    pretend_installed(checkout, "rwkv")
    pretend_installed(checkout, "torch")
    assert dev.finished(checkout, step)


@pytest.mark.parametrize(
    ("path", "text", "changed"),
    [
        ("constraints.txt", "pip==26.3\ntorch==2.14.1\n", {"rwkv", "llama-cpp"}),
        ("native/web-rwkv/src/lib.rs", "// changed\n", {"web-rwkv"}),
        ("native/web-rwkv/src/new.rs", "// new\n", {"web-rwkv"}),
        ("native/web-rwkv/target/release/made.rs", "built\n", set()),
        ("native/web-rwkv/tests/test_it.py", "tested\n", set()),
        (".venv/pyvenv.cfg", "version = 3.13.0\n", {"rwkv", "llama-cpp", "web-rwkv"}),
    ],
)
def test_a_change_redoes_just_the_steps_made_from_it(
    checkout: dev.Checkout, path: str, text: str, changed: set[str]
) -> None:
    before = {name: dev.step_key(checkout, step) for name, step in ENGINES.items()}
    (checkout.root / path).parent.mkdir(parents=True, exist_ok=True)
    (checkout.root / path).write_text(text, encoding="utf-8")
    after = {name: dev.step_key(checkout, step) for name, step in ENGINES.items()}
    assert {name for name in ENGINES if before[name] != after[name]} == changed


def test_the_same_sources_have_one_hash_in_every_clone(checkout: dev.Checkout, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    (clone / "native" / "web-rwkv" / "src").mkdir(parents=True)
    (clone / "native" / "web-rwkv" / "src" / "lib.rs").write_text("// binding\n", encoding="utf-8")
    files = ENGINES["web-rwkv"].files
    assert dev.sources_hash(clone, files) == dev.sources_hash(checkout.root, files)


@pytest.mark.parametrize("text", ["", "{", "[]", '"text"'])
def test_an_unreadable_stamp_file_means_that_nothing_is_finished(checkout: dev.Checkout, text: str) -> None:
    checkout.stamps.write_text(text, encoding="utf-8")
    assert dev.read_stamps(checkout) == {}
    dev.write_stamp(checkout, "core", "key")
    assert json.loads(checkout.stamps.read_text(encoding="utf-8")) == {"core": "key"}


@pytest.mark.parametrize(
    ("text", "version"),
    [("version = 3.11.7\n", (3, 11, 7)), ("home = /x\nversion_info = 3.12.1\n", (3, 12, 1)), ("home = /x\n", ())],
    ids=["venv", "uv-and-virtualenv", "neither"],
)
def test_the_version_of_an_adopted_environment(checkout: dev.Checkout, text: str, version: tuple[int, ...]) -> None:
    (checkout.venv / "pyvenv.cfg").write_text(text, encoding="utf-8")
    assert dev.venv_version(checkout) == version


def test_an_environment_of_an_old_python_is_refused_in_a_sentence(checkout: dev.Checkout) -> None:
    (checkout.venv / "pyvenv.cfg").write_text("version = 3.9.2\n", encoding="utf-8")
    with pytest.raises(dev.SetupError, match=r"made with Python 3\.9; remove it"):
        dev.ensure_venv(checkout)


def test_an_old_python_is_refused_in_a_sentence() -> None:
    code = f"import runpy, sys; sys.version_info = (3, 9, 18, 'final', 0); runpy.run_path({dev.__file__!r})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("pytest-rwkvperf needs Python 3.10 or newer")
    assert "Traceback" not in ended.stderr


# What happens when something is missing or fails


def test_a_failed_engine_is_a_sentence_and_the_next_run_tries_again(
    checkout: dev.Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    tries: list[str] = []

    def fail(_: dev.Checkout, step: dev.Step) -> None:
        tries.append(step.name)
        message = "the compiler is unhappy."
        raise dev.SetupError(message)

    step = scripted_step(fail)
    assert not dev.try_engine(checkout, step)
    assert not dev.try_engine(checkout, step)
    assert tries == ["scripted", "scripted"]
    assert "scripted could not be installed: the compiler is unhappy." in capsys.readouterr().out


@pytest.mark.parametrize(("require_all", "code"), [(False, 0), (True, 1)])
def test_a_missing_tool_skips_one_engine_and_fails_only_where_all_are_required(
    checkout: dev.Checkout,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    require_all: bool,
    code: int,
) -> None:
    def skip(_: dev.Checkout, __: dev.Step) -> None:
        message = "there is no compiler. Install one."
        raise dev.MissingToolError(message)

    monkeypatch.setattr(dev, "CORE", scripted_step(lambda _, __: None))
    monkeypatch.setattr(dev, "ensure_venv", lambda _: None)
    dev.write_stamp(checkout, "scripted", dev.step_key(checkout, dev.CORE))
    engine = dev.Step("engine", "Doing it", "no time", skip, (), (), "json")
    assert dev.set_up(checkout, require_all=require_all, engines=[engine]) == code
    said = capsys.readouterr().out
    assert "engine is skipped: there is no compiler. Install one." in said
    assert "Missing, see above: engine." in said


def test_an_installed_step_that_cannot_be_imported_is_not_finished(checkout: dev.Checkout) -> None:
    checkout.python.parent.mkdir()
    checkout.python.symlink_to(sys.executable)
    step = scripted_step(lambda _, __: None, imports="no_such_engine")
    with pytest.raises(dev.SetupError, match="No module named 'no_such_engine'"):
        dev.bring(checkout, step)
    assert not dev.finished(checkout, step)


def test_a_finished_set_up_starts_nothing(checkout: dev.Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = (dev.CORE, *dev.ENGINES)
    for name in {name for step in steps for name in step.distributions}:
        pretend_installed(checkout, name)
    for step in steps:
        dev.write_stamp(checkout, step.name, dev.step_key(checkout, step))
    checkout.python.parent.mkdir(exist_ok=True)
    checkout.python.touch()
    monkeypatch.setattr(dev, "vulkan_ready", lambda: True)
    monkeypatch.setattr(subprocess, "Popen", None)
    assert dev.set_up(checkout, require_all=True) == 0


@pytest.mark.skipif(dev.WINDOWS, reason="the tools are looked for on PATH on POSIX systems only")
def test_missing_tools_say_how_to_get_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CARGO_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(dev.MissingToolError, match=r"no cargo.*rustup"):
        dev.find_cargo()
    with pytest.raises(dev.MissingToolError, match=r"no C\+\+ compiler.*sudo apt-get install g\+\+"):
        dev.need_compiler()
    with pytest.raises(dev.MissingToolError, match=r"`sudo apt-get install mesa-vulkan-drivers libvulkan1`"):
        dev.apt_install(["mesa-vulkan-drivers", "libvulkan1"], "No Vulkan.", tmp_path / "log")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems bring their own graphics interface")
def test_a_vulkan_loader_without_a_driver_is_not_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: None)
    monkeypatch.setattr(Path, "glob", lambda _, __: iter(()))
    for name in ("VK_DRIVER_FILES", "VK_ICD_FILENAMES"):
        monkeypatch.delenv(name, raising=False)
    assert not dev.vulkan_ready()
    monkeypatch.setenv("VK_DRIVER_FILES", str(tmp_path / "driver.json"))
    assert dev.vulkan_ready()


# Commands


def test_a_failed_command_shows_its_last_lines_and_where_the_rest_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "step.log"
    script = "for number in range(100): print('line', number)\nraise SystemExit(3)"
    with pytest.raises(dev.SetupError) as raised:
        dev.run_quietly("Doing it", "no time", [sys.executable, "-c", script], log=log)
    message = str(raised.value)
    assert "exit code 3" in message
    assert "line 99" in message
    assert "line 50" not in message
    assert str(log) in message
    assert "line 50" in log.read_text(encoding="utf-8")
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(dev.WINDOWS, reason="POSIX tells a signal from an exit code")
def test_a_crash_is_no_success() -> None:
    crash = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    assert dev.run_in_view([sys.executable, "-c", crash]) == 128 + signal.SIGSEGV


@pytest.mark.skipif(dev.WINDOWS, reason="a signal to one process, as `kill` sends it, is POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_the_whole_process_tree(tmp_path: Path, number: signal.Signals, code: int) -> None:
    pid_file = tmp_path / "pid"
    grandchild = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    log = str(tmp_path / "log")
    script = (
        "import pathlib, sys; from tools import dev\n"
        f"def work(checkout, arguments): dev.run_quietly('t', 't', [sys.executable, '-c', {child!r}],"
        f" log=pathlib.Path({log!r}))\n"
        "dev.COMMANDS['setup'] = work\n"
        "sys.exit(dev.main(['setup']))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert eventually(lambda: pid_file.exists() and pid_file.read_text() != "")
    pid = int(pid_file.read_text())
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code
    assert errors == ""
    assert eventually(lambda: not running(pid))


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_is_silent_at_first_then_a_line_every_thirty_seconds() -> None:
    now = 0.0
    stream = io.StringIO()
    progress = dev.Progress("Compiling", "usually 7 min", stream, lambda: now)
    progress.tick()
    assert stream.getvalue() == ""
    for second in range(1, 71):
        now = float(second)
        progress.tick()
    progress.end("done")
    assert stream.getvalue().splitlines() == [
        "Compiling (usually 7 min) ...",
        "  31 s so far (usually 7 min)",
        "  1 min 01 s so far (usually 7 min)",
        "Compiling: done after 1 min 10 s",
    ]


def test_progress_on_a_terminal_keeps_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    stream = Terminal()
    now = 0.0
    progress = dev.Progress("Compiling", "usually 7 min", stream, lambda: now)
    progress.tick()
    now = 2.0
    progress.tick()
    assert "\n" not in stream.getvalue()
    assert all(len(part) < 60 for part in stream.getvalue().split("\r"))
    progress.end("done")
    assert stream.getvalue().count("\n") == 1


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (42.4, "42 s"), (59.6, "1 min 00 s"), (725, "12 min 05 s")]
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert dev.duration(seconds) == text


def test_two_set_ups_of_one_checkout_take_turns(checkout: dev.Checkout) -> None:
    with dev.alone(checkout):
        (lock,) = (checkout.cache / "locks").iterdir()
        with lock.open("wb") as second:
            assert not dev.try_lock(second.fileno())
    with lock.open("wb") as third:
        assert dev.try_lock(third.fileno())


# The command line


@pytest.mark.parametrize(
    "rest", [["--rwkv-quant=f16,q8_0"], ["-k", "llama and not web"], ["tests/unit", "-x", "-q"], ["--req"]]
)
def test_what_bench_does_not_know_goes_to_pytest(rest: list[str]) -> None:
    assert dev.parse(["bench", *rest]).rest == rest


def test_lint_takes_no_arguments_of_pytest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        dev.parse(["lint", "--rwkv-quant=f16"])
    assert "lint takes no --rwkv-quant=f16" in capsys.readouterr().err


@pytest.mark.parametrize(("value", "required"), [("true", True), ("1", True), ("", False), ("false", False)])
def test_ci_requires_all_engines(monkeypatch: pytest.MonkeyPatch, value: str, *, required: bool) -> None:
    monkeypatch.setenv("CI", value)
    assert dev.parse(["test"]).require_all is required


def test_clean_removes_what_was_made_and_follows_no_link(
    checkout: dev.Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    checkout.venv.rename(elsewhere)
    checkout.venv.symlink_to(elsewhere, target_is_directory=True)
    (checkout.root / ".mypy_cache").mkdir()
    monkeypatch.chdir(tmp_path)
    assert dev.command_clean(checkout, dev.parse(["clean"])) == 0
    assert not os.path.lexists(checkout.venv)
    assert (elsewhere / "pyvenv.cfg").exists()
    assert sorted(path.name for path in checkout.root.iterdir()) == ["constraints.txt", "native"]


# CUDA


def test_without_cudas_compiler_nothing_is_begun(checkout: dev.Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout.root))
    monkeypatch.setenv("CUDA_HOME", str(checkout.root))
    monkeypatch.setattr(dev, "set_up", lambda *_, **__: pytest.fail("begun"))
    with pytest.raises(dev.MissingToolError, match="set CUDA_HOME to where it is"):
        dev.command_setup_cuda(checkout, dev.parse(["setup-cuda"]))


@pytest.mark.skipif(sys.platform == "win32", reason="a shell's program stands in for nvcc")
@pytest.mark.parametrize("there", [True, False])
def test_llama_cpp_is_compiled_for_cuda_and_asked_for_its_device(
    checkout: dev.Checkout,
    monkeypatch: pytest.MonkeyPatch,
    there: bool,  # noqa: FBT001 - a parameter
) -> None:
    compiler = checkout.root / "bin" / "nvcc"
    compiler.parent.mkdir()
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", str(checkout.root))
    monkeypatch.setenv("CUDA_HOME", str(checkout.root))
    monkeypatch.delenv("CMAKE_ARGS", raising=False)
    ran: list[tuple[list[str], dict[str, str]]] = []
    asked: list[str] = []

    def set_up(_checkout: dev.Checkout, *, engines: Sequence[dev.Step], **_: object) -> int:
        assert bool(ran) is bool(engines), "what compiling needs comes before it, the rest while it goes on"
        asked.extend(step.name for step in engines)
        return 0

    monkeypatch.setattr(dev, "set_up", set_up)
    monkeypatch.setattr(dev, "need_compiler", lambda: None)
    llama = ENGINES["llama-cpp"]
    monkeypatch.setattr(dev, "installed", lambda *_: there)
    monkeypatch.setattr(dev, "without_amx", lambda: ())
    compiled: list[dev.Progress] = []

    @contextlib.contextmanager
    def running(command: Sequence[str], _log: Path, env: dict[str, str]) -> Iterator[Any]:
        ran.append((list(command), env))
        Path(command[command.index("--wheel-dir") + 1], "llama_cpp_python-1-py3-none-any.whl").touch()
        yield SimpleNamespace(wait=compiled.append)

    def run(*words: Any, **_: object) -> None:  # noqa: ANN401 - titles and commands
        assert compiled
        ran.extend((list(command), {}) for command in words[2:])

    monkeypatch.setattr(dev, "running", running)
    monkeypatch.setattr(dev, "run_quietly", run)
    assert dev.command_setup_cuda(checkout, dev.parse(["setup-cuda"])) == 0
    (build, env), (pip, _), (check, _) = ran
    assert build[build.index("--no-binary") + 1] == build[-1] == "llama-cpp-python"
    assert "--no-cache-dir" in build, "pip's cache may hold the CPU's build"
    assert pip[-1].endswith(".whl")
    assert ("--force-reinstall" in pip) is ("--no-deps" in pip) is there, "without it, its dependencies are needed too"
    assert asked == ["rwkv", "web-rwkv"], "it is not compiled for the CPU first"
    stamps = dev.read_stamps(checkout)
    assert stamps == {llama.name: dev.cuda_stamp(checkout, llama, compiler)}
    assert stamps[llama.name].startswith(" ".join((dev.step_key(checkout, llama), *dev.CUDA_FLAGS)))
    compiler.write_text("#!/bin/sh\necho another release\n")
    assert dev.cuda_stamp(checkout, llama, compiler) != stamps[llama.name]
    assert shlex.split(env["CMAKE_ARGS"]) == [*dev.own_flags(checkout), *dev.CUDA_FLAGS]
    assert env["CUDACXX"] == str(compiler)
    assert "lists no CUDA device" in check[-1]


@pytest.fixture
def cuda(checkout: dev.Checkout, monkeypatch: pytest.MonkeyPatch) -> dev.Checkout:
    """A checkout whose set-up for CUDA lacks just llama.cpp, and whose Python succeeds at whatever it is asked."""
    monkeypatch.setattr(dev, "ROOT", checkout.root)
    monkeypatch.setattr(dev, "build_cache", lambda: checkout.cache)
    monkeypatch.setattr(dev, "find_nvcc", lambda: Path("nvcc"))
    monkeypatch.setattr(dev, "need_compiler", lambda: None)
    monkeypatch.setattr(dev, "set_up", lambda *_, **__: 0)
    checkout.python.parent.mkdir(parents=True)
    answer(checkout, "exit 0")
    return checkout


def answer(checkout: dev.Checkout, script: str) -> None:
    checkout.python.write_text(f"#!/bin/sh\n{script}\n")
    checkout.python.chmod(0o755)


@pytest.mark.skipif(sys.platform == "win32", reason="a shell's program stands in for Python")
def test_a_build_for_cuda_is_done_once_and_again_after_one_for_the_cpu(cuda: dev.Checkout) -> None:
    llama = ENGINES["llama-cpp"]
    log = cuda.log("llama-cpp-cuda")
    assert dev.main(["setup-cuda"]) == 0
    pretend_installed(cuda, "llama_cpp_python")
    once = log.read_text(encoding="utf-8")
    assert dev.main(["setup-cuda"]) == 0
    assert log.read_text(encoding="utf-8") == once
    assert dev.finished(cuda, llama), "the plain set-up leaves it alone"
    dev.write_stamp(cuda, llama.name, dev.step_key(cuda, llama))
    assert dev.main(["setup-cuda"]) == 0
    assert "--force-reinstall" in log.read_text(encoding="utf-8").removeprefix(once)


@pytest.mark.skipif(sys.platform == "win32", reason="a shell's program stands in for Python")
def test_a_failed_build_for_cuda_is_a_sentence_with_its_last_lines(
    cuda: dev.Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(cuda, "echo 'nvcc fatal: Unsupported gpu architecture'; exit 1")
    assert dev.main(["setup-cuda"]) == 1
    said = capsys.readouterr().out
    assert "\nThe set-up cannot go on. `python -m pip wheel ...` ended with exit code 1." in said
    assert "    nvcc fatal: Unsupported gpu architecture\n" in said
    assert said.rstrip().endswith(f"Everything it said: {cuda.log('llama-cpp-cuda')}")
    assert dev.read_stamps(cuda) == {}


@pytest.mark.skipif(sys.platform == "win32", reason="a shell's program stands in for Python")
def test_a_build_for_cuda_ends_where_the_rest_cannot_be_had(
    cuda: dev.Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(cuda, f"echo $$ > '{cuda.root}/new'; mv '{cuda.root}/new' '{cuda.root}/pid'; sleep 600")

    def rest(*_: object, engines: Sequence[dev.Step], **__: object) -> int:
        while engines and not (cuda.root / "pid").exists():
            time.sleep(0.01)
        return 1 if engines else 0

    monkeypatch.setattr(dev, "set_up", rest)
    assert dev.main(["setup-cuda"]) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(int((cuda.root / "pid").read_text()), 0)
    assert dev.read_stamps(cuda) == {}


def test_without_a_compiler_the_other_engines_are_installed_for_cuda(
    cuda: dev.Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def no_compiler() -> None:
        raise dev.MissingToolError("no C++ compiler")

    def rest(*_: object, engines: Sequence[dev.Step], **__: object) -> int:
        asked.extend(step.name for step in engines)
        return 0

    monkeypatch.setattr(dev, "need_compiler", no_compiler)
    monkeypatch.setattr(dev, "set_up", rest)
    assert dev.main(["setup-cuda"]) == 1
    assert asked == ["rwkv", "web-rwkv"]
    assert dev.read_stamps(cuda) == {}


@pytest.mark.skipif(sys.platform == "win32", reason="a shell's program stands in for Python")
def test_a_build_for_the_cpu_that_came_meanwhile_is_replaced(
    cuda: dev.Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dev, "alone", partial(bench_before, dev.alone))
    assert dev.main(["setup-cuda"]) == 0
    assert "--force-reinstall" in cuda.log("llama-cpp-cuda").read_text(encoding="utf-8")


@contextlib.contextmanager
def bench_before(alone: Callable[[dev.Checkout], Any], checkout: dev.Checkout) -> Iterator[None]:
    """The lock, which another terminal's `make bench` has had before."""
    with alone(checkout):
        pretend_installed(checkout, "llama_cpp_python")
        yield


def test_a_set_up_for_cuda_without_nvcc_ends_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert dev.main(["setup-cuda"]) == 1
    assert capsys.readouterr().out.startswith("The set-up cannot go on. llama.cpp and rwkv's kernels are compiled with")


# With the packages of the Python that runs the script


@pytest.fixture
def lent(checkout: dev.Checkout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dev.Checkout:
    """The checkout for a set-up by a Python that has torch 2.11.0 and pip 24.0."""
    folder = tmp_path / "image" / "site-packages"
    for name, version in (("Torch", "2.11.0+cu130"), ("pip", "24.0")):
        facts = folder / f"{name.lower()}-{version}.dist-info"
        facts.mkdir(parents=True)
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*(one for one in sys.path if not one.endswith("site-packages")), str(folder)])
    version = ".".join(map(str, sys.version_info[:3]))
    (checkout.venv / "pyvenv.cfg").write_text(f"version = {version}\n", encoding="utf-8")
    (checkout.root / "constraints.txt").write_text("pip==26.3\nrwkv==0.8.32\ntorch==2.13.0\n", encoding="utf-8")
    checkout.packages.mkdir(parents=True)
    checkout.python.parent.mkdir(exist_ok=True)
    checkout.python.touch()
    return replace(checkout, lender=sys.prefix)


def test_a_lent_package_counts_and_is_not_pinned(lent: dev.Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev, "run_quietly", lambda *_, **__: pytest.fail("its pip will do"))
    dev.ensure_venv(lent)
    assert lent.constraints.read_text(encoding="utf-8") == "rwkv==0.8.32\n"
    step = ENGINES["rwkv"]
    dev.write_stamp(lent, step.name, dev.step_key(lent, step))
    assert not dev.finished(lent, step)
    (lent.packages / "rwkv-0.8.32.dist-info").mkdir()
    assert dev.finished(lent, step)


def test_the_plain_set_up_takes_nothing_lent_as_its_own(lent: dev.Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(dev, "run_quietly", lambda title, *_, **__: ran.append(title))
    dev.ensure_venv(lent)
    plain = replace(lent, lender="")
    assert not dev.installed(plain, "torch")
    assert all(dev.step_key(plain, step) != dev.step_key(lent, step) for step in dev.ENGINES)
    dev.ensure_venv(plain)
    assert not lent.lent.exists()
    assert ran == ["Adding pip to .venv", "Updating .venv's pip to 26.3"]


def test_the_environment_finds_the_running_pythons_packages(checkout: dev.Checkout) -> None:
    made = replace(checkout, lender=sys.prefix)
    dev.make_venv(made)
    dev.lend_installed(made)
    found = subprocess.run(
        [made.python, "-c", "import pytest, sys; print(pytest.__file__, sys.prefix, sep='\\n')"],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert found == [pytest.__file__, str(made.venv)]


@pytest.mark.parametrize("why", ["its own Python", "another version", "another lender", "a torch of its own"])
def test_packages_are_lent_only_by_another_python_of_the_same_version_and_by_one(
    lent: dev.Checkout, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why == "its own Python":
        monkeypatch.setattr(sys, "prefix", str(lent.venv))
    elif why == "another version":
        (lent.venv / "pyvenv.cfg").write_text("version = 3.99.0\n", encoding="utf-8")
    elif why == "another lender":
        lent = replace(lent, lender="/elsewhere")
    else:
        (lent.packages / "torch-2.13.0.dist-info").mkdir()
    with pytest.raises(dev.SetupError, match=r"cannot be lent the packages of .*remove \.venv first"):
        dev.lend_installed(lent)
    assert not lent.lent.exists()


@pytest.mark.parametrize(
    ("command", "lender"),
    [("bench", sys.prefix), ("prove", sys.prefix), ("lint", sys.prefix), ("setup", ""), ("setup-cuda", "")],
)
def test_only_the_set_ups_commands_end_the_lending(lent: dev.Checkout, command: str, lender: str) -> None:
    dev.lend_installed(lent)
    found = dev.chosen(replace(lent, lender=""), dev.parse([command]))
    assert found.lender == lender
    asked = dev.chosen(replace(lent, lender=""), dev.parse(["setup-cuda", "--with-installed"]))
    assert asked == lent


@pytest.mark.parametrize("command", ["test", "lint", "types", "docs"])
def test_what_needs_tools_says_that_an_environment_for_measuring_has_none(
    lent: dev.Checkout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    dev.lend_installed(lent)
    monkeypatch.setattr(dev, "ROOT", lent.root)
    monkeypatch.setattr(dev, "run_quietly", lambda *_, **__: pytest.fail("nothing is installed"))
    assert dev.main([command]) == 1
    assert "is for measuring alone (setup-cuda --with-installed); `setup` makes it whole" in capsys.readouterr().out
    assert lent.lent.exists()


@pytest.mark.parametrize(("with_installed", "asked"), [(False, "[dev]"), (True, "")])
def test_who_only_measures_gets_no_tools(
    checkout: dev.Checkout,
    monkeypatch: pytest.MonkeyPatch,
    with_installed: bool,  # noqa: FBT001 - a parameter
    asked: str,
) -> None:
    taken: list[str] = []
    monkeypatch.setattr(dev, "pip_install", lambda _checkout, _step, *arguments: taken.extend(arguments))
    dev.install_core(replace(checkout, lender="elsewhere" if with_installed else ""), dev.CORE)
    assert taken == ["--editable", f"{checkout.root}{asked}"]


def test_llama_cpp_is_compiled_with_the_lent_cmake(lent: dev.Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(dev, "need_compiler", lambda: None)
    monkeypatch.setattr(dev, "run_quietly", lambda *words, **_: ran.extend(map(list, words[2:])))

    def running(command: Sequence[str], *_: object) -> contextlib.AbstractContextManager[None]:
        ran.append(list(command))
        return contextlib.nullcontext()

    monkeypatch.setattr(dev, "running", running)
    monkeypatch.setattr(shutil, "which", lambda name: name if name == "cmake" else None)
    assert dev.compile_for_cuda(lent, ENGINES["llama-cpp"], Path("nvcc"), lambda: 7) == 7
    tools, build = ran
    assert tools[-2:] == ["scikit-build-core>=0.9.2", "ninja"]
    assert "--no-build-isolation" in build
    assert tools[tools.index("-c") + 1] == build[build.index("-c") + 1] == str(lent.constraints)


def test_without_cargo_a_wheel_that_travelled_is_taken(
    lent: dev.Checkout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(dev, "run_quietly", lambda *words, **_: ran.extend(map(list, words[2:])))
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    step = ENGINES["web-rwkv"]
    with pytest.raises(dev.MissingToolError, match="no cargo"):
        step.install(lent, step)
    monkeypatch.setenv("PIP_FIND_LINKS", f"{tmp_path / 'nowhere'} {tmp_path}")
    step.install(lent, step)
    assert ran[0][-1] == "rwkvperf_web_rwkv", "pip picks the one that fits among those that travelled"
    assert "--no-index" in ran[0]
    assert capsys.readouterr().out.startswith("There is no cargo: a wheel from PIP_FIND_LINKS is taken")


# What the repository says


def test_the_steps_install_what_the_extras_ask_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name, step in ENGINES.items():
        asked = {re.split(r"[<>=]", line)[0].replace("-", "_") for line in project["optional-dependencies"][name]}
        assert set(step.distributions) == asked


def test_everything_from_the_index_has_an_exact_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = dict(
        re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    )
    extras = project["optional-dependencies"]
    asked = [
        *project["dependencies"],
        *(line for name in ("rwkv", "llama-cpp", "test", "dev") for line in extras[name]),
    ]
    names = {re.split(r"[<>=\[;]", line)[0].lower().replace("_", "-") for line in asked}
    assert sorted(names - set(pins)) == ["pytest-rwkvperf"]
    assert dev.pip_version(dev.Checkout(ROOT, ROOT)) == pins["pip"]


def test_the_binding_is_asked_for_by_a_version_that_no_public_index_accepts() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    crate = tomllib.loads((ROOT / "native" / "web-rwkv" / "Cargo.toml").read_text(encoding="utf-8"))["package"]
    (asked,) = project["optional-dependencies"]["web-rwkv"]
    assert asked == f"rwkvperf-web-rwkv=={crate['version']}"
    assert "+" in crate["version"]  # a local version label, PEP 440
