"""A document as users see it: what filters and sorts between stages look at."""

from domain.documents import Document
from domain.json_types import Fields


def visible(document: Document) -> Fields:
    """Return the fields, ids, scores and ``_internal`` of a document, as a reply shows them.

    Ids win over fields of the same name. The score of a search wins too; where no search has scored the
    document, a field that users have named ``score`` is seen.
    """
    seen: Fields = {
        **document.fields,
        "document_id": document.document_id,
        "collection_id": document.collection_id,
        "_internal": document.internal,
    }
    if document.score is not None:
        seen["score"] = document.score
    if document.scores:
        seen["scores"] = dict(document.scores)
    return seen
