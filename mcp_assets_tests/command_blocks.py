"""The command blocks of a Markdown page, as one shell script that stops at the first command that fails.

A block is a fence with the language `sh`. A comment on the line above it may say `<!-- not run: REASON -->`, or
`<!-- exits with 1 -->` for a block whose last command ends so.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

_NOT_RUN = re.compile(r"<!-- not run: \S.* -->")
_EXITS = re.compile(r"<!-- exits with (\d+) -->")


@dataclass(frozen=True, slots=True)
class Block:
    """One block. `line`: of its first line in the page, from 1."""

    line: int
    commands: str
    exit_code: int = 0


def blocks(page: Path) -> list[Block]:
    """The blocks of `page` that are to be run, in their order."""
    found = []
    before = ""
    for token in MarkdownIt().parse(page.read_text()):
        if token.type == "fence" and token.info.strip() == "sh" and not _NOT_RUN.fullmatch(before):
            assert token.map is not None
            code = _EXITS.fullmatch(before)
            found.append(Block(token.map[0] + 2, token.content, int(code[1]) if code else 0))
        if token.type in ("fence", "inline", "html_block"):
            before = token.content.strip()
    return found


def script(page: Path) -> str:
    """A bash script of all blocks of `page`, in one shell, so that what one exports holds for the next."""
    parts = ["set -Eeuo pipefail", "trap 'echo \"the block at line $BLOCK failed\" >&2' ERR"]
    for block in blocks(page):
        parts.append(f"BLOCK={block.line}")
        if block.exit_code == 0:
            parts.append(block.commands)
        else:
            parts += ["set +e", "trap - ERR", block.commands.rstrip("\n"), "code=$?", "set -e"]
            parts.append(f'[ "$code" = {block.exit_code} ] || {{ echo "line $BLOCK: exit code $code" >&2; exit 1; }}')
            parts.append("trap 'echo \"the block at line $BLOCK failed\" >&2' ERR")
    return "\n".join(parts)
