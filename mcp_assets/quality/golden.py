"""Golden file: questions that a team has written, each with the entities that answer it.

JSON lines, `{"query": "…", "expected": "task:7"}` or a list of such names; or, in a file that ends in `.tsv`, the query
and one name or more, with a tab between. Blank lines, and lines that begin with `#`, say nothing.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mcp_assets.entities.refs import EntityRef, id_excess
from mcp_assets.quality.questions import Question

MOST_BYTES = 16 << 20
"""A file of some hundred thousand questions. A larger one is another file that was named by mistake."""

LONGEST_QUERY = 2_000
"""Characters of a query: nobody types more, and each is embedded."""


class GoldenFileError(ValueError):
    """The golden file is wrong. The message names file and line, and says what to write there."""


def read_golden(path: Path, type_named: Callable[[str], str | None]) -> list[Question]:
    """The questions of the file, one for each text, with the answers of all its lines, in the order of the file.

    `type_named`: the entity type of a name or alias, None if there is none.

    Raises:
        GoldenFileError: the file cannot be read, holds no question, or a line is wrong.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise GoldenFileError(
                f"{path}: the golden file is larger than {MOST_BYTES >> 20} MiB: does MCP_ASSETS_GOLDEN_FILE name the "
                "right file? At most some hundred of its questions are asked"
            )
        content = path.read_bytes()
    except OSError as error:
        raise GoldenFileError(f"{path}: the golden file cannot be read ({error.strerror}): check its path") from error
    read = _of_tsv if path.suffix == ".tsv" else _of_json
    answers: dict[str, set[EntityRef]] = {}
    for number, line in _lines(content.removeprefix(b"\xef\xbb\xbf"), path):
        try:
            query, names = read(line)
            if not names:
                raise ValueError("no entity is expected: write type and id of one that answers the query")  # noqa: TRY301
            answers.setdefault(_query(query), set()).update(_entity(name, type_named) for name in names)
        except ValueError as error:
            raise GoldenFileError(f"{path}, line {number}: {error}") from error
    if not answers:
        raise GoldenFileError(
            f'{path}: the golden file holds no question: write lines such as {{"query": "…", "expected": "task:7"}}'
        )
    return [Question("golden", text, frozenset(refs)) for text, refs in answers.items()]


def _lines(content: bytes, path: Path) -> Iterator[tuple[int, str]]:
    """The lines that say something, each with its number from 1."""
    for number, raw in enumerate(content.split(b"\n"), start=1):
        try:
            line = raw.decode().strip("\r")
        except UnicodeDecodeError as error:
            raise GoldenFileError(f"{path}, line {number}: this is not UTF-8: save the file in UTF-8") from error
        if line.strip() and not line.startswith("#"):
            yield number, line


def _of_json(line: str) -> tuple[Any, Sequence[Any]]:
    wanted = 'write {"query": "…", "expected": "task:7"}'
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"this is not JSON: {wanted} (a file with tabs has to end in .tsv)") from error
    if not isinstance(found, dict):
        raise ValueError(f"this is not a JSON object: {wanted}")  # noqa: TRY004  (of a line, not of an argument)
    if absent := [key for key in ("query", "expected") if key not in found]:
        raise ValueError(f"there is no {absent[0]!r}: {wanted}")
    if unknown := sorted(found.keys() - {"query", "expected"}):
        raise ValueError(f"{unknown[0]!r} means nothing here: {wanted}")
    expected = found["expected"]
    return found["query"], expected if isinstance(expected, list) else [expected]


def _of_tsv(line: str) -> tuple[Any, Sequence[Any]]:
    query, *names = line.split("\t")
    return query, [name for name in names if name.strip()]


def _query(query: Any) -> str:
    if not isinstance(query, str) or not query.strip():
        raise ValueError("the query is no text: write the question in plain words")
    if len(query) > LONGEST_QUERY:
        raise ValueError(f"the query has {len(query):,} characters: at most {LONGEST_QUERY:,} are asked, shorten it")
    try:
        query.encode()
    except UnicodeEncodeError as error:
        raise ValueError("the query holds a lone surrogate, which is no text: remove it") from error
    return query.strip()


def _entity(name: Any, type_named: Callable[[str], str | None]) -> EntityRef:
    wanted = "write type and id, such as task:7"
    if not isinstance(name, str):
        raise ValueError(f"the expected entity {name!r} is no text: {wanted}")  # noqa: TRY004  (as above)
    before, colon, entity_id = name.strip().partition(":")
    if not colon or not entity_id:
        raise ValueError(f"the expected entity {name!r} has no type: {wanted}")
    entity_type = type_named(before)
    if entity_type is None:
        raise ValueError(f"the expected entity {name!r} is of no entity type that is mapped: {wanted}")
    if excess := id_excess(entity_id):
        raise ValueError(f"the id of the expected entity {excess}")
    return EntityRef(entity_type, entity_id)
