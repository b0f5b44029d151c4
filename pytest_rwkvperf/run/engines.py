"""The engines of a run: which were chosen, which are installed, and what they allow to be measured."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from pytest_rwkvperf.backends import registry
from pytest_rwkvperf.core.errors import BackendMissingError, OptionError
from pytest_rwkvperf.environments.build import BuildError
from pytest_rwkvperf.environments.named_builds import NamedBuild
from pytest_rwkvperf.environments.side import Side
from pytest_rwkvperf.environments.sides import side_of, to_build
from pytest_rwkvperf.machine import fingerprint
from pytest_rwkvperf.run.discovery import FoundEngine, MissingEngine, ask, discover
from pytest_rwkvperf.run.option_checks import check_devices, check_quants, check_settings
from pytest_rwkvperf.run.selection import (
    Request,
    beyond_batch,
    check_batches,
    items,
    unfit,
    without_quant,
)
from pytest_rwkvperf.store import recipe

if TYPE_CHECKING:
    from pytest_rwkvperf.core.cases import Case, Item
    from pytest_rwkvperf.core.engine import Backend, Device
    from pytest_rwkvperf.core.software import Software
    from pytest_rwkvperf.run.progress import Progress
    from pytest_rwkvperf.run.settings import Settings
    from pytest_rwkvperf.run.tested_model import TestedModel
    from pytest_rwkvperf.store.recipe import Recipe

_INSTALL_SECONDS = 30.0
"""What pip takes for a wheel that is there."""


class Engines:
    """The backends that `--rwkv-backend` chose, in this environment and, in A/B, in the old one. Each is asked once."""

    def __init__(self, settings: Settings, model: TestedModel, progress: Progress) -> None:
        self._settings = settings
        self._model = model
        self._progress = progress
        self._rebuilt: dict[str, FoundEngine | MissingEngine] = {}
        self._left_out: dict[str, None] = {}

    @cached_property
    def _choice(self) -> tuple[dict[str, str], bool]:
        return registry.choose(self._settings.backend)

    @property
    def chosen(self) -> dict[str, str]:
        """The chosen backends, installed or not: name to location.

        Raises:
            OptionError: `--rwkv-backend` names an unknown one.
        """
        return self._choice[0]

    @property
    def _named(self) -> bool:
        """Whether the user named the backends, rather than asking for `all`: a missing one is then an error."""
        return self._choice[1]

    @cached_property
    def _backends(self) -> list[Backend]:
        return [registry.load(location) for location in self.chosen.values()]

    @cached_property
    def answers(self) -> list[FoundEngine | MissingEngine]:
        """Every chosen backend, with its versions and devices or with the reason why it cannot measure.

        Raises:
            RwkvPerfError: an option names something that is not there.
        """
        answers = self._new_answers
        if self._settings.ab:
            lacking = {name: engine for name, engine in self._old_answers.items() if isinstance(engine, MissingEngine)}
            if lacking and not self.old:
                raise OptionError("\n".join(engine.reason for engine in lacking.values()))
            answers = [lacking.get(_name(answer), answer) for answer in answers]
        for answer in answers:
            if self._named and isinstance(answer, MissingEngine):
                raise OptionError(answer.reason)
        return answers

    @cached_property
    def _new_answers(self) -> list[FoundEngine | MissingEngine]:
        """The new side's answers; an engine with nothing to measure under these options is a missing one."""
        self._check_kinds()
        check_quants(self._settings, Request(), self._backends)
        check_settings(self._settings, self._backends)
        if self._named:
            check_batches(self._settings, Request(), self._backends)
        answers = [self._new_build(answer) for answer in discover(self.chosen, named=self._named)]
        check_devices(self._settings, [engine for engine in answers if isinstance(engine, FoundEngine)])
        return [
            answer if isinstance(answer, MissingEngine) else unfit(self._settings, answer, self._model.limits) or answer
            for answer in answers
        ]

    def _check_kinds(self) -> None:
        """Refuse to compare a program, which times itself, with an engine.

        Raises:
            OptionError: one side is a program and the other is not, or they are two different ones.
        """
        for reference, option in ((self._settings.ab, "--rwkv-ab"), (self._settings.new, "--rwkv-new")):
            of_program = reference.text.partition(":")[0] if reference and reference.kind == "program" else ""
            programs = [name for name in self.chosen if name in registry.EXECUTABLES]
            if of_program and (option == "--rwkv-new" or [*self.chosen] != [of_program]):
                raise OptionError(
                    f"{option}={reference} is a program; --rwkv-backend={of_program}:NEW --rwkv-ab={of_program}:OLD"
                )
            if reference and programs and not of_program:
                raise OptionError(
                    f"{programs[0]} is a program that measures by itself; compare it with another build of it, "
                    f"--rwkv-ab={programs[0]}:/path/to/{programs[0]}, or leave it out"
                )

    def _new_build(self, answer: FoundEngine | MissingEngine) -> FoundEngine | MissingEngine:
        """The engine of the new side: this environment's, or the build that `--rwkv-new` names."""
        if self._settings.new is None or isinstance(answer, MissingEngine):
            return answer
        return self._build(answer, self._settings.new, None, f"--rwkv-new={self._settings.new.text}: ")

    @cached_property
    def _old_answers(self) -> dict[str, FoundEngine | MissingEngine]:
        """A/B: the old side's answers, for the engines that can measure on the new side."""
        here = {engine.backend.name: engine for engine in self._new_answers if isinstance(engine, FoundEngine)}
        if self._settings.aa or not here:
            return {**here}
        return {name: self._old_build(engine) for name, engine in here.items()}

    def _old_build(self, engine: FoundEngine) -> FoundEngine | MissingEngine:
        """The build of an engine that `--rwkv-ab` names.

        Raises:
            OptionError: it names nothing that can be used.
        """
        assert self._settings.ab is not None  # noqa: S101 - asked in A/B alone
        name = engine.backend.name
        if self._settings.ab.kind == "program":
            return ask(name, registry.choose(self._settings.ab.text, "--rwkv-ab")[0][name], Side(sys.executable))
        recorded = self.recipe.backends.get(name) if self._settings.ab.kind == "baseline" else None
        return self._build(engine, self._settings.ab, recorded, f"--rwkv-ab={self._settings.ab.text}: ")

    def _build(
        self, engine: FoundEngine, named: NamedBuild, recorded: Software | None, prefix: str
    ) -> FoundEngine | MissingEngine:
        """The build of an engine that was named, in an environment that is made unless it exists."""
        name, wheels = engine.backend.name, self._settings.keep_wheels
        try:
            side = side_of(named, recorded, engine.software, wheels=wheels, say=self._progress.line)
        except BuildError as error:
            return MissingEngine(name, f"{prefix}{error}")
        answer = ask(name, engine.location, side)
        if isinstance(answer, MissingEngine):
            return MissingEngine(name, prefix + answer.reason)
        return replace(answer, named=named.text if prefix else "")

    @cached_property
    def recipe(self) -> Recipe:
        """What the baselines were measured with.

        Raises:
            BaselineError: its file cannot be used.
        """
        return recipe.read(self._settings.baseline_dir)

    def recorded(self, name: str) -> Software | None:
        """What the baseline was measured with; None where that is not known or the engine is a whole program."""
        return None if name in registry.EXECUTABLES else self.recipe.backends.get(name)

    def software_changed(self, case: Case) -> bool:
        """Whether the baseline was measured with other software, which A/B can measure again."""
        recorded = self.recorded(case.backend)
        engine = self.found[case.backend]
        return case.protocol == "uniform" and recorded is not None and recorded.identity != engine.software.identity

    def to_build(self, name: str) -> tuple[str, float]:
        """Which packages must be built to measure with the baseline's software, and how many seconds that may take.

        Empty, and 0 seconds, if they exist already.
        """
        engine, recorded = self.found[name], self.recorded(name)
        if recorded is None or name in self._rebuilt:
            return "", 0.0
        parts = to_build(recorded, engine.software, self._settings.keep_wheels)
        from_source = [part for part in parts if not part.argument.endswith(".whl")]
        seconds = engine.backend.install_seconds if from_source else _INSTALL_SECONDS
        return ", ".join(map(str, parts)), seconds if parts else 0.0

    def rebuilt(self, name: str) -> FoundEngine:
        """An engine as the baseline was measured with, rebuilt when it is asked for the first time.

        Raises:
            BackendMissingError: it cannot be rebuilt, or does not run.
        """
        if name not in self._rebuilt:
            engine, recorded = self.found[name], self.recorded(name)
            answer = self._build(engine, NamedBuild("baseline", "baseline"), recorded, "")
            if isinstance(answer, FoundEngine) and recorded is not None:
                answer = self._check_rebuilt(answer, recorded, engine.software)
            self._rebuilt[name] = answer
        if isinstance(known := self._rebuilt[name], MissingEngine):
            raise BackendMissingError(known.reason)
        return known

    def _check_rebuilt(self, rebuilt: FoundEngine, recorded: Software, here: Software) -> FoundEngine | MissingEngine:
        """The rebuilt engine; a missing one if it equals this environment's. Shows how it differs from the recorded."""
        name, lacking = rebuilt.backend.name, ", ".join(recorded.differences(rebuilt.software))
        if rebuilt.software.identity == here.identity:
            return MissingEngine(name, f"no installation brings back what the baseline was measured with: {lacking}")
        if lacking:
            self._progress.line(f"{name}: the rebuilt software differs from the baseline's: {lacking}")
        return rebuilt

    @property
    def found(self) -> dict[str, FoundEngine]:
        """The engines that can measure, by name."""
        return {engine.backend.name: engine for engine in self.answers if isinstance(engine, FoundEngine)}

    @property
    def missing(self) -> list[MissingEngine]:
        """The chosen engines that cannot measure."""
        return [engine for engine in self.answers if isinstance(engine, MissingEngine)]

    @property
    def old(self) -> dict[str, FoundEngine]:
        """A/B: the engines of the old environment, by name; in A/A this environment's."""
        return {name: engine for name, engine in self._old_answers.items() if isinstance(engine, FoundEngine)}

    def get(self, name: str) -> FoundEngine | MissingEngine:
        """An engine by name, or why it cannot be used."""
        for answer in self.answers:
            if _name(answer) == name:
                return answer
        return MissingEngine(name, f"{name} was not selected by --rwkv-backend={self._settings.backend}")

    def items(self, request: Request, only: str | None) -> list[Item | MissingEngine]:
        """The parameters of a test: its items, and each missing engine once. Empty when `only` was not chosen.

        Raises:
            OptionError: the test's marker asks for something unknown.
        """
        if only is not None and only not in self.chosen:
            return []
        # Of missing engines too: a quant that only they know is no mistake, and their tests are skipped with a reason.
        check_quants(self._settings, request, self._backends)
        measured = [engine for name, engine in self.found.items() if only in (None, name)]
        self._note_left_out(request, [engine.backend for engine in measured])
        missing = [engine for engine in self.missing if only in (None, engine.name)]
        threads = fingerprint.physical_cores()
        return [*items(self._settings, request, measured, self._model.limits, threads), *missing]

    def _note_left_out(self, request: Request, backends: list[Backend]) -> None:
        if self._named:
            check_batches(self._settings, request, backends)
        sentences = [without_quant(self._settings, backend) for backend in backends]
        sentences += [beyond_batch(self._settings, request, backend) for backend in backends]
        self._left_out |= {sentence: None for sentence in sentences if sentence}

    @property
    def left_out(self) -> list[str]:
        """Sentences on engines that know none of the quants, and on batches that engines of `all` do not have."""
        return [*self._left_out]

    def device(self, case: Case) -> Device:
        """The device that a case is measured on."""
        return next(device for device in self.found[case.backend].devices if device.id == case.device)


def _name(answer: FoundEngine | MissingEngine) -> str:
    return answer.name if isinstance(answer, MissingEngine) else answer.backend.name
