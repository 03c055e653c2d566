"""The extractor ``title_only``."""

from extractors.contract import Extraction, Part, Source
from extractors.passthrough import Passthrough
from extractors.registry import register


@register("title_only")
class TitleOnly(Passthrough):
    """One document per source, with nothing but its title."""

    name = "title_only"

    def parts(self, source: Source) -> Extraction:
        """Return the title."""
        return Extraction([Part({"title": str(source.fields.get("title", ""))})])
