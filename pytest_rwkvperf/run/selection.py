"""Which items a test measures, from settings, marker and engines. Pure: no engine is called and no file read."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.backends.registry import EXECUTABLES
from pytest_rwkvperf.core.cases import Case, Item, Workload, cross, disambiguated
from pytest_rwkvperf.core.engine_settings import in_words
from pytest_rwkvperf.core.errors import OptionError
from pytest_rwkvperf.core.text import did_you_mean
from pytest_rwkvperf.run.discovery import FoundEngine, MissingEngine
from pytest_rwkvperf.run.option_values import read_share
from pytest_rwkvperf.run.settings import EVERY
from pytest_rwkvperf.worker import native

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import pytest

    from pytest_rwkvperf.core.cases import ProtocolName, Question
    from pytest_rwkvperf.core.engine import Backend, Device
    from pytest_rwkvperf.core.invariants import InvariantQuestion
    from pytest_rwkvperf.run.settings import Settings

DEFAULT_WORKLOADS = ("pp512", "tg128")
"""llama-bench's defaults, which the guide's reports show."""

SOFTWARE_WORKLOADS = ("pp32", "tg8")
"""The defaults on a software adapter (llvmpipe): enough to show that the path through the driver computes rightly.
Its speed is of interest to few, and DEFAULT_WORKLOADS took two thirds of a run of all engines."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a test's `rwkv` marker asks for; empty means what the options say."""

    quants: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()
    tolerance: float | None = None


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """What the model file allows: the formats it can be converted to, and its own quant if that is fixed."""

    name: str
    formats: frozenset[str]
    quant: str | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why the model's shape rules out a format, by format."""


@dataclass(frozen=True)
class Selected:
    """What is measured after collection: the question that each test asks, by the test's node id."""

    by_test: Mapping[str, Question]
    invariants_by_test: Mapping[str, InvariantQuestion] = field(default_factory=dict)

    @cached_property
    def questions(self) -> Mapping[Case, tuple[Question, ...]]:
        """Every question about each case; two tests may ask about one item, with tolerances of their own."""
        by_case: dict[Case, list[Question]] = {}
        for question in dict.fromkeys(self.by_test.values()):
            by_case.setdefault(question.item.case, []).append(question)
        return {case: tuple(questions) for case, questions in by_case.items()}

    @cached_property
    def invariants(self) -> Mapping[Case, tuple[InvariantQuestion, ...]]:
        """Every question about an invariant of each case."""
        by_case: dict[Case, list[InvariantQuestion]] = {}
        for question in dict.fromkeys(self.invariants_by_test.values()):
            by_case.setdefault(question.case, []).append(question)
        return {case: tuple(questions) for case, questions in by_case.items()}

    @cached_property
    def cases(self) -> tuple[Case, ...]:
        """Every case that is measured."""
        return tuple(dict.fromkeys([*self.questions, *self.invariants]))

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """The items that get a verdict."""
        return tuple(dict.fromkeys(question.item for question in self.by_test.values()))

    @cached_property
    def comparisons(self) -> int:
        """How many verdicts there are, over which the run's error rate is spread: of items and of invariants."""
        return len(self.items) + sum(map(len, self.invariants.values()))

    @cached_property
    def planned(self) -> tuple[Item, ...]:
        """Everything that is measured: the items, and the workloads that invariants compare."""
        own = [
            Item(case, workload)
            for case, questions in self.invariants.items()
            for question in questions
            for workload in question.invariant.workloads
        ]
        return tuple(dict.fromkeys([*self.items, *own]))

    def workloads(self, case: Case) -> tuple[Workload, ...]:
        """Those of a case that are measured."""
        return tuple(item.workload for item in self.planned if item.case == case)

    @cached_property
    def labels(self) -> Mapping[Case, str]:
        """What each case is called, so that no two are called the same."""
        return {case: shown.label for case, shown in disambiguated(self.cases).items()}

    def id_of(self, item: Item) -> str:
        """An item's part of its test's id."""
        return f"{self.labels[item.case]}-{item.workload}"


def read_markers(markers: Iterable[pytest.Mark]) -> Request:
    """Check the arguments of `@pytest.mark.rwkv(quant=[...], workload=[...], tolerance="3%")`.

    Of several markers, closest first, each argument counts where it first stands.

    Raises:
        OptionError: an argument is unknown or malformed.
    """
    keywords: dict[str, Any] = {}
    for marker in markers:
        unknown = [*map(repr, marker.args), *sorted(set(marker.kwargs) - {"quant", "workload", "tolerance"})]
        if unknown:
            meant = did_you_mean(unknown[0], ("quant", "workload", "tolerance"))
            allowed = "allowed: quant=, workload=, tolerance="
            raise OptionError(f"the rwkv marker knows no argument {unknown[0]}{meant}; {allowed}")
        keywords = {**marker.kwargs, **keywords}
    tolerance = keywords.get("tolerance")
    return Request(
        _strings(keywords, "quant"),
        _strings(keywords, "workload"),
        None if tolerance is None else read_share("the rwkv marker's tolerance=", str(tolerance)),
    )


def items(
    settings: Settings, request: Request, engines: Iterable[FoundEngine], limits: ModelLimits, default_threads: int
) -> tuple[Item, ...]:
    """Every item of a test: cases of each engine that can serve the model, times workloads.

    Raises:
        OptionError: the settings of a case contradict each other or its device.
    """
    threads = settings.threads or (default_threads,)
    engines = tuple(engines)
    most_sequences = {engine.backend.name: engine.backend.max_batch for engine in engines}
    # Software adapters first: their minimum takes so long that it decides what is left of the budget for the others.
    places = sorted(
        ((engine, device) for engine in engines for device in devices(settings, engine)),
        key=lambda place: place[1].kind != "software",
    )
    chosen = [
        (
            _consistent(Case(engine.backend.name, limits.name, quant, device.id, count, chunk, protocol, own), engine),
            device,
        )
        for engine, device in places
        if engine.backend.format in limits.formats
        for protocol in protocols(settings, engine.backend.name)
        for quant in _quants(settings, request, engine.backend, device, limits)
        for count in threads
        for chunk in chunks_of(settings, engine.backend, protocol)
        for own in combinations(settings, engine.backend.name)
    ]
    return tuple(
        item
        for case, device in chosen
        for item in cross([case], workloads(settings, request, device, case.protocol))
        if _is_measured(item, most_sequences[case.backend])
    )


def _consistent(case: Case, engine: FoundEngine) -> Case:
    """The case, if its settings can be measured together.

    Raises:
        OptionError: they cannot.
    """
    device = next(device for device in engine.devices if device.id == case.device)
    if reason := engine.backend.contradiction(case, device):
        raise OptionError(f"--rwkv-set: {case.backend} on {case.device} with {in_words(case.settings)}: {reason}")
    return case


def _is_measured(item: Item, most_sequences: int) -> bool:
    if item.case.protocol == "native":
        return native.supported(item.case.backend, item.workload)
    return item.workload.batch <= most_sequences


def workloads(settings: Settings, request: Request, device: Device, protocol: ProtocolName) -> list[Workload]:
    """What is measured on a device: what the options and the marker name, or the default.

    Those that name no batch are measured with each of `--rwkv-batch`.
    """
    shrinks = device.kind == "software" and protocol == "uniform"
    return _named(settings, request, SOFTWARE_WORKLOADS if shrinks else DEFAULT_WORKLOADS)


def _named(settings: Settings, request: Request, usual: Sequence[str] = DEFAULT_WORKLOADS) -> list[Workload]:
    """The workloads that the options and a marker name, or the usual ones, with the options' batches."""
    asked = settings.workloads or request.workloads
    return batched(_both(settings.workloads, request.workloads) if asked else usual, settings.batches)


def batched(texts: Iterable[str], batches: Sequence[int]) -> list[Workload]:
    """Workloads, those that name no batch once for each of the batches; each only once."""
    parsed = [(Workload.parse(text), "@b" in text) for text in texts]
    multiplied = [
        replace(workload, batch=batch)
        for workload, names_one in parsed
        for batch in ([workload.batch] if names_one or not batches else batches)
    ]
    return list(dict.fromkeys(multiplied))


def beyond_batch(settings: Settings, request: Request, backend: Backend) -> str:
    """Which workloads are asked for with more sequences than a backend's engine advances together; empty if none."""
    if "uniform" not in protocols(settings, backend.name):
        return ""
    most = backend.max_batch
    beyond = [str(workload) for workload in _named(settings, request) if workload.batch > most]
    if not beyond:
        return ""
    limit = f"at most {most} sequences at once" if most > 1 else "one sequence at a time"
    return f"{backend.name} computes {limit}, so it cannot measure {', '.join(beyond)}"


def check_batches(settings: Settings, request: Request, backends: Iterable[Backend]) -> None:
    """Refuse workloads of more sequences than an engine that the user named advances together.

    Raises:
        OptionError: naming the engine and its limit.
    """
    for backend in backends:
        if sentence := beyond_batch(settings, request, backend):
            raise OptionError(f"{sentence}; {_within_batch(backend)}, or leave {backend.name} out of --rwkv-backend")


def _within_batch(backend: Backend) -> str:
    """What to ask for instead of workloads of more sequences than a backend's engine advances together."""
    if backend.max_batch == 1:
        return "leave --rwkv-batch and @b out"
    return f"ask for at most {backend.max_batch} in --rwkv-batch and after @b"


def shrunk_workloads(settings: Settings, questions: Iterable[Question], device_of: Callable[[Case], Device]) -> str:
    """A sentence where a software adapter is measured with its own default workloads; empty if none is."""
    own = {Workload.parse(text) for text in SOFTWARE_WORKLOADS}
    items = [question.item for question in questions if replace(question.item.workload, batch=1) in own]
    cases = dict.fromkeys(item.case for item in items if device_of(item.case).kind == "software")
    if settings.workloads or not cases:
        return ""
    places = ", ".join(dict.fromkeys(f"{case.backend} on {case.device}" for case in cases))
    return (
        f"{places}: a software adapter, measured with {' and '.join(SOFTWARE_WORKLOADS)}, which suffice to check the "
        f"path; --rwkv-workload={','.join(DEFAULT_WORKLOADS)} measures it as the others"
    )


def protocols(settings: Settings, backend: str) -> tuple[ProtocolName, ...]:
    """Those of the chosen protocols that a backend has. A whole program (llama-bench) has only its own."""
    if backend in EXECUTABLES:
        return ("native",)
    return tuple(name for name in settings.protocols if name == "uniform" or backend in native.TOOLS)


def unfit(settings: Settings, engine: FoundEngine, limits: ModelLimits) -> MissingEngine | None:
    """Why an installed engine has nothing to measure; None when it has."""
    name = engine.backend.name
    if reason := limits.reasons.get(engine.backend.format):
        return MissingEngine(name, f"{name} cannot load {limits.name}: {reason}")
    if engine.backend.format not in limits.formats:
        have = ", ".join(sorted(limits.formats))
        reason = f"{name} reads .{engine.backend.format}, and {limits.name} can only be had as {have}"
        return MissingEngine(name, f"{reason}; give the model's .pth, .st or F16 .gguf file")
    if not devices(settings, engine):
        ids = ", ".join(device.id for device in engine.devices)
        return MissingEngine(name, f"{name} has none of --rwkv-device={','.join(settings.devices)}; it lists {ids}")
    if all(workload.batch > engine.backend.max_batch for workload in _named(settings, Request())):
        reason = f"{beyond_batch(settings, Request(), engine.backend)}; {_within_batch(engine.backend)}"
        return MissingEngine(name, reason)
    return _unfit_protocol(settings, name)


def _unfit_protocol(settings: Settings, name: str) -> MissingEngine | None:
    """Why an engine has nothing to measure under the chosen protocols; None when it has."""
    chosen = protocols(settings, name)
    if not chosen:
        return MissingEngine(name, f"{name} has no tool of its own to measure as; --rwkv-protocol=uniform measures it")
    wanted = _named(settings, Request())
    if chosen == ("native",) and not any(native.supported(name, workload) for workload in wanted):
        names = ", ".join(map(str, wanted))
        return MissingEngine(name, f"{name}'s own tool does not measure {names}; --rwkv-protocol=uniform does")
    return None


def devices(settings: Settings, engine: FoundEngine) -> list[Device]:
    """The devices an engine is measured on: those asked for that it lists, every one for `all`, or its best."""
    if not settings.devices:
        return [engine.devices[0]]
    if EVERY in settings.devices:
        # A GPU that an engine lists under two APIs (OpenGL and Vulkan) is measured once, under the better one.
        named = {device.physical or device.id: device for device in reversed(engine.devices)}
        return [device for device in engine.devices if device in named.values()]
    return [device for device in engine.devices if any(is_called(device.id, wanted) for wanted in settings.devices)]


def is_called(device_id: str, wanted: str) -> bool:
    """Whether an option names a device: by its id, or without the number for the first one (`metal` for `metal:0`)."""
    return device_id in {wanted, f"{wanted}:0"}


def chunks_of(settings: Settings, backend: Backend, protocol: ProtocolName = "uniform") -> tuple[int, ...]:
    """The chunks asked for, of this backend or of all, or the engine's usual one, or its own tool's."""
    if own := settings.settings_by_backend.get(backend.name, {}).get("chunk"):
        return tuple(map(int, own))
    usual = backend.standard_chunk
    return (settings.chunk or (native.CHUNKS.get(backend.name, usual) if protocol == "native" else usual),)


def combinations(settings: Settings, backend: str) -> list[tuple[tuple[str, str], ...]]:
    """Each combination of the values that a backend's own settings are given, as `Case.settings`; one where none is."""
    given = {name: values for name, values in settings.settings_by_backend.get(backend, {}).items() if name != "chunk"}
    names = sorted(given)
    return [tuple(zip(names, values, strict=True)) for values in product(*(given[name] for name in names))]


def _quants(
    settings: Settings, request: Request, backend: Backend, device: Device, limits: ModelLimits
) -> tuple[str, ...]:
    asked = settings.quants_of(backend.name)
    wanted = _both(asked, request.quants)
    if wanted:
        return tuple(quant for quant in wanted if backend.accepts(quant))
    if asked or request.quants:
        return ()
    return (limits.quant,) if limits.quant is not None else backend.standard_quants(device)


def without_quant(settings: Settings, backend: Backend) -> str:
    """That a backend is not measured because it knows none of the quants of the options; empty if it is."""
    named = settings.quants_of(backend.name)
    if not named or any(map(backend.accepts, named)):
        return ""
    return f"{backend.name} is not measured: it knows {', '.join(backend.quants)}, not {', '.join(named)}"


def _both(options: tuple[str, ...], marker: tuple[str, ...]) -> tuple[str, ...]:
    """What both lists name; of an empty list everything."""
    if not marker:
        return options
    return tuple(value for value in marker if value in options) if options else marker


def _strings(keywords: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """A marker's list without duplicates, which would be two tests of one name."""
    value = keywords.get(name, ())
    values = (value,) if isinstance(value, str) else value
    if not isinstance(values, (list, tuple)) or not all(isinstance(text, str) for text in values):
        raise OptionError(f"the rwkv marker's {name}= takes a list of strings, not {value!r}")
    return tuple(dict.fromkeys(values))
