"""Which field of the source feeds which input of the extractor, and which fields documents carry on."""

from collections.abc import Mapping, Sequence
from typing import Any

from api.collections.schemas import ExtractorBody
from domain.errors import Invalid
from domain.json_types import Fields, Json

_WHERE = ("body", "feature_extractor", "input_mappings")


def input_mappings(wanted: Mapping[str, str], given: Json, schema: Mapping[str, Json]) -> Fields:
    """Return ``{input key: {"path": …} or {"literal": …}}``.

    Args:
        wanted: the extractor's inputs and their types.
        given: what the caller wrote: an object, a list, or nothing, in which case it is inferred.
        schema: the properties of the source.

    Raises:
        Invalid: a mapping is malformed, or nothing was given and nothing can be inferred.
    """
    mappings = _read(given)
    for key in wanted:
        if key not in mappings:
            mappings[key] = {"path": _infer(key, schema)}
    return mappings


def _read(given: Json) -> dict[str, Json]:
    if given is None or given in ({}, []):
        return {}
    if isinstance(given, dict):
        return {key: _one(value, (*_WHERE, key)) for key, value in given.items()}
    if isinstance(given, list):
        found: dict[str, Json] = {}
        for index, item in enumerate(given):
            where = (*_WHERE, index)
            if not isinstance(item, dict) or not isinstance(item.get("input_key"), str):
                raise Invalid("Each input mapping needs an input_key.", location=where)
            if item.get("source_type") == "literal":
                found[str(item["input_key"])] = {"literal": item.get("override", item.get("value"))}
            elif item.get("source_type") == "vector":
                raise Invalid("Vectors as inputs are not offered yet.", location=where, code="not_offered")
            else:
                found[str(item["input_key"])] = _one(item.get("path"), where)
        return found
    raise Invalid("input_mappings is an object {input: path} or a list of mappings.", location=_WHERE)


def _one(value: Json, where: tuple[str | int, ...]) -> Json:
    if isinstance(value, dict):
        value = value.get("path") or value.get("source_path")
    if not isinstance(value, str) or not value.strip():
        raise Invalid("An input mapping needs the path of a field or blob.", location=where)
    return {"path": value.strip().removeprefix("$.").removeprefix("payload.")}


def _infer(key: str, schema: Mapping[str, Json]) -> str:
    if key in schema or not schema:
        return key
    for kinds in (("text",), ("text", "string")):  # a text among strings is what is meant
        texts = [name for name, rule in schema.items() if isinstance(rule, dict) and rule.get("type") in kinds]
        if len(texts) == 1:
            return texts[0]
    known = ", ".join(texts) or "none"
    message = (
        f"Which field is the extractor's input {key!r}? The source's text fields are: {known}. "
        f'Say it with input_mappings: {{"{key}": "<field>"}}.'
    )
    raise Invalid(message, location=_WHERE, code="input_mapping_needed")


def passthrough(body: ExtractorBody) -> list[Json]:
    """Return the rules for fields that documents carry on; a plain string is a field of that name.

    Raises:
        Invalid: a rule is malformed.
    """
    rules: list[Json] = []
    for index, given in enumerate(body.field_passthrough or []):
        where = ("body", "feature_extractor", "field_passthrough", index)
        rule: Any = {"source_path": given} if isinstance(given, str) else given
        if not isinstance(rule, dict) or not isinstance(rule.get("source_path"), str) or not rule["source_path"]:
            raise Invalid("Each rule is a field's name, or an object with a source_path.", location=where)
        target = rule.get("target_path") or rule["source_path"]
        if not isinstance(target, str):
            raise Invalid("target_path must be a string.", location=where)
        kept: dict[str, Json] = {"source_path": rule["source_path"], "target_path": target}
        if rule.get("default") is not None:
            kept["default"] = rule["default"]
        if rule.get("required"):
            kept["required"] = True
        rules.append(kept)
    return rules


def output_schema(
    extractor_schema: Mapping[str, Json], source: Mapping[str, Json], rules: Sequence[Json], *, everything: bool
) -> Fields:
    """Return the fields that documents will have: those carried on, and those the extractor adds."""
    properties: dict[str, Json] = dict(source) if everything else {}
    for rule in rules:
        if isinstance(rule, dict):
            properties[str(rule["target_path"])] = source.get(str(rule["source_path"]), {"type": "string"})
    return {"properties": {**properties, **extractor_schema}}
