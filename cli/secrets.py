"""The server's secret, its first keys, and the file in which the command line finds them."""

import contextlib
import ipaddress
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from api.keys import derive, hash_key, new_key
from cli.settings import Settings, SettingsWrong
from domain.errors import AlreadyExists
from storage.database import Database
from storage.tables import api_keys, organizations

DEFAULT_ORGANIZATION: Final = "default"
_SHORTEST_PUBLIC_KEY: Final = 32


@dataclass(frozen=True, slots=True)
class Secrets:
    """What is derived from the one secret."""

    pepper: bytes
    blob_secret: bytes


def load_secrets(settings: Settings) -> Secrets:
    """Return the derived secrets; in embedded mode the root is made on first use and kept in DATA/secret.key."""
    root = settings.secret_key.get_secret_value() if settings.secret_key else _kept_secret(settings.data / "secret.key")
    return Secrets(derive(root, "api-key-pepper"), derive(root, "blob-urls"))


def ensure_admin_key(database: Database, settings: Settings, found: Secrets, host: str) -> str | None:
    """Make sure that the first organization and its admin key exist; return the key if it is new or given.

    Raises:
        SettingsWrong: the given key is too short for an address that others can reach.
    """
    given = settings.admin_api_key.get_secret_value() if settings.admin_api_key else None
    if given is not None and len(given) < _SHORTEST_PUBLIC_KEY and not is_loopback(host):
        message = (
            f"OPENPEEK_ADMIN_API_KEY is shorter than {_SHORTEST_PUBLIC_KEY} characters, and the server would listen on "
            f"{host}, where others can reach it. Use a longer key, or listen on 127.0.0.1."
        )
        raise SettingsWrong(message)
    with database.writing() as uow:
        known = organizations.find(uow.session, DEFAULT_ORGANIZATION)
        if known is None:
            with contextlib.suppress(AlreadyExists):  # another API process was faster
                organizations.add(uow.session, DEFAULT_ORGANIZATION)
            known = organizations.find(uow.session, DEFAULT_ORGANIZATION)
        assert known is not None
        organization, user = known
        admin = api_keys.find_admin_key(uow.session, user.id)
        if given is None and admin is not None:
            return None
        key = given or new_key()
        key_hash = hash_key(found.pepper, key)
        if admin is None or admin.key_hash != key_hash:
            api_keys.set_admin_key(uow.session, organization.id, user.id, key_hash, key)
        return key


def reset_admin_key(database: Database, found: Secrets, organization_name: str) -> str | None:
    """Make a new admin key for an organization, or return None when there is no such organization."""
    key = new_key()
    with database.writing() as uow:
        known = organizations.find(uow.session, organization_name)
        if known is None:
            return None
        organization, user = known
        api_keys.set_admin_key(uow.session, organization.id, user.id, hash_key(found.pepper, key), key)
    return key


def create_organization(database: Database, found: Secrets, name: str) -> str:
    """Make an organization and return its admin key. Raises AlreadyExists."""
    key = new_key()
    with database.writing() as uow:
        organization, user = organizations.add(uow.session, name)
        api_keys.set_admin_key(uow.session, organization.id, user.id, hash_key(found.pepper, key), key)
    return key


def write_credentials(data: Path, url: str, key: str | None) -> Path:
    """Write URL and key where the command line looks for them, readable by their owner only."""
    path = data / "credentials.json"
    kept = read_credentials(data)
    content = {"url": url, "api_key": key or kept.get("api_key")}
    _write_private(path, json.dumps(content, indent=2) + "\n")
    return path


def read_credentials(data: Path) -> dict[str, str]:
    """Return URL and key as far as they are known."""
    try:
        content = json.loads((data / "credentials.json").read_text())
    except (OSError, ValueError):
        return {}
    return {key: value for key, value in content.items() if isinstance(value, str)} if isinstance(content, dict) else {}


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _kept_secret(path: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        return path.read_text().strip()
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_private(path, secrets.token_hex(32) + "\n")
    return path.read_text().strip()


def _write_private(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
