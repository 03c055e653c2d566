"""The canary: a text whose vector must stay what it was when these weights were first used in this installation.

Hashes say that the weights are the same ones. This says that what is computed with them is the same, too: after an
upgrade of a library, on another machine, with another compiler's arithmetic.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from domain.errors import WeightsBroken
from domain.ids import vector_key
from extractors.contract import Canaries, ModelIdentity

if TYPE_CHECKING:
    from extractors.text_embedding.encoder import Encoder

TEXT: Final = "Ein Kanarienvogel sang 1911 in the mine; 歌が止むと、men left."
# Of 1 - cosine. Other hardware adds up in another order, and in int8 a number may then be rounded the other way.
ALLOWED: Final[Mapping[str, float]] = {"fp32": 1e-5, "int8": 1e-3}


def check(encoder: "Encoder", identity: ModelIdentity, prefix: str, precision: str, canaries: Canaries) -> None:
    """Compare the canary's vector with the first one, or make this the first.

    Raises:
        WeightsBroken: it is another vector.
    """
    vector = encoder.encode([prefix + TEXT], urgent=True)[0]
    files = f"{identity.weights_sha256} {identity.tokenizer_sha256}"
    first = canaries.first(vector_key("", TEXT, identity.model_id, files, prefix, precision), vector)
    drift = 1.0 - float(first @ vector) if first.shape == vector.shape else 1.0
    if drift > ALLOWED[precision]:
        problem = (
            f"the same files gave another vector when they were first used here: 1 - cosine is {drift:.1e}, and "
            f"{ALLOWED[precision]:.0e} is allowed. Its documents could no longer be found reliably. Go back to the "
            f"versions of OpenPeek and torch, and the config.json, that were in use."
        )
        raise WeightsBroken(identity.model_id, problem)
