"""Settings: the one class that says where the stores are and how the platform works; read from the environment."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import PrivateAttr, SecretStr, ValidationError, model_validator

from mcp_assets import mapping_file
from mcp_assets.embedded import stack
from mcp_assets.embedding.profiles import WORDLLAMA, ModelProfile, model_key, profile_for
from mcp_assets.entities.chunks import ChunkSpec
from mcp_assets.entities.entity_url import EntityUrl
from mcp_assets.entities.registry import SOURCE_PRESETS, EntityType, EntityTypes, SourceTable
from mcp_assets.graph import LinkForm
from mcp_assets.mapping_file import MappingFile
from mcp_assets.project_component import component_settings
from mcp_assets.secret_files import SUFFIX, environment, files_named, read_secret
from mcp_assets.setting_errors import SettingsError, settings_error
from mcp_assets.setting_fields import SettingFields
from mcp_assets.setting_fields.values import MetadataIndex, Provider, TypeMapping
from mcp_assets.stores.addresses import without_password

_ENV = "env:"
"""Before the name of the environment variable that holds the address of a source database."""

DEFAULT_MODELS: Mapping[Provider, str] = {"openai": "text-embedding-ada-002", "local": "wordllama"}
"""The embedding model of each provider, if the settings name none."""


class Settings(SettingFields):
    """The settings, checked against one another, and what follows from them."""

    _types_of_file: dict[str, TypeMapping] | None = PrivateAttr(default=None)
    """The entity types as the mapping file has them; None: there is none."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.chunk_overlap * 2 > self.chunk_size:
            raise ValueError("MCP_ASSETS_CHUNK_OVERLAP must be at most half of MCP_ASSETS_CHUNK_SIZE")
        if self.nats_creds_file is not None and self.nats_nkey_file is not None:
            raise ValueError("both NATS_CREDS_FILE and NATS_NKEY_FILE are set, and NATS takes one: unset the other")
        if (self.nats_tls_cert_file is None) != (self.nats_tls_key_file is None):
            raise ValueError("NATS_TLS_CERT_FILE and NATS_TLS_KEY_FILE belong together: set both, or none")
        if self.embedding_budget_a_day is not None and self.embedding_price is None:
            model = self.profile
            if model.usd_per_million_tokens is None:
                raise ValueError(
                    f"EMBEDDING_BUDGET_A_DAY is set, and the price of the model {model.name} is not known: set "
                    "EMBEDDING_PRICE, in US dollars a million tokens"
                )
        if self.types is not None and not self.types:
            raise ValueError("MCP_ASSETS_TYPES names no entity type: leave it unset to use the preset")
        file = self._mapping_file()
        for name, mapping in ((file.types if file is not None else self.types) or {}).items():
            address = mapping.source.database_url if mapping.source else None
            if address is not None and without_password(address) != address:
                place = file.place("types", name, "source", "database_url") if file is not None else "MCP_ASSETS_TYPES"
                raise ValueError(
                    f"{place}: the database_url of {name} holds a password: put the address into an "
                    "environment variable of its own, and give `env:` and that variable's name"
                )
        for template, name in self.link_forms.items():
            if name not in self.entity_types:
                raise ValueError(f"MCP_ASSETS_LINK_FORMS: {template} leads to {name!r}, which is no entity type")
            LinkForm.of(template, name)
        if self.entity_url is not None:
            try:
                EntityUrl.of(self.entity_url)
            except ValueError as error:
                raise ValueError(f"MCP_ASSETS_ENTITY_URL: {error}") from error
        return self

    def _mapping_file(self) -> MappingFile | None:
        """Read the mapping file, if there is one, and keep its types.

        Raises:
            SettingsError: it is wrong. ValueError: MCP_ASSETS_TYPES is set, too.
        """
        path = mapping_file.find(self.sources_file)
        if path is None:
            return None
        if self.types is not None:
            raise ValueError(
                f"both MCP_ASSETS_TYPES and the mapping file {path} say what the entity types are: unset "
                "MCP_ASSETS_TYPES, or remove the file (MCP_ASSETS_SOURCES_FILE names another one)"
            )
        # Absolute, so that processes in other folders, to which it is handed on, read the same file.
        self.sources_file = path
        file = MappingFile(path, self.source_preset, preset_is_set="source_preset" in self.model_fields_set)
        self._types_of_file = file.types
        return file

    @property
    def provider(self) -> Provider:
        if self.embedding_provider is not None:
            return self.embedding_provider
        return "openai" if self.openai_api_key or self.openai_base_url else "local"

    @cached_property
    def profile(self) -> ModelProfile:
        """The embedding model in use.

        Raises:
            SettingsError: EMBEDDING_DIMENSION is not one of the model's, or is not set and the model is unknown; or the
                local provider does not have the model.
        """
        if self.provider == "local" and self.embedding_model and model_key(self.embedding_model) != WORDLLAMA.name:
            raise SettingsError(
                f"EMBEDDING_MODEL is {self.embedding_model!r}, and the local provider has {WORDLLAMA.name} alone: "
                "unset EMBEDDING_MODEL, or set OPENAI_API_KEY or OPENAI_BASE_URL to reach the provider of that model"
            )
        try:
            return profile_for(
                self.embedding_model or DEFAULT_MODELS[self.provider],
                dimension=self.embedding_dimension,
                similarity_threshold=self.similarity_threshold,
            )
        except ValueError as error:
            raise SettingsError(str(error)) from error

    @cached_property
    def previous_profile(self) -> ModelProfile | None:
        """The embedding model before, while it is still configured.

        Raises:
            SettingsError: EMBEDDING_PREVIOUS_DIMENSION is not one of the model's, or is not set and it is unknown.
        """
        if self.previous_model is None:
            return None
        try:
            return profile_for(self.previous_model, dimension=self.previous_dimension)
        except ValueError as error:
            raise SettingsError(str(error).replace("EMBEDDING_DIMENSION", "EMBEDDING_PREVIOUS_DIMENSION")) from error

    @cached_property
    def entity_types(self) -> EntityTypes:
        """The registry: the preset's types, or those that the site mapped."""
        types = self._types_of_file if self.types is None else self.types
        if types is None:
            return SOURCE_PRESETS[self.source_preset]
        return EntityTypes(
            EntityType(name, mapping.source, mapping.collection, mapping.aliases, mapping.id_keys)
            for name, mapping in types.items()
        )

    @property
    def maps_sample_tables(self) -> bool:
        """An entity type is read from a table of the preset `mcp`, which this platform can make where it is absent."""
        made = {one.source.table for one in SOURCE_PRESETS["mcp"].values() if one.source is not None}
        return any(one.source is not None and one.source.table in made for one in self.entity_types.values())

    @property
    def chunks(self) -> ChunkSpec | None:
        return ChunkSpec(size=self.chunk_size, overlap=self.chunk_overlap) if self.chunking else None

    def metadata_indexes(self, collection: str) -> dict[str, MetadataIndex]:
        """By metadata key, the kind of index that a collection of the registry has, so that searches filter by the key.

        Mapped columns are keywords; MCP_ASSETS_FILTER_KEYS says otherwise, and adds keys.
        """
        types = [one for one in self.entity_types.values() if one.collection_name == collection]
        mapped: dict[str, MetadataIndex] = {
            key: "keyword" for one in types if one.source for key in one.source.metadata
        }
        return {**mapped, **self.filter_keys} if types else {}

    def source_url(self, source: SourceTable) -> str | None:
        """Address of the database that `source` is in; None if it is the platform's own.

        Raises:
            SettingsError: the variable that the mapping names is not set.
        """
        address = source.database_url
        if address is None:
            return self.source_database_url.get_secret_value() if self.source_database_url else None
        if not address.startswith(_ENV):
            return address
        variable = address.removeprefix(_ENV)
        given = environment()
        found = given.get(variable.upper())
        file = given.get(variable.upper() + SUFFIX)
        if found and file:
            raise SettingsError(f"both {variable} and {variable}{SUFFIX} are set, and one would be ignored: unset one")
        if file:
            return read_secret(variable + SUFFIX, file)
        if not found:
            raise SettingsError(
                f"{variable} is not set, and the mapping of the source table {source.table} says that it holds the "
                "address of its database: set it, or change the database_url in the mapping"
            )
        return found

    def require_database_url(self) -> str:
        return self._required(self.database_url, "DATABASE_URL")

    def require_nats_url(self) -> str:
        return self._required(self.nats_url, "NATS_URL")

    def require_qdrant_url(self) -> str:
        return self._required(self.qdrant_url, "QDRANT_URL")

    def _required(self, value: SecretStr | str | None, variable: str) -> str:
        if value is None:
            raise SettingsError(
                f"{variable} is not set and no embedded stack runs in {self.state_dir}: "
                f"run `mcp-assets up`, or set {variable}"
            )
        return value.get_secret_value() if isinstance(value, SecretStr) else value


def read_settings(given: Mapping[str, Any] | None = None, *, sources_file: Path | None = None) -> Settings:
    """Settings from the environment, from `.env`, and from the component of the Dagster project in this folder.

    `given`: values by field, in place of those of the component. `sources_file`: a mapping file in place of the one
    that they name.

    Raises:
        SettingsError: one sentence for each variable at fault; or a value is given, and its variable says another one.
    """
    fields = dict(component_settings() if given is None else given)
    if sources_file is not None:
        fields["sources_file"] = sources_file
    settings = _made(fields)
    _refuse_contradictions(fields, settings, but=() if sources_file is None else ("sources_file",))
    return settings


def _made(fields: Mapping[str, Any]) -> Settings:
    try:
        return Settings(**{variable_of(field): value for field, value in fields.items()})
    except ValidationError as error:
        # Without the cause: a traceback would show the values, and one of them may be a secret.
        raise settings_error(error, Settings.model_fields) from None


def _refuse_contradictions(fields: Mapping[str, Any], settings: Settings, but: Sequence[str]) -> None:
    """Raises SettingsError if a variable says another value than the component.

    One of them would win otherwise, and a process that has only one of them would work by other settings than the rest.
    """
    given = environment()
    for field in fields:
        variable = variable_of(field)
        if field in but or not (given.get(variable) or given.get(variable + SUFFIX)):
            continue
        other = getattr(_made({name: value for name, value in fields.items() if name != field}), field)
        if other != getattr(settings, field):
            raise SettingsError(
                f"{variable} is {other!r} in the environment, and the component's defs.yaml says {field}: "
                f"{getattr(settings, field)!r}: take one of them away"
            )


def load_settings(given: Mapping[str, Any] | None = None, *, sources_file: Path | None = None) -> Settings:
    """As `read_settings`; what is unset comes from the embedded stack, if one runs in the state folder."""
    settings = read_settings(given, sources_file=sources_file)
    addresses = stack.addresses(settings.state_dir)
    if addresses is None:
        return settings
    embedded: dict[str, SecretStr | str | None] = {
        "database_url": addresses.database_url and SecretStr(addresses.database_url),
        "nats_url": addresses.nats_url and SecretStr(addresses.nats_url),
        "qdrant_url": addresses.qdrant_url,
    }
    used: dict[str, Any] = {
        name: url
        for name, url in embedded.items()
        if url and (getattr(settings, name) is None or _is_bare(getattr(settings, name), url))
    }
    if "qdrant_url" in used:
        # A key in the settings is that of another Qdrant.
        key = addresses.qdrant_api_key
        used |= {"qdrant_api_key": SecretStr(key) if key else None, "qdrant_read_api_key": None}
    return settings.model_copy(update=used)


def _is_bare(given: SecretStr | str, embedded: SecretStr | str) -> bool:
    """Whether `given` is the address of the embedded part, without the credentials that it asks for.

    So have it shells that took it from an older version, and people who read its port from a message.
    """
    one, other = (urlsplit(url.get_secret_value() if isinstance(url, SecretStr) else url) for url in (given, embedded))
    try:
        same = other.port is not None and (one.hostname, one.port) == (other.hostname, other.port)
    except ValueError:
        return False
    return same and one.username is None


def variable_of(field: str) -> str:
    """The environment variable that sets `field`."""
    return str(Settings.model_fields[field].validation_alias)


def named_files() -> dict[str, str]:
    """The variables that name files of secrets, with absolute paths, for child processes and shells."""
    return files_named(Settings.model_fields)
