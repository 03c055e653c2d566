"""Weights: where they lie on this machine, how they get there, and what they must look like.

Looked for in OPENPEEK_MODELS, in installed model packages, in the hub's cache. Nothing is downloaded here
but by `pull`. Only safetensors are read: their header is checked before any tensor is.
"""

import hashlib
import importlib.util
import json
import math
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from domain.errors import WeightsBroken, WeightsMissing
from extractors.contract import ModelHome, ModelIdentity
from extractors.text_embedding.models import Model

WEIGHTS: Final = "model.safetensors"
TOKENIZER: Final = "tokenizer.json"
CONFIG: Final = "config.json"
_NEEDED: Final = (CONFIG, WEIGHTS, TOKENIZER)
_PIECE: Final = 8 * 1024 * 1024
_MAX_HEADER: Final = 100 * 1024 * 1024
_MOST_NAMED: Final = 10
_hashes: dict[tuple[str, int, int], str] = {}


@dataclass(frozen=True, slots=True)
class Located:
    """A folder with a model's files; ``commit`` is known when it is a snapshot of the hub's cache."""

    folder: Path
    commit: str | None = None


def locate(model: Model, home: ModelHome) -> Located:
    """Return where a model's files lie.

    Raises:
        WeightsMissing: nowhere; the message tells the ways to get them.
        WeightsBroken: a folder is there, and files are missing in it, or it holds pickled weights only.
    """
    own = Path(home.folder, *model.model_id.split("/"))
    if own.is_dir() and any(own.iterdir()):
        return _complete(model, Located(own))
    for found in (_in_package(model), _in_hub_cache(model)):
        if found is not None:
            return _complete(model, found)
    raise WeightsMissing(model.model_id, ways(model, home))


def is_here(model: Model, home: ModelHome) -> bool:
    """Say whether a model's files can be found on this machine."""
    try:
        locate(model, home)
    except (WeightsMissing, WeightsBroken):
        return False
    return True


def ways(model: Model, home: ModelHome) -> str:
    """Tell how a model's weights can be had."""
    place = Path(home.folder, *model.model_id.split("/"))
    size = f" ({model.size_bytes / 1e9:.1f} GB)" if model.size_bytes else ""
    return (
        f"Get them in one of three ways: run `openpeek model pull {model.model_id}`{size}; copy {', '.join(_NEEDED)} "
        f"into {place}; or set HF_HOME to a hub cache that has the model."
    )


def identify(model: Model, located: Located) -> ModelIdentity:
    """Return exactly which weights these are. Reads the whole file once per process."""
    weights = sha256(located.folder / WEIGHTS)
    revision = located.commit or weights
    if weights == model.sha256.get(WEIGHTS):
        revision = model.revision
    return ModelIdentity(model.model_id, revision, weights, sha256(located.folder / TOKENIZER))


def pull(model: Model, home: ModelHome, say: Callable[[str], None]) -> Path:
    """Download a model at its pinned revision into the models folder, and check the hashes that are known.

    Raises:
        WeightsMissing: the hub cannot be reached.
        WeightsBroken: what arrived is not what was pinned.
    """
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - 0.3 s that only a download needs
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled  # noqa: PLC0415

    target = Path(home.folder, *model.model_id.split("/"))
    say(f"Downloading {model.model_id} at revision {model.revision[:12]} into {target}")
    try:
        snapshot_download(
            model.model_id, revision=model.revision, local_dir=target, allow_patterns=["*.json", WEIGHTS, "*.model"]
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).splitlines()[0][:200]
        raise WeightsMissing(model.model_id, f"The download failed: {reason}. {ways(model, home)}") from error
    for name, wanted in model.sha256.items():
        there = sha256(target / name)
        if there != wanted:
            raise WeightsBroken(
                model.model_id, f"{name} has SHA-256 {there}, not {wanted}. Delete {target}, and pull again."
            )
    return target


def sha256(path: Path) -> str:
    """Return the hash of a file in hex, read once per process and version of the file."""
    state = path.stat()
    key = (str(path.resolve()), state.st_size, state.st_mtime_ns)
    if key not in _hashes:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
        _hashes[key] = digest.hexdigest()
    return _hashes[key]


def read_config(model_id: str, folder: Path) -> dict[str, Any]:
    """Return config.json. Raises WeightsBroken when it is no JSON object."""
    try:
        config = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise WeightsBroken(model_id, f"{folder / CONFIG} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise WeightsBroken(model_id, f"{folder / CONFIG} is not a JSON object.")
    return config


def read_header(model_id: str, path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return tensor name → (dtype, shape) from a safetensors header, without reading any tensor.

    Raises:
        WeightsBroken: the file is no whole safetensors file.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if not 2 <= length <= _MAX_HEADER:
                raise ValueError("its header has an impossible length")  # noqa: TRY301
            header = json.loads(file.read(length))
            size = os.fstat(file.fileno()).st_size
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
        if size != 8 + length + end:
            raise ValueError(f"it has {size:,} bytes where its header promises {8 + length + end:,}")  # noqa: TRY301
        return {name: (entry["dtype"], tuple(entry["shape"])) for name, entry in tensors.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise WeightsBroken(model_id, f"{path} is not a whole safetensors file: {error}. Get it again.") from error


def check_layout(
    model_id: str, there: Mapping[str, tuple[str, tuple[int, ...]]], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Compare a checkpoint's tensors with those that its config demands.

    Raises:
        WeightsBroken: tensors are missing, too many, of another shape or of a type other than F32, F16, BF16;
            they are named.
    """
    problems = [f"missing {name} {list(shape)}" for name, shape in expected.items() if name not in there]
    problems += [f"unexpected {name}" for name in there if name not in expected]
    for name, (dtype, shape) in there.items():
        if name in expected and shape != expected[name]:
            problems.append(f"{name} has shape {list(shape)}, not {list(expected[name])}")
        if name in expected and dtype not in {"F32", "F16", "BF16"}:
            problems.append(f"{name} is {dtype}, not F32, F16 or BF16")
    if problems:
        rest = f" … and {len(problems) - _MOST_NAMED} more" if len(problems) > _MOST_NAMED else ""
        shown = "; ".join(problems[:_MOST_NAMED])
        raise WeightsBroken(model_id, f"the checkpoint does not fit its config.json: {shown}{rest}.")


def parameter_count(expected: Mapping[str, tuple[int, ...]]) -> int:
    """Return the number of parameters of a layout."""
    return sum(math.prod(shape) for shape in expected.values())


def _complete(model: Model, located: Located) -> Located:
    absent = [name for name in _NEEDED if not (located.folder / name).is_file()]
    if WEIGHTS in absent and (located.folder / "pytorch_model.bin").exists():
        problem = f"{located.folder} holds pickled weights (pytorch_model.bin) only; those can run code. Get {WEIGHTS}."
        raise WeightsBroken(model.model_id, problem)
    if absent:
        raise WeightsBroken(model.model_id, f"{', '.join(absent)} missing in {located.folder}.")
    return located


def _in_package(model: Model) -> Located | None:
    if model.package is None:
        return None
    name, inside = model.package
    spec = importlib.util.find_spec(name)  # finds without importing: the package itself would load a model
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))) / inside
    return Located(folder) if folder.is_dir() else None


def _in_hub_cache(model: Model) -> Located | None:
    default = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface")) / "hub"
    cache = Path(os.environ.get("HF_HUB_CACHE", default))
    snapshots = cache / f"models--{model.model_id.replace('/', '--')}" / "snapshots"
    if not snapshots.is_dir():
        return None
    found = sorted(path for path in snapshots.iterdir() if (path / WEIGHTS).exists())
    pinned = [path for path in found if path.name == model.revision]
    chosen = (pinned or found)[:1]
    return Located(chosen[0], chosen[0].name) if chosen else None
