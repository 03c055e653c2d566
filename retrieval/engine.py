"""The stage engine: checks a pipeline when it is made, and runs it stage by stage, timing each."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from domain.documents import Document
from domain.errors import Invalid, OpenPeekError
from domain.filters import Filter, both, matches, parse
from domain.json_types import Fields, Json
from retrieval.building import build, check_parameters, located, without_templates
from retrieval.contract import Category, Context, Stage
from retrieval.fields import visible
from retrieval.relaxing import leave_out_optional, map_filters, relax, spell_dynamic
from retrieval.spelling import StageSpec
from retrieval.template_calls import Clock
from retrieval.templates import MissingInput, TemplateWrong, fill, names_used

# What templates of stage parameters may name. DOC is for stages that fill templates per document themselves.
_ROOTS = ("INPUT", "CONTEXT", "STAGE", "SECRET")


@dataclass(slots=True)
class Execution:
    """What came of running a pipeline.

    Attributes:
        stages: stage name → input and output count, milliseconds, and what the stage reports of itself.
        degraded: stages that failed and were skipped because they may be.
        relaxations: conditions that were dropped because their input was not given.
    """

    documents: list[Document]
    stages: dict[str, Fields] = field(default_factory=dict)
    total_ms: float = 0.0
    warnings: list[str] = field(default_factory=list)
    degraded: list[Fields] = field(default_factory=list)
    relaxations: list[Fields] = field(default_factory=list)


def check(stages: Sequence[StageSpec], input_schema: Mapping[str, Json]) -> None:
    """Refuse at creation what could never run.

    Args:
        stages: as `retrieval.spelling.read_stages` gives them.
        input_schema: as `retrieval.inputs.read_schema` gives it; an empty one allows any input.

    Raises:
        Invalid: parameters, filters or templates are wrong, or a template names an input that is not declared;
            the location points at the fault.
    """
    for written in stages:
        spec = _spelled(written)
        parts: tuple[tuple[str, Json], ...] = (
            ("parameters", spec.parameters), ("pre_filters", spec.pre_filters), ("post_filters", spec.post_filters),
        )  # fmt: skip
        for part, value in parts:
            for used in names_used(value, spec.at(part)):
                if used.root not in _ROOTS:
                    message = f"{used.root} means nothing here; there are {', '.join(_ROOTS)}."
                    raise TemplateWrong(message, location=used.location, code="template_name_not_here")
                if used.root == "INPUT" and input_schema and used.key and used.key not in input_schema:
                    known = ", ".join(sorted(input_schema))
                    message = f"The template names the input {used.key!r}; declared are {known}."
                    raise Invalid(message[:1_000], location=used.location, code="unknown_input")
            if part != "parameters":
                parse(without_templates(value), location=spec.at(part))
        check_parameters(spec)


def execute(
    stages: Sequence[StageSpec],
    context: Context,
    *,
    clock: Clock = lambda: datetime.now(UTC),
    secrets: Mapping[str, Json] | None = None,
) -> Execution:
    """Run a pipeline.

    Args:
        stages: as `retrieval.spelling.read_stages` gives them.
        context: the corpus, the inputs and the caller's filter; its warnings become the execution's.
        clock: tells the time to templates.
        secrets: what templates find behind SECRET.

    Raises:
        Invalid: an input is missing, or parameters are wrong once templates are filled in.
        Exception: whatever a stage raises that may not be skipped.
    """
    run = _Run(Execution([], warnings=context.warnings), context, clock, dict(secrets or {}))
    began = time.perf_counter()
    for spec in stages:
        run.stage(spec)
    run.execution.total_ms = _milliseconds(began)
    return run.execution


@dataclass(slots=True)
class _Run:
    """One execution on its way. ``fetched`` says that some stage has begun the list of documents."""

    execution: Execution
    context: Context
    clock: Clock
    secrets: dict[str, Json]
    statistics: dict[str, Json] = field(default_factory=dict)
    fetched: bool = False

    def stage(self, spec: StageSpec) -> None:
        """Run one stage and keep its statistics; skip it if it fails and may."""
        execution = self.execution
        started, before = time.perf_counter(), len(execution.documents)
        own_filter = self.context.filter
        self.context.timings.clear()
        try:
            execution.documents = self._documents(spec)
        except Exception as error:
            if spec.on_error != "skip":
                raise
            # What a stranger's stage raises may hold anything, so only its kind is told.
            reason = error.message if isinstance(error, OpenPeekError) else f"It failed with {type(error).__name__}."
            execution.degraded.append(
                {"resource": spec.name, "reason": reason, "next_step": "The stage was skipped, as its on_error says."}
            )
        finally:
            self.context.filter = own_filter
        after = len(execution.documents)
        statistics: Fields = {
            "input_count": before,
            "output_count": after,
            "duration_ms": _milliseconds(started),
            "efficiency": round(after / before, 4) if before else 1.0,
            **{name: round(spent, 3) for name, spent in self.context.timings.items()},
            **self.context.details.get(spec.name, {}),
        }
        execution.stages[spec.name] = statistics
        self.statistics[spec.name] = statistics
        if spec.output_alias:
            self.statistics[spec.output_alias] = statistics

    def _documents(self, written: StageSpec) -> list[Document]:
        spec = self._filled(written)
        before = parse(spec.pre_filters, location=spec.at("pre_filters"))
        after = parse(spec.post_filters, location=spec.at("post_filters"))
        stage, warnings = build(spec, spec.parameters)
        self.context.warnings += warnings
        documents = self.execution.documents
        if not self.fetched:
            self.context.filter = both(self.context.filter, before)
        elif before is not None:
            documents = _keep(before, documents)
        documents = stage.run(list(documents), self.context, first=not self.fetched)
        self.fetched = self.fetched or bool(documents) or _fetches(stage)
        return documents if after is None else _keep(after, documents)

    def _filled(self, written: StageSpec) -> StageSpec:
        """Return a stage with its templates filled in, without what depends on inputs that were not given."""
        names: dict[str, Json] = {
            "INPUT": dict(self.context.inputs), "CONTEXT": {}, "STAGE": self.statistics, "SECRET": self.secrets,
        }  # fmt: skip

        def missing(value: Json) -> str | None:
            try:
                fill(value, names, clock=self.clock)
            except MissingInput as error:
                return error.message
            except TemplateWrong:
                return None  # told, with its location, when the stage is filled in
            return None

        spec = _spelled(written)
        dropped = self.execution.relaxations
        parameters = map_filters(spec.parameters, lambda wanted: relax(wanted, missing, dropped))
        filled = fill(leave_out_optional(parameters, missing), names, clock=self.clock, location=spec.at("parameters"))
        assert isinstance(filled, dict)
        before, after = (
            fill(relax(wanted, missing, dropped), names, clock=self.clock, location=spec.at(part))
            for part, wanted in (("pre_filters", spec.pre_filters), ("post_filters", spec.post_filters))
        )
        return replace(spec, parameters=filled, pre_filters=before, post_filters=after)


def _fetches(stage: Stage) -> bool:
    """Say whether a stage begins the list, so that an empty one after it means that nothing was found."""
    return stage.category is Category.FILTER


def _keep(wanted: Filter, documents: Sequence[Document]) -> list[Document]:
    return [document for document in documents if matches(wanted, visible(document))]


def _spelled(spec: StageSpec) -> StageSpec:
    """Return a stage in which dynamic values of filters are templates."""
    try:
        parameters = map_filters(spec.parameters, spell_dynamic)
    except Invalid as error:
        raise located(error, spec.at("parameters")) from error
    assert isinstance(parameters, dict)
    try:
        before, after = spell_dynamic(spec.pre_filters), spell_dynamic(spec.post_filters)
    except Invalid as error:
        raise located(error, spec.location) from error
    return replace(spec, parameters=parameters, pre_filters=before, post_filters=after)


def _milliseconds(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)
