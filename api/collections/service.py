"""Making collections: the one place where extractor, source and model are decided for good."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from api.collections import mappings
from api.collections.schemas import CollectionCreate
from api.deps import Inside
from domain.errors import Invalid, WeightsBroken, WeightsMissing
from domain.ids import new_id
from domain.json_types import Fields, Json
from extractors import registry
from extractors.contract import Extractor, ModelIdentity
from storage.tables import buckets, collections
from storage.tables.collections import CollectionRow


@dataclass(slots=True)
class Made:
    """A new collection and what its maker should know."""

    row: CollectionRow
    warnings: list[str]


def create_collection(here: Inside, body: CollectionCreate) -> Made:
    """Add a collection. Its model, revision and width are decided now and never changed.

    Raises:
        Invalid: extractor, parameters, mappings or source do not fit.
        NotFound: a source does not exist.
        AlreadyExists: the name is taken.
    """
    warnings = body.unknown_keys()
    extractor = _extractor(here, body, warnings)
    identity = _identity(extractor, warnings)
    with here.services.storage.database.writing() as uow:
        source, schema = _source(uow.session, here, body)
        row = _row(here, body, extractor, identity, source, schema)
        collections.add(uow.session, row)
    return Made(row, warnings)


def weights_warning(here: Inside, rows: Sequence[CollectionRow]) -> list[str]:
    """Return a warning for each collection whose weights are not here: its objects will wait."""
    warnings: list[str] = []
    for row in rows:
        _identity(registry.configure(row.extractor_name, row.parameters, here.services.models), warnings)
    return list(dict.fromkeys(warnings))


def _extractor(here: Inside, body: CollectionCreate, warnings: list[str]) -> Extractor:
    asked = body.feature_extractor
    name = asked.feature_extractor_name
    version = asked.version or "v1"
    if name.endswith(f"_{version}") and registry.EXTRACTORS.find(name) is None:
        name = name.removesuffix(f"_{version}")  # the extractor's id where its name was expected
    plugin = registry.EXTRACTORS.require(name, location=("body", "feature_extractor", "feature_extractor_name"))
    if version != plugin.version:
        message = f"{plugin.name} has version {plugin.version} only."
        raise Invalid(message, location=("body", "feature_extractor", "version"), code="unknown_version")
    parameters = dict(asked.parameters or {})
    theirs = parameters.get("extractor_type")
    if isinstance(theirs, str) and registry.EXTRACTORS.find(theirs) is not plugin:
        # The SDK fills in another extractor's parameters when it is given an empty object.
        warnings.append(f"The parameters were ignored: they say they are for {theirs!r}, not for {plugin.name!r}.")
        parameters = {}
    return registry.configure(plugin.name, parameters, here.services.models)


def _identity(extractor: Extractor, warnings: list[str]) -> ModelIdentity | None:
    try:
        return extractor.identity()
    except (WeightsMissing, WeightsBroken) as error:
        warnings.append(f"{error.message} Until then batches of this collection wait.")
        return None


def _source(session: Session, here: Inside, body: CollectionCreate) -> tuple[Fields, dict[str, Json]]:
    """Return the source with ids instead of names, and the properties it brings."""
    kind = body.source.type
    if kind not in {"bucket", "collection"}:
        message = f"A source of type {kind!r} is not offered; use bucket or collection."
        raise Invalid(message, location=("body", "source", "type"), code="not_offered")
    if body.source.source_filters:
        message = "source_filters are not offered yet."
        raise Invalid(message, location=("body", "source", "source_filters"), code="not_offered")
    identifiers = list(dict.fromkeys(body.source.identifiers(kind)))
    if not identifiers:
        message = f"A source of type {kind} needs {kind}_ids."
        raise Invalid(message, location=("body", "source", f"{kind}_ids"))
    schema: dict[str, Json] = {}
    ids: list[Json] = []
    for identifier in identifiers:
        if kind == "bucket":
            bucket = buckets.require(session, here.scope, identifier)
            ids.append(bucket.id)
            schema |= bucket.schema
        else:
            upstream = collections.require(session, here.scope, identifier)
            ids.append(upstream.id)
            properties = upstream.output_schema.get("properties")
            schema |= properties if isinstance(properties, dict) else {}
    source: Fields = {"type": kind, f"{kind}_ids": list(dict.fromkeys(ids))}
    return source, schema


def _row(
    here: Inside,
    body: CollectionCreate,
    extractor: Extractor,
    identity: ModelIdentity | None,
    source: Fields,
    schema: dict[str, Json],
) -> CollectionRow:
    asked, output, catalogue = body.feature_extractor, extractor.output(), extractor.catalogue
    rules = mappings.passthrough(asked)
    everything = bool(asked.include_all_source_fields) or (output is None and not rules)
    parameters = extractor.resolved().model_dump(mode="json", exclude_none=True)
    return CollectionRow(
        id=new_id("col"),
        organization_id=here.scope.organization_id,
        namespace_id=here.scope.namespace_id,
        name=body.collection_name,
        description=body.description,
        source=source,
        extractor_name=extractor.name,
        extractor_version=extractor.version,
        parameters={"extractor_type": extractor.name, **parameters},
        input_mappings=mappings.input_mappings(catalogue.inputs, asked.input_mappings, schema),
        field_passthrough=rules,
        include_all_source_fields=everything,
        input_schema={"properties": schema},
        output_schema=mappings.output_schema(catalogue.output_schema, schema, rules, everything=everything),
        settings={"metadata": body.metadata or {}},
        enabled=body.enabled is not False,
        model_id=output.spec.model_id if output else None,
        inference_name=output.spec.inference_name if output else None,
        dimensions=output.spec.dimensions if output else None,
        precision=output.spec.precision if output else None,
        document_prefix=output.prefix if output else None,
        revision=identity.revision if identity else None,
        weights_sha256=identity.weights_sha256 if identity else None,
        tokenizer_sha256=identity.tokenizer_sha256 if identity else None,
    )
