"""Which stages a model's vectors are of use to."""

from retrieval.registry import STAGES


def stages_of_vectors() -> list[str]:
    """Return the ids of the stages that search by a feature URI, in order."""
    return sorted(name for name, stage in STAGES.items() if "feature_uri" in str(stage.Parameters.model_json_schema()))
