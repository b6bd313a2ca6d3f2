"""What a file of Python does, without what is only said in it."""

from __future__ import annotations

import hashlib
import tokenize
from pathlib import Path

_SAID = {tokenize.COMMENT, tokenize.NL, tokenize.ENCODING, tokenize.ENDMARKER}
_LAYOUT = {tokenize.INDENT: ">", tokenize.DEDENT: "<", tokenize.NEWLINE: "\n"}


def version_of(path: Path) -> str:
    """16 hexadecimal digits that change with the code of a file, not with its comments, docstrings and layout."""
    with path.open("rb") as file:
        words: list[str] = []
        line: list[tokenize.TokenInfo] = []
        for token in tokenize.tokenize(file.readline):
            if token.type in _SAID:
                continue
            line.append(token)
            if token.type == tokenize.NEWLINE:
                words += _code(line)
                line = []
    return hashlib.sha256(" ".join([*words, *_code(line)]).encode(errors="surrogatepass")).hexdigest()[:16]


def _code(line: list[tokenize.TokenInfo]) -> list[str]:
    """The words of a logical line; of one that is nothing but text, such as a docstring, its indentation only."""
    told = [token for token in line if token.type not in _LAYOUT]
    if all(token.type == tokenize.STRING for token in told):
        return [_LAYOUT[token.type] for token in line if token.type in (tokenize.INDENT, tokenize.DEDENT)]
    return [_LAYOUT.get(token.type, token.string) for token in line]
