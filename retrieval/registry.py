"""Where stages are found: the modules of `retrieval/stages`, and entry points of the group `openpeek.stages`."""

from typing import Final

from domain.registry import Registry
from retrieval.contract import Stage

STAGES: Final[Registry[type[Stage]]] = Registry("stage", "retrieval.stages", "openpeek.stages")

register = STAGES.register
