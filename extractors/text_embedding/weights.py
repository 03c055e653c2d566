"""Weights: where they lie on this machine, how they get there, and what they must look like.

Looked for in OPENPEEK_MODELS, in installed model packages, in the hub's cache. Nothing is downloaded here
but by `pull`. Only safetensors are read: their header is checked before any tensor is.
"""

import hashlib
import importlib.util
import json
import os
import shutil
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from domain.errors import WeightsBroken, WeightsMissing
from extractors.contract import ModelHome, ModelIdentity
from extractors.text_embedding.models import Model

WEIGHTS: Final = "model.safetensors"
TOKENIZER: Final = "tokenizer.json"
CONFIG: Final = "config.json"
RECEIPT: Final = "openpeek.json"  # which revision `pull` fetched, and the hash of its weights
READABLE: Final = frozenset({"F32", "F16", "BF16"})

_NEEDED: Final = (CONFIG, WEIGHTS, TOKENIZER)
_WANTED: Final = (
    *_NEEDED,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
)
_HASHES: Final = ".sha256.json"
_BIG: Final = 64 * 1024 * 1024  # files above this have their hash remembered on disk
_LENGTH_BYTES: Final = 8
_MAX_HEADER: Final = 100 * 1024 * 1024
_MOST_NAMED: Final = 10
_hashes: dict[str, str] = {}
_hashing = threading.Lock()


@dataclass(frozen=True, slots=True)
class Located:
    """A folder with a model's files.

    Attributes:
        revision_hint: the commit they are said to come from: the name of a snapshot in the hub's cache.
    """

    folder: Path
    revision_hint: str | None = None


def locate(model: Model, home: ModelHome) -> Located:
    """Return where a model's files lie.

    Raises:
        WeightsMissing: nowhere; the message tells the ways to get them.
        WeightsBroken: a folder is there, and files are missing in it, or it holds pickled weights only.
    """
    if model.folder is not None:
        return _complete(model, Located(model.folder))
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


def locate_tokenizer(model: Model, home: ModelHome) -> Path:
    """Return the folder with a model's tokenizer, which is all that is needed where a server embeds.

    Raises:
        WeightsMissing: it is nowhere; the message tells where to put it.
    """
    own = Path(home.folder, *model.model_id.split("/"))
    elsewhere = [found.folder for found in (_in_package(model), _in_hub_cache(model)) if found is not None]
    for folder in (*([model.folder] if model.folder else []), own, *elsewhere):
        if (folder / TOKENIZER).is_file():
            return folder
    problem = (
        f"Texts are counted here before they are sent to the embeddings server, because a server may cut them without "
        f"a word; that takes the model's {TOKENIZER} (not its weights). Copy it into {own}."
    )
    raise WeightsMissing(model.model_id, problem)


def ways(model: Model, home: ModelHome) -> str:
    """Tell how a model's weights can be had."""
    place = Path(home.folder, *model.model_id.split("/"))
    size = f" ({model.size_bytes / 1e9:.1f} GB)" if model.size_bytes else ""
    return (
        f"Get them in one of three ways: run `openpeek model pull {model.model_id}`{size}; copy {', '.join(_NEEDED)} "
        f"into {place}; or set HF_HOME to a hub cache that has the model."
    )


def identify(model: Model, located: Located, home: ModelHome) -> ModelIdentity:
    """Return exactly which weights these are. Reads a file once, and again only when it has changed.

    The revision is the pinned commit if the hash says so, else the commit they came from, else the hash itself.

    Raises:
        WeightsBroken: a file cannot be read.
    """
    try:
        weights = sha256(located.folder / WEIGHTS, remember_in=Path(home.folder))
        tokenizer = sha256(located.folder / TOKENIZER)
    except OSError as error:
        raise WeightsBroken(model.model_id, f"{located.folder} cannot be read: {error}") from error
    if weights == model.sha256.get(WEIGHTS):
        revision = model.revision
    else:
        revision = located.revision_hint or _receipt(located.folder, weights) or weights
    return ModelIdentity(model.model_id, revision, weights, tokenizer)


def pull(model: Model, home: ModelHome, progress: Callable[[str], None]) -> Path:
    """Download a model at its pinned revision into the models folder; return where it lies.

    What arrives is checked against the hashes that are known, and only then put where `locate` looks. An
    interrupted download is taken up again. This is the one function that uses the network.

    Raises:
        WeightsMissing: the hub cannot be reached.
        WeightsBroken: what arrived is not what was pinned.
    """
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - 0.3 s that only a download needs
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled  # noqa: PLC0415

    target = Path(home.folder, *model.model_id.split("/"))
    partial = target.with_name(f".{target.name}.partial")
    progress(f"Downloading {model.model_id} at revision {model.revision[:12]} into {target}")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        snapshot_download(model.model_id, revision=model.revision, local_dir=partial, allow_patterns=list(_WANTED))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise WeightsMissing(model.model_id, f"The download failed: {reason}. {ways(model, home)}") from error
    progress("Checking what arrived")
    _complete(model, Located(partial))
    for name, wanted in model.sha256.items():
        there = sha256(partial / name)
        if there != wanted:
            shutil.rmtree(partial, ignore_errors=True)
            raise WeightsBroken(model.model_id, f"the downloaded {name} has SHA-256 {there}, not {wanted}. Pull again.")
    receipt = {"revision": model.revision, "sha256": sha256(partial / WEIGHTS)}
    (partial / RECEIPT).write_text(json.dumps(receipt))
    _move_in(partial, target)
    progress(f"{model.model_id} lies in {target}")
    return target


def sha256(path: Path, remember_in: Path | None = None) -> str:
    """Return the hash of a file in hex, remembered in this process for as long as the file does not change.

    Args:
        path: the file.
        remember_in: a folder where hashes of big files are kept for other processes, if it can be written.
    """
    state = path.stat()
    key = f"{path.resolve()} {state.st_size} {state.st_mtime_ns}"
    if key in _hashes:
        return _hashes[key]
    with _hashing:
        book = remember_in / _HASHES if remember_in is not None and state.st_size >= _BIG else None
        known = _read_book(book)
        if key not in _hashes and key not in known:
            with path.open("rb") as file:
                known[key] = hashlib.file_digest(file, "sha256").hexdigest()
            _write_book(book, known)
        _hashes.setdefault(key, known.get(key, ""))
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


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """Where a tensor lies in its file: ``offset`` in bytes from the beginning of the file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int


def read_header(model_id: str, path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return tensor name → (dtype, shape) from a safetensors header, without reading any tensor.

    Raises:
        WeightsBroken: the file is no whole safetensors file.
    """
    try:
        return {name: (place.dtype, place.shape) for name, place in tensor_places(path).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise WeightsBroken(model_id, f"{path} is not a whole safetensors file: {error}. Get it again.") from error


def tensor_places(path: Path) -> dict[str, TensorPlace]:
    """Return where each tensor of a safetensors file lies. Raises what a broken file makes it raise: `read_header`."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(_LENGTH_BYTES))
        if length > _MAX_HEADER:
            raise ValueError("its header has an impossible length")
        header = json.loads(file.read(length))
        size = os.fstat(file.fileno()).st_size
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    begin = _LENGTH_BYTES + length
    promised = begin + max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
    if size != promised:
        raise ValueError(f"it has {size:,} bytes where its header promises {promised:,}")
    return {
        name: TensorPlace(entry["dtype"], tuple(entry["shape"]), begin + entry["data_offsets"][0])
        for name, entry in tensors.items()
    }


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
        if name in expected and dtype not in READABLE:
            problems.append(f"{name} is {dtype}, not F32, F16 or BF16")
    if problems:
        rest = f" … and {len(problems) - _MOST_NAMED} more" if len(problems) > _MOST_NAMED else ""
        shown = "; ".join(problems[:_MOST_NAMED])
        raise WeightsBroken(model_id, f"the checkpoint does not fit its config.json: {shown}{rest}.")


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
    """Return the snapshot of the pinned revision, else that of ``main``, else any; the network is not asked."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "huggingface")
    cache = os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or default, "hub")
    repository = Path(cache, f"models--{model.model_id.replace('/', '--')}")
    snapshots = repository / "snapshots"
    if not snapshots.is_dir():
        return None
    main = ""
    with suppress(OSError):
        main = (repository / "refs" / "main").read_text().strip()
    there = sorted(path for path in snapshots.iterdir() if path.is_dir())
    there.sort(key=lambda path: (not (path / WEIGHTS).exists(), path.name != model.revision, path.name != main))
    return Located(there[0], there[0].name) if there else None


def _receipt(folder: Path, weights: str) -> str | None:
    """Return the revision that `pull` noted, as long as the weights are still those."""
    with suppress(OSError, ValueError):
        noted = json.loads((folder / RECEIPT).read_text())
        if isinstance(noted, dict) and noted.get("sha256") == weights and isinstance(noted.get("revision"), str):
            return str(noted["revision"])
    return None


def _move_in(partial: Path, target: Path) -> None:
    """Move files where they belong, the weights last: a folder with weights is complete."""
    shutil.rmtree(partial / ".cache", ignore_errors=True)
    files = [path.relative_to(partial) for path in partial.rglob("*") if path.is_file()]
    for name in sorted(files, key=lambda path: path.name == WEIGHTS):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (partial / name).replace(target / name)
    shutil.rmtree(partial, ignore_errors=True)


def _read_book(book: Path | None) -> dict[str, str]:
    with suppress(OSError, ValueError):
        read = json.loads(book.read_text()) if book else {}
        if isinstance(read, dict) and all(isinstance(value, str) for value in read.values()):
            return read
    return {}


def _write_book(book: Path | None, known: Mapping[str, str]) -> None:
    """Remember hashes on disk if that is possible; without it the next process reads the file once more."""
    if book is None:
        return
    with suppress(OSError):
        book.parent.mkdir(parents=True, exist_ok=True)
        new = book.with_name(f"{book.name}.{os.getpid()}")
        new.write_text(json.dumps(known, indent=1))
        new.replace(book)
