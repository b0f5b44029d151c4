"""The set-up script: what it decides, says and cleans up, without installing anything."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from pytest_rwkvperf.backends import registry

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from types import ModuleType

    Patch = pytest.MonkeyPatch
    Said = pytest.CaptureFixture[str]
    Ran = list[tuple[list[str], dict[str, str]]]

ROOT = Path(__file__).parents[3]
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals and programs of shell are POSIX")


@pytest.fixture
def dev(tmp_path: Path, monkeypatch: Patch) -> ModuleType:
    """The script in a checkout of its own; no variable and no processor asks for anything."""
    for name in ("CI", "CMAKE_ARGS", "CUDA_HOME", "CARGO_HOME", "PIP_CACHE_DIR", "PIP_FIND_LINKS", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", os.environ["PATH"])  # main() adds to it
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "mein Ordner ü"
    (root / "native" / "web-rwkv" / "src").mkdir(parents=True)
    pins = "pip==26.3\nuv==0.13.9\nllama-cpp-python==0.3.36\ntorch==2.13.0\n"
    (root / "constraints.txt").write_text(pins, encoding="utf-8")
    shutil.copytree(ROOT / "tools", root / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    spec = importlib.util.spec_from_file_location("dev_of_a_checkout", root / "tools" / "dev.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # where dataclasses look for annotations
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "PROCESSOR", "flags : avx2\n")
    monkeypatch.setattr(module, "CXX", [sys.executable])
    return module


@pytest.fixture
def venv(dev: ModuleType) -> ModuleType:
    """The script, with an environment of pip and uv alone."""
    dev.PYTHON.parent.mkdir(parents=True)
    dev.PYTHON.touch()
    dev.PYTHON.with_name("uv.exe" if dev.WINDOWS else "uv").touch(0o755)
    dev.write_stamps(installers=["pip==26.3", "uv==0.13.9"])
    return dev


@pytest.fixture
def ran(venv: ModuleType, monkeypatch: Patch) -> Ran:
    """The commands of the set-up, which are only noted; those that install pretend to."""
    commands: Ran = []

    def run(name: str, _title: str, *command: str | Path, **variables: str) -> None:
        commands.append(([*map(str, command)], variables))
        if "wheel" in command:
            folder = Path(command[command.index("--wheel-dir") + 1])
            folder.mkdir(parents=True)
            (folder / "llama_cpp_python.whl").touch()
        if "install" in command:
            pretend_installed(venv, *(step.distribution for step in (venv.CORE, *venv.ENGINES) if step.name == name))

    monkeypatch.setattr(venv, "run", run)
    return commands


@pytest.fixture
def lines(venv: ModuleType, monkeypatch: Patch) -> list[list[str]]:
    """What a command runs after the set-up; the first one of them fails."""
    seen: list[list[str]] = []

    def run_in_view(*command: str | Path, **_: str) -> int:
        seen.append([*map(str, command)])
        return 1 if len(seen) == 1 else 0

    monkeypatch.setattr(venv, "set_up", lambda *_, **__: 0)
    monkeypatch.setattr(venv, "run_in_view", run_in_view)
    return seen


def pretend_installed(dev: ModuleType, *names: str) -> None:
    libraries = dev.VENV / ("Lib" if dev.WINDOWS else "lib/python3.11")
    for name in names:
        (libraries / "site-packages" / f"{name}-1.0.dist-info").mkdir(parents=True, exist_ok=True)


# How llama.cpp is compiled


@pytest.mark.parametrize(
    ("processor", "macros", "native"),
    [
        ("amx_tile", "#define __GNUC__ 12", "OFF"),
        ("amx_tile", "#define __GNUC__ 14", None),
        ("amx_tile", "#define __GNUC__ 4\n#define __clang__ 1", None),
        ("amx_tile", "", None),
        ("avx512f", "#define __GNUC__ 12", None),
    ],
    ids=["gcc 12", "gcc 14", "clang", "no compiler", "no AMX"],
)
def test_amx_is_left_out_where_the_compiler_gets_it_wrong(
    dev: ModuleType, monkeypatch: Patch, processor: str, macros: str, native: str | None
) -> None:
    monkeypatch.setattr(dev, "PROCESSOR", f"flags : fpu {processor} amx_int8\n")
    monkeypatch.setattr(dev, "output", lambda *_: macros)
    assert dev.llama_cpp_variables().get("GGML_NATIVE") == native


def test_each_build_is_compiled_once(venv: ModuleType, ran: Ran, monkeypatch: Patch) -> None:
    keys, wheels = [], []
    for change in ("nothing", "still nothing", "CMAKE_ARGS", "CUDA", "processor"):
        if change == "CMAKE_ARGS":
            monkeypatch.setenv("CMAKE_ARGS", "-DGGML_VULKAN=ON")
        elif change == "CUDA":
            venv.write_stamps(cuda={"GGML_CUDA": "ON"})
        elif change == "processor":
            monkeypatch.setattr(venv, "PROCESSOR", "flags : avx512f\n")
        keys.append(venv.key_of(venv.LLAMA_CPP))
        wheels += venv.prepare_llama_cpp()
    assert keys[:2] == keys[1:3], "CMAKE_ARGS of one set-up need not be repeated at the next"
    assert len({*keys}) == 2
    assert len(ran) == len({*wheels}) == 4
    assert "-Ccmake.define.GGML_CUDA=ON" in ran[2][0]
    assert str(venv.ROOT) not in str(wheels), "clones share what was built"


# When a step is done again


@pytest.mark.parametrize(
    ("path", "changed"),
    [
        ("constraints.txt", {"rwkv", "llama-cpp", "fla", "rwkv7-hf"}),
        ("native/web-rwkv/src/new.rs", {"web-rwkv"}),
        ("native/web-rwkv/target/release/made.rs", set()),
    ],
)
def test_a_change_redoes_only_the_steps_made_from_it(dev: ModuleType, path: str, changed: set[str]) -> None:
    before = {step.name: dev.key_of(step) for step in dev.ENGINES}
    (dev.ROOT / path).parent.mkdir(parents=True, exist_ok=True)
    (dev.ROOT / path).write_text("changed\n", encoding="utf-8")
    assert {step.name for step in dev.ENGINES if dev.key_of(step) != before[step.name]} == changed


@pytest.mark.parametrize("text", ["", "{", "[]", '"text"'])
def test_unreadable_stamps_mean_that_nothing_is_finished(venv: ModuleType, text: str) -> None:
    venv.STAMPS.write_text(text, encoding="utf-8")
    assert venv.read_stamps() == {"lender": "", "cuda": {}}
    venv.write_stamps(core="key")
    assert json.loads(venv.STAMPS.read_text(encoding="utf-8"))["core"] == "key"


def test_an_old_python_is_refused_in_a_sentence() -> None:
    code = f"import runpy, sys; sys.version_info = (3, 9); runpy.run_path({str(ROOT / 'tools' / 'dev.py')!r})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("pytest-rwkvperf needs Python 3.10 or newer")


# The set-up


def test_only_what_is_missing_is_installed(venv: ModuleType, ran: Ran) -> None:
    assert venv.set_up() == 0
    ran.clear()
    assert venv.set_up() == 0
    assert ran == []
    shutil.rmtree(next(venv.VENV.glob(f"{venv.PACKAGES}/rwkv-1.0.dist-info")))
    assert venv.set_up() == 0
    assert [command[-1] for command, _ in ran] == ["torch", "import rwkv, torch"]


@pytest.mark.usefixtures("ran")
@pytest.mark.parametrize(("ci", "code"), [("", 0), ("false", 0), ("1", 1), ("true", 1)])
def test_a_missing_engine_is_a_sentence_and_fails_only_in_ci(
    venv: ModuleType, capsys: Said, monkeypatch: Patch, ci: str, code: int
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(venv, "CXX", ["no-such-compiler"])
    for _ in range(2):
        assert venv.set_up() == code
        said = capsys.readouterr().out
        assert "llama-cpp is not installed: llama-cpp-python is compiled and needs no-such-compiler" in said
        assert "Missing, see above: llama-cpp. The next run of this command tries again." in said
    assert venv.finished(venv.RWKV)
    assert venv.finished(venv.WEB_RWKV)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems bring their own graphics interface")
@pytest.mark.parametrize("root", [True, False])
def test_a_driver_is_installed_where_the_binding_finds_no_device(
    venv: ModuleType, ran: Ran, monkeypatch: Patch, *, root: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    note = venv.run

    def run(*words: str, **variables: str) -> None:
        note(*words, **variables)
        if "adapters" in words[-1] and "mesa-vulkan-drivers" not in str(ran):
            raise venv.SetupError("no device")

    monkeypatch.setattr(venv, "run", run)
    venv.install(venv.WEB_RWKV)
    (apt,) = (command for command, _ in ran if "apt-get" in command[-1])
    assert ("sudo" in apt) is not root
    assert venv.finished(venv.WEB_RWKV)


@POSIX
def test_missing_tools_say_how_to_get_them(venv: ModuleType, monkeypatch: Patch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(venv.SetupError, match=r"needs cargo.*rustup"):
        venv.prepare_web_rwkv()
    with pytest.raises(venv.SetupError, match=r"needs nvcc.*set CUDA_HOME"):
        venv.cuda_variables()
    (tmp_path / "apt-get").write_text("#!/bin/sh\necho cannot lock; exit 100\n")
    (tmp_path / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(venv.SetupError, match=r"No Vulkan: `sudo apt-get install .* libvulkan1` ended [\s\S]* lock"):
        venv.apt_install("No Vulkan", "libvulkan1")


def test_a_wheel_from_a_folder_is_taken_without_cargo(venv: ModuleType, monkeypatch: Patch, tmp_path: Path) -> None:
    wheel = tmp_path / "rwkvperf_web_rwkv-0.1.0-cp310-abi3-linux_x86_64.whl"
    wheel.touch()
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("PIP_FIND_LINKS", f"{tmp_path / 'nowhere'} {tmp_path}")
    assert venv.prepare_web_rwkv() == [str(wheel)]


# uv or pip


def test_uv_installs_from_where_pip_would(venv: ModuleType, monkeypatch: Patch) -> None:
    mine, everybodys = ":env:.index-url='https://mine.example'", "global.index-url='https://all.example'"
    listed = f"{mine}\nglobal.cert='/a.pem'\nglobal.find-links='\\n/one\\n/two'\n{everybodys}\n"
    monkeypatch.setattr(venv, "output", lambda *_: listed)
    command, variables = venv.installer(venv.RWKV)
    assert Path(command[0]).stem == "uv"
    assert {str(venv.PYTHON), "--find-links=/one", "--find-links=/two"} < {*command}
    assert "--refresh-package" not in command, "uv would look for a new sdist and compile it"
    assert "--refresh-package" in venv.installer(venv.WEB_RWKV)[0], "uv does not look at a folder's sources"
    assert variables == {"UV_DEFAULT_INDEX": "https://mine.example", "SSL_CERT_FILE": "/a.pem"}
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://uvs.example")
    assert "UV_DEFAULT_INDEX" not in venv.installer(venv.RWKV)[1]


@pytest.mark.parametrize("why", ["no uv", "no index", "lent packages"])
def test_pip_installs_where_uv_cannot(venv: ModuleType, monkeypatch: Patch, why: str) -> None:
    monkeypatch.setattr(venv, "output", lambda *_: ":env:.no-index='1'\n" if why == "no index" else "")
    if why == "no uv":
        monkeypatch.setattr(venv.shutil, "which", lambda *_, **__: None)
    venv.write_stamps(lender="/usr" if why == "lent packages" else "")
    command = [str(venv.PYTHON), "-m", "pip", "install", "--progress-bar=off"]
    assert venv.installer(venv.LLAMA_CPP) == (command, {})


@pytest.mark.parametrize("knows_groups", [True, False], ids=["pip 25.1", "pip 25.0"])
def test_a_uv_that_cannot_be_had_is_no_failure(
    dev: ModuleType, monkeypatch: Patch, capsys: Said, *, knows_groups: bool
) -> None:
    ran = []

    def run(_name: str, _title: str, *command: str) -> None:
        ran.append(command[-1])
        if command[-1] == "uv==0.13.9":
            raise dev.SetupError("no wheel for this system")

    dev.VENV.mkdir()
    monkeypatch.setattr(dev, "run", run)
    monkeypatch.setattr(dev, "output", lambda *_: "  --group <[path:]group>" if knows_groups else "")
    dev.install_uv()
    dev.install_uv()
    pip = [] if knows_groups else ["pip==26.3"]
    assert ran == ["ensurepip", "uv==0.13.9", *pip], "once is enough"
    assert "pip installs everything. no wheel for this system" in capsys.readouterr().out


def test_the_core_comes_with_what_the_tests_need(venv: ModuleType) -> None:
    editable, project, option, group = venv.prepare_core()
    assert (editable, option, group) == ("--editable", "--group", "dev")
    assert project == f"{venv.ROOT}[hub,history,html]"


# Commands


def test_a_failed_command_shows_its_last_lines_and_where_the_rest_is(dev: ModuleType) -> None:
    script = "for number in range(100): print('line', number)\nraise SystemExit(3)"
    with pytest.raises(dev.SetupError, match=r"^Doing it ended with exit code 3[\s\S]* 99\n.*step\.log$") as raised:
        dev.run("step", "Doing it", sys.executable, "-c", script)
    assert "line 50" not in str(raised.value)
    assert "line 50" in (dev.VENV / "rwkvperf-setup-logs" / "step.log").read_text(encoding="utf-8")


def test_a_long_command_says_how_long_it_has_been_running(dev: ModuleType, monkeypatch: Patch, capsys: Said) -> None:
    monkeypatch.setattr(dev, "REPORT_SECONDS", 0.1)
    dev.run("step", "Doing it", sys.executable, "-c", "import time; time.sleep(1)")
    first, second, *_, last = capsys.readouterr().out.splitlines()
    assert (first, second, last[:12]) == ("Doing it ...", "  0 s so far", "  done after")


@POSIX
def test_a_crash_is_no_success(dev: ModuleType) -> None:
    crash = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    assert dev.run_in_view(sys.executable, "-c", crash) == 128 + signal.SIGSEGV


@POSIX
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_the_whole_process_tree(dev: ModuleType, number: signal.Signals, code: int) -> None:
    pid_file = dev.ROOT / "pid"
    grandchild = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    work = f"dev.clean = lambda *_: dev.run('name', 'title', sys.executable, '-c', {child!r})"
    script = f"import dev, sys; {work}; sys.exit(dev.main(['clean']))"
    tools = dev.ROOT / "tools"
    process = subprocess.Popen([sys.executable, "-c", script], cwd=tools, stderr=subprocess.PIPE, text=True)
    while not (pid_file.exists() and pid_file.read_text()):
        assert process.poll() is None
        time.sleep(0.02)
    pid = psutil.Process(int(pid_file.read_text()))
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (code, "")
    assert psutil.wait_procs([pid], timeout=120)[1] == []


@pytest.mark.parametrize("rest", [["--rwkv-quant=f16,q8_0"], ["-k", "llama and not web"], ["tests/unit", "-x"]])
def test_arguments_go_to_pytest(venv: ModuleType, lines: list[list[str]], rest: list[str]) -> None:
    venv.main(["bench", *rest])
    venv.main(["test", *rest])
    pytest = [str(venv.PYTHON), "-m", "pytest"]
    side_by_side = ["-n", "3", "--dist", "loadfile", "--no-loadscope-reorder"]
    assert lines == [[*pytest, "rwkvperf", "--rwkv-backend=all", *rest], [*pytest, *side_by_side, *rest]]


def test_every_line_runs_and_one_failure_counts(venv: ModuleType, lines: list[list[str]]) -> None:
    assert venv.main(["lint"]) == 1
    assert [Path(line[0]).stem for line in lines[:3]] == ["python", "python", "lint-imports"]


@pytest.mark.parametrize("argv", [["lint", "-x"], ["setup", "--with-installed"], ["no-such"], ["setup-cuda", "-x"]])
def test_unknown_commands_and_arguments_show_the_help(dev: ModuleType, capsys: Said, argv: list[str]) -> None:
    assert dev.main(argv) == 2
    assert "setup-cuda   the same with llama.cpp for NVIDIA's GPUs" in capsys.readouterr().out


def test_proofs_are_run_by_name(venv: ModuleType, lines: list[list[str]], capsys: Said) -> None:
    venv.main(["prove", "gate"])
    assert lines == [[str(venv.PYTHON), "benchmarks/gate/reruns.py"]]
    assert venv.main(["prove", "gates"]) == 1
    assert "No proof is called gates. There are: startup, gate," in capsys.readouterr().out
    assert [name for name, script in venv.PROOFS.items() if not (ROOT / "benchmarks" / script).exists()] == []


# CUDA


@pytest.fixture
def nvcc(venv: ModuleType, tmp_path: Path, monkeypatch: Patch) -> Path:
    """CUDA's compiler where NVIDIA's installers put it, and two GPUs of one kind."""
    (tmp_path / "bin").mkdir()
    for name, text in (("nvcc", "release 12.4"), ("nvidia-smi", "9.0\n9.0")):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\necho '{text}'\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setattr(venv, "require", lambda *_: None)
    return tmp_path / "bin" / "nvcc"


@POSIX
def test_llama_cpp_is_compiled_for_the_gpus_and_stays_so(venv: ModuleType, nvcc: Path, ran: Ran) -> None:
    assert venv.main(["setup-cuda"]) == 0
    (command,) = (command for command, _ in ran if "wheel" in command)
    flags = ("GGML_CUDA=ON", "CMAKE_CUDA_ARCHITECTURES=90", f"CMAKE_CUDA_COMPILER={nvcc}")
    assert {*(f"-Ccmake.define.{flag}" for flag in flags), "--no-binary=llama-cpp-python"} < {*command}
    assert "lists no CUDA device" in ran[-1][0][-1]
    ran.clear()
    assert venv.main(["setup-cuda"]) == venv.main(["setup"]) == venv.set_up() == 0
    assert ran == []
    nvcc.write_text("#!/bin/sh\necho another release\n")
    assert venv.main(["setup-cuda"]) == 0
    assert [command[3] for command, _ in ran[:2]] == ["wheel", "uninstall"], "pip keeps one of the same version"


@POSIX
@pytest.mark.usefixtures("nvcc")
def test_after_a_failed_build_for_cuda_the_plain_set_up_builds_for_the_cpu(
    venv: ModuleType, ran: Ran, monkeypatch: Patch
) -> None:
    note = venv.run

    def run(*words: str, **variables: str) -> None:
        if "-Ccmake.define.GGML_CUDA=ON" in words:
            raise venv.SetupError("nvcc fatal: Unsupported gpu architecture")
        note(*words, **variables)

    monkeypatch.setattr(venv, "run", run)
    assert venv.main(["setup-cuda"]) == 1
    assert venv.finished(venv.RWKV)
    assert venv.main(["setup"]) == 0
    assert ran[-1][0][-1] == "import llama_cpp"


# With some engines


def test_only_the_named_engines_are_installed(venv: ModuleType, ran: Ran) -> None:
    assert venv.main(["setup", "--engines=fla,rwkv"]) == 0
    assert [step.name for step in venv.ENGINES if venv.finished(step)] == ["rwkv", "fla"]
    assert not any("wheel" in command for command, _ in ran), "llama.cpp is compiled for those who name it"


@POSIX
@pytest.mark.usefixtures("nvcc", "ran")
def test_a_set_up_for_cuda_without_llama_cpp_is_complete(venv: ModuleType) -> None:
    assert venv.main(["setup-cuda", "--engines=fla"]) == 0
    assert (venv.finished(venv.FLA), venv.finished(venv.LLAMA_CPP)) == (True, False)


def test_an_engine_that_is_not_known_ends_the_set_up(venv: ModuleType, capsys: Said) -> None:
    assert venv.main(["setup", "--engines=rwkv,lama"]) == 1
    assert "--engines=rwkv,lama: there is no lama; known are rwkv, rwkv7-hf, fla," in capsys.readouterr().out


# With the packages of the Python that runs the script


@pytest.fixture
def lent(dev: ModuleType, monkeypatch: Patch, tmp_path: Path) -> ModuleType:
    """The script, run by a Python with torch and pip, after it has lent them to an environment."""
    folder = tmp_path / "image" / "site-packages"
    for name in ("Torch", "pip"):
        (folder / f"{name}-1.0.dist-info").mkdir(parents=True)
        (folder / f"{name}-1.0.dist-info" / "METADATA").write_text(f"Name: {name}\n", encoding="utf-8")
    (folder / "lent_to_us.py").touch()
    monkeypatch.setattr(sys, "path", [*(each for each in sys.path if not each.endswith("-packages")), str(folder)])
    dev.make_venv(sys.prefix)
    dev.lend_packages()
    return dev


def test_lent_packages_are_seen_and_not_pinned(lent: ModuleType) -> None:
    subprocess.run([lent.PYTHON, "-c", "import lent_to_us"], check=True)
    pins = (lent.VENV / "rwkvperf-constraints.txt").read_text(encoding="utf-8").splitlines()
    assert pins == ["uv==0.13.9", "llama-cpp-python==0.3.36"]
    assert lent.prepare_core()[1] == str(lent.ROOT), "without the tools"
    assert lent.main(["test"]) == 1


def test_the_plain_set_up_makes_a_whole_environment_again(lent: ModuleType, monkeypatch: Patch) -> None:
    monkeypatch.setattr(lent, "set_up", lambda _: 0)
    assert lent.main(["setup"]) == 0
    assert lent.read_stamps()["lender"] == ""
    assert subprocess.run([lent.PYTHON, "-c", "import lent_to_us"], capture_output=True, check=False).returncode
    monkeypatch.setattr(sys, "prefix", str(lent.VENV))
    with pytest.raises(lent.SetupError, match="run this with the Python that it was made with"):
        lent.make_venv("elsewhere")


# What the repository says


def test_every_package_from_an_index_has_an_exact_version() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project, groups = declared["project"], declared["dependency-groups"].values()
    extras = project["optional-dependencies"]
    engines = registry.BUILT_IN.keys() & extras.keys() - {"web-rwkv"}  # the binding, which is on no index
    lines = [line for name in engines for line in extras[name]]
    lines += [line for group in groups for line in group if isinstance(line, str)]
    names = {re.split(r"[<>=\[;]", line)[0].lower().replace("_", "-") for line in [*lines, *project["dependencies"]]}
    pins = re.findall(r"^([a-z0-9-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(names - {*pins}) == [], "nothing asks an index for this project itself"


def test_no_extra_is_for_those_who_work_on_the_project() -> None:
    for folder in (ROOT, ROOT / "native" / "web-rwkv"):
        declared = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
        extras = declared["project"].get("optional-dependencies", {})
        assert not {"test", "dev", "docs", "release"} & extras.keys()
        assert "test" in declared["dependency-groups"]


def test_the_binding_is_asked_for_by_a_version_that_no_public_index_accepts() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    crate = tomllib.loads((ROOT / "native" / "web-rwkv" / "Cargo.toml").read_text(encoding="utf-8"))["package"]
    assert project["optional-dependencies"]["web-rwkv"] == [f"rwkvperf-web-rwkv=={crate['version']}"]
    assert "+" in crate["version"]  # a local version label, PEP 440
