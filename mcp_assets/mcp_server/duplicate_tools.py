"""Duplicate tools: the tool `duplicates`, its answers, and the same answers to a request that comes by NATS."""

import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mcp_assets.entities.refs import EntityRef
from mcp_assets.mcp_server.answers import MOST_RESULTS, Named
from mcp_assets.mcp_server.tools import EXPECTED, Tools, with_reasons
from mcp_assets.platform import Platform
from mcp_assets.sync.views.duplicates import DuplicatePair, DuplicatesFound, duplicates_of_text, stored_duplicates

MOST_TITLE_CHARACTERS = 1_000
"""Characters of a title that is asked about."""

MOST_CONTENT_CHARACTERS = 100_000
"""Characters of a content that is asked about: more than the words that are compared."""

EntityAsked = Annotated[
    str | None, Field(description="Type and id of an entity that exists, such as task:CHK-104, or its id.")
]
TitleAsked = Annotated[
    str | None, Field(max_length=MOST_TITLE_CHARACTERS, description="Title of what is not written yet.")
]
ContentAsked = Annotated[
    str, Field(max_length=MOST_CONTENT_CHARACTERS, description="Its text; it may be given without a title.")
]
TypesAsked = Annotated[list[str], Field(max_length=100, description="Only these entity types; all if empty.")]
LimitAsked = Annotated[int, Field(ge=1, le=MOST_RESULTS)]


class Duplicate(BaseModel):
    """An entity, and what it may be a duplicate of."""

    entity: Named
    of: Named | None = Field(description="The other entity; null: the text that was asked about.")
    strength: float = Field(description="The smaller of the two measures, from 0 to 1.")
    shared_words: float | None = Field(description="Share of the pairs of neighbouring words that both texts have.")
    similarity: float | None = Field(description="Cosine of their vectors.")


class DuplicatesAnswer(BaseModel):
    """Possible duplicates, strongest first. None in the answer: none is known."""

    duplicates: list[Duplicate]
    more: int = Field(description="How many further ones were found and are left out.")
    freshness: str = Field(description="How far the index may be behind the truth: what is newer is not compared.")


class DuplicatesRequest(BaseModel):
    """The body of a request by NATS: the arguments of the tool."""

    model_config = ConfigDict(extra="forbid")

    entity: EntityAsked = None
    title: TitleAsked = None
    content: ContentAsked = ""
    types: TypesAsked = []
    limit: LimitAsked = 10


class DuplicateTools:
    """The tool over `platform`, which only reads."""

    def __init__(self, platform: Platform, tools: Tools) -> None:
        self._platform = platform
        self._tools = tools

    def all(self) -> Sequence[Callable[..., Any]]:
        return [with_reasons(self.duplicates)]

    def duplicates(
        self,
        entity: EntityAsked = None,
        title: TitleAsked = None,
        content: ContentAsked = "",
        types: TypesAsked = [],  # noqa: B006
        limit: LimitAsked = 10,
    ) -> DuplicatesAnswer:
        """List possible duplicates: of an entity, or of a title and content before they are written, or all pairs."""
        is_text = bool((title or "").strip() or content.strip())
        if entity is not None and is_text:
            raise ToolError("give an entity, or a title and content, but not both")
        named = [self._tools.entity_type(name) for name in types]
        if is_text:
            return self._answer(duplicates_of_text(self._platform, title, content, types=named, limit=limit), None)
        if entity is None:
            return self._answer(stored_duplicates(self._platform, types=named, limit=limit), None)
        ref = self._tools.ref(entity)
        return self._answer(stored_duplicates(self._platform, ref, types=named, limit=limit), ref)

    def answer(self, body: bytes) -> bytes:
        """The answer to a request by NATS, as JSON: that of the tool, or `{"error": …}`."""
        try:
            asked = DuplicatesRequest.model_validate_json(body or b"{}")
            found = self.duplicates(asked.entity, asked.title, asked.content, asked.types, asked.limit)
        except ValidationError as error:
            return error_answer(_sentence(error))
        except (ToolError, *EXPECTED) as error:
            return error_answer(str(error))
        return found.model_dump_json().encode()

    def _answer(self, found: DuplicatesFound, of: EntityRef | None) -> DuplicatesAnswer:
        def named(ref: EntityRef) -> Named:
            return Named(entity=str(ref), title=found.titles.get(ref))

        def duplicate(pair: DuplicatePair) -> Duplicate:
            entity, other = (pair.one, pair.other) if pair.one not in (None, of) else (pair.other, pair.one)
            assert entity is not None  # noqa: S101  (one end of a pair is an entity)
            return Duplicate(
                entity=named(entity),
                of=named(other) if other is not None else None,
                strength=pair.strength,
                shared_words=pair.shared_words,
                similarity=pair.similarity,
            )

        return DuplicatesAnswer(
            duplicates=[duplicate(pair) for pair in found.pairs], more=found.more, freshness=self._tools.freshness()
        )


def error_answer(sentence: str) -> bytes:
    """The answer to a request by NATS that could not be answered."""
    return json.dumps({"error": sentence}, ensure_ascii=False).encode()


def _sentence(error: ValidationError) -> str:
    """What is wrong with a body, without its values."""
    faults = [
        ": ".join(part for part in (".".join(map(str, fault["loc"])), fault["msg"]) if part)
        for fault in error.errors(include_input=False, include_url=False)
    ]
    return f"the body is no request for duplicates ({'; '.join(faults)}): see docs/how-to/duplicates.md"
