"""Where extractors are found, configured and kept.

`register` is what a plugin calls. `configure` makes a cheap extractor from a name and parameters.
Extractors come from the modules of this folder and from entry points of the group `openpeek.extractors`.
"""

from typing import Final

from pydantic import ValidationError

from domain.errors import Invalid
from domain.json_types import Json
from domain.registry import Registry
from extractors.contract import Extractor, ModelHome

EXTRACTORS: Final[Registry[type[Extractor]]] = Registry("extractor", "extractors", "openpeek.extractors")

register = EXTRACTORS.register


def configure(name: str, parameters: dict[str, Json], models: ModelHome) -> Extractor:
    """Return an extractor of that name with checked parameters; weights are not touched.

    Raises:
        Invalid: the extractor is unknown, or its parameters do not fit it.
    """
    extractor = EXTRACTORS.require(name, location=("body", "feature_extractor", "feature_extractor_name"))
    try:
        checked = extractor.Parameters.model_validate(parameters)
    except ValidationError as error:
        first = error.errors()[0]
        where = ("body", "feature_extractor", "parameters", *first["loc"])
        raise Invalid(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", location=where) from error
    return extractor(checked, models)
