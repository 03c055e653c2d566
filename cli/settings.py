"""Every setting, checked together, read once, and passed down as values.

Two modes are two sets of defaults: with nothing set, everything lives in one folder and one process; each
part can be moved out by naming its address.
"""

import difflib
import ipaddress
import os
from pathlib import Path
from typing import Final, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX: Final = "OPENPEEK_"
_EXEMPT: Final = ("OPENPEEK_TEST_", "OPENPEEK_FAULT_")


class SettingsWrong(Exception):
    """A setting is misspelt, malformed, or does not go with another. The message names keys, never secrets."""


class Settings(BaseSettings):
    """What an operator can say, by environment variables that begin with OPENPEEK_."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, hide_input_in_errors=True)

    data: Path = Field(Path("openpeek-data"), description="Folder of everything that no other setting moves out.")
    database_url: SecretStr | None = Field(
        None, description="postgresql://… or sqlite:///…; a file in DATA by default."
    )
    blobs: str | None = Field(None, description="A folder, or s3://bucket[/prefix]; DATA/blobs by default.")
    s3_endpoint: str | None = Field(None, description="Address of an S3 server other than Amazon's.")
    s3_public_endpoint: str | None = Field(None, description="Address under which users reach that server.")
    vectors_url: SecretStr | None = Field(None, description="Address of a Qdrant server; embedded in DATA by default.")
    vectors_api_key: SecretStr | None = Field(None, description="API key of the Qdrant server.")
    queue_url: SecretStr | None = Field(None, description="redis://…, for Celery workers; threads by default.")
    models: Path | None = Field(None, description="Folder with models, owner/name each; DATA/models by default.")
    default_model: str | None = Field(None, description="Model of collections that name none.")
    embeddings_url: str | None = Field(
        None, description="Address of an OpenAI-compatible or TEI server that embeds; this process by default."
    )
    embeddings_key: SecretStr | None = Field(None, description="Key of the embeddings server, sent as Bearer.")
    embeddings_model: str | None = Field(
        None, description="What the embeddings server calls the model; the model's own id by default."
    )
    embeddings_revision: str | None = Field(
        None, description="Revision of the server's model; by default what its /info says, else `remote`."
    )
    device: str = Field("cpu", pattern="^(cpu|cuda)$", description="Where models run.")
    secret_key: SecretStr | None = Field(
        None, min_length=32, description="Root of all derived keys; DATA/secret.key by default."
    )
    admin_api_key: SecretStr | None = Field(None, min_length=1, description="Sets the admin key at every start.")
    public_url: str | None = Field(None, description="Address under which users reach this server.")
    plugins: str | None = Field(None, description="Modules to import at start, separated by commas.")
    fetch_allow: str | None = Field(
        None, description="Private networks that blob URLs may point into, by http too; commas between them."
    )
    lease_seconds: float = Field(60, ge=1, le=3600, description="How long a claim holds without a sign of life.")

    @field_validator(
        "database_url", "vectors_url", "queue_url", "vectors_api_key", "blobs", "s3_endpoint",
        "embeddings_url", "embeddings_key", "embeddings_model", "embeddings_revision", mode="before",
    )  # fmt: skip
    @classmethod
    def _empty_means_unset(cls, value: object) -> object:
        """Compose files pass unset variables as empty strings."""
        return None if value == "" else value

    @field_validator("queue_url")
    @classmethod
    def _queue_is_redis(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("redis://", "rediss://", "redis+socket://")):
            raise ValueError("must begin with redis://, rediss:// or redis+socket://")
        return value

    @field_validator("vectors_url")
    @classmethod
    def _vectors_is_http(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value

    @field_validator("embeddings_url")
    @classmethod
    def _embeddings_server_is_http(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        if value is not None and "@" in value.split("/")[2]:
            raise ValueError("must hold no user name or password; the key belongs into OPENPEEK_EMBEDDINGS_KEY")
        if value is not None and ("?" in value or "#" in value):
            raise ValueError("must be an address without ? and #")
        return value

    @field_validator("embeddings_key")
    @classmethod
    def _key_is_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not (value.get_secret_value().isascii() and value.get_secret_value().isprintable()):
            raise ValueError("must be printable ASCII, because it is sent in a header")
        return value

    @field_validator("database_url")
    @classmethod
    def _database_is_known(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("postgresql", "postgres://", "sqlite:///")):
            raise ValueError("must begin with postgresql:// or sqlite:///")
        return value

    @field_validator("fetch_allow")
    @classmethod
    def _networks_are_networks(cls, value: str | None) -> str | None:
        for part in (value or "").split(","):
            if part.strip():
                ipaddress.ip_network(part.strip())
        return value

    @model_validator(mode="after")
    def _parts_go_together(self) -> Self:
        if self.queue_url is None:
            return self
        if self.database_url is None or self.database_url.get_secret_value().startswith("sqlite"):
            raise ValueError(
                "OPENPEEK_QUEUE_URL brings workers in processes of their own, and OPENPEEK_DATABASE_URL is a SQLite "
                "file, which serves one process. Set OPENPEEK_DATABASE_URL to a PostgreSQL server, or unset "
                "OPENPEEK_QUEUE_URL."
            )
        if self.vectors_url is None:
            raise ValueError(
                "OPENPEEK_QUEUE_URL brings workers in processes of their own, and without OPENPEEK_VECTORS_URL the "
                "vectors live in a folder that belongs to one process. Set OPENPEEK_VECTORS_URL to a Qdrant server, "
                "or unset OPENPEEK_QUEUE_URL."
            )
        if self.secret_key is None:
            raise ValueError(
                "With OPENPEEK_QUEUE_URL, OPENPEEK_SECRET_KEY must be set too, to the same 32 or more random "
                "characters in every process (for instance the output of `openssl rand -hex 32`)."
            )
        return self

    @property
    def is_distributed(self) -> bool:
        """Whether workers are processes of their own."""
        return self.queue_url is not None

    @property
    def models_folder(self) -> Path:
        """Where models lie."""
        return self.models or self.data / "models"

    @property
    def database(self) -> str:
        """The database's URL, with its password."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.data.resolve() / 'openpeek.db'}"

    @property
    def allowed_networks(self) -> list[str]:
        """Networks that blob URLs may point into although they are private."""
        return [part.strip() for part in (self.fetch_allow or "").split(",") if part.strip()]


def load(**given: object) -> Settings:
    """Read the settings; arguments of the command line win over the environment.

    Raises:
        SettingsWrong: a key is misspelt, malformed, or does not go with another.
    """
    _check_names()
    try:
        return Settings(**{key: value for key, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        problems = []
        for item in error.errors(include_input=False, include_url=False):
            key = PREFIX + str(item["loc"][0]).upper() if item["loc"] else ""
            message = item["msg"].removeprefix("Value error, ")
            problems.append(f"{key}: {message}" if key else message)
        raise SettingsWrong("\n".join(problems)) from error


def _check_names() -> None:
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    wrong = [
        name for name in os.environ if name.startswith(PREFIX) and not name.startswith(_EXEMPT) and name not in known
    ]
    if wrong:
        lines = []
        for name in sorted(wrong):
            close = difflib.get_close_matches(name, known, n=1)
            lines.append(f"{name} is not a setting." + (f" Did you mean {close[0]}?" if close else ""))
        lines.append(f"Settings: {', '.join(known)}.")
        raise SettingsWrong("\n".join(lines))
