"""The fields of the settings, one module a topic: for each its environment variable, type, default and description.

Belongs here: what one variable is and which values of it are refused. What follows from several of them is in
`mcp_assets.settings`.
"""

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from mcp_assets.secret_files import SecretFiles
from mcp_assets.setting_fields.changes import ChangeFields
from mcp_assets.setting_fields.embedding import EmbeddingFields
from mcp_assets.setting_fields.entities import EntityFields
from mcp_assets.setting_fields.observing import ObservingFields
from mcp_assets.setting_fields.quality import QualityFields
from mcp_assets.setting_fields.search import SearchFields
from mcp_assets.setting_fields.stores import StoreFields
from mcp_assets.setting_fields.work import WorkFields

GROUPS = (
    StoreFields,
    EmbeddingFields,
    EntityFields,
    SearchFields,
    QualityFields,
    ChangeFields,
    WorkFields,
    ObservingFields,
)
"""In the order in which the reference and `.env.example` list them."""


# Fields of the last base stand first in pydantic's order.
class SettingFields(
    ObservingFields,
    WorkFields,
    ChangeFields,
    QualityFields,
    SearchFields,
    EntityFields,
    EmbeddingFields,
    StoreFields,
):
    """Every setting, each from the environment variable of its alias (or a `.env` file). Secrets are never printed.

    A secret may also stand in a file (`mcp_assets.secret_files`).
    """

    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", populate_by_name=True, hide_input_in_errors=True, env_ignore_empty=True
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  (a folder of secrets, which has no variable)
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The sources, the first one that has a value counts."""
        files = SecretFiles(settings_cls, env_settings, dotenv_settings)
        return init_settings, env_settings, dotenv_settings, files
