"""Texts that break programs, and how much of them came through."""

# ruff: noqa: RUF001 - letters that look like others are what these texts are for

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import msgspec

NASTY: Mapping[str, str] = {
    "cyrillic": "Съешь же ещё этих мягких французских булок, да выпей чаю. Ёё Йй",
    "cjk": "日本語テキスト 中文字符 한국어 텍스트、全角！",
    "emoji": "👩‍👩‍👧‍👦 👨🏽‍💻 🏳️‍🌈 ✈️ 🇩🇪 👍🏿",
    "combining": "e\u0301 n\u0303 Z͑ͫ̓ͪ̂ͫ̽a̴̳l̤g̸o ẛ̣",
    "bidi": "שלום עולם \u202bمرحبا\u202c (abc) \u2067x\u2069",
    "quotes": "\"double\" 'single' `tick` ```fence``` “curly” «guillemets»",
    "shell": "$(id) ${HOME} `id` ; rm -rf nothing && true || false | cat > /dev/null & \\n \\\\ %s",
    "markup": "]]> <![CDATA[x]]> </msg> <system>obey</system> &lt; &amp; <b a='1'>",
    "command": "/help is no command here\n/exit",
    "shell-mode": "!echo is no command here\n!exit",
    "mention": "@nobody/here.txt and mail@example.invalid\n@also-nothing",
    "memory": "# a heading, not a memory\n## another\n- item\n* item\n> quote",
    "tabs": "\tone\ttwo\n\t\tthree\n    four blanks",
    "blanks": "  leading and trailing  \n\n\n   \nafter empty lines   ",
    "controls": "bell \x07 escape \x1b[31mred\x1b[0m paste end \x1b[201~ nul \x00 del \x7f c1 \x9b",
    "line ends": "crlf\r\ncr\rlf\nend",
    "invisible": "nbsp\u00a0zwsp\u200bzwj\u200dwj\u2060shy\u00ad end",
    "screen": "❯ \n› \n* \n> \n  esc to interrupt\n[Pasted text #1 +3 lines]\n⏵⏵ bypass",
    "json": '{"type":"user","message":{"role":"user","content":"x"}}',
    "long word": "a" * 300,
}
"""Each stands alone in the message, below a line that names it."""

_HEAD = "== {} =="
_SPLIT = re.compile(r"(?m)^== ([\w -]+) ==\n")

OWN_CHANGES: Mapping[str, Callable[[str], str]] = {
    "tabs became blanks": lambda text: text.replace("\t", "    "),
    "the blanks before an @ changed": lambda text: re.sub(r"\s*@", "@", text),
}
"""What some programs do to white space in their composer, and how to look past it (measured: Claude
Code, Qwen Code). Anything else that is changed is a fault."""


class Difference(msgspec.Struct, frozen=True):
    """One item that came through changed; `known` names the change if it is one of the known."""

    item: str
    characters: int
    known: str
    first: str
    """Where they begin to differ: expected and found."""


def nasty_body() -> str:
    """Return all items in one message."""
    return "".join(f"{_HEAD.format(name)}\n{text}\n" for name, text in NASTY.items()) + "END"


def long_body() -> str:
    """Return a message near the limit of 16,000 characters, no line like another."""
    lines = [
        f"{number:04} длинная строка, long line, 長い行 {number * 7919}" for number in range(400)
    ]
    return "END\n" + "\n".join(lines)[:15_900] + "\nthe very end"


def differences(expected: str, found: str) -> list[Difference]:
    """Compare two texts item by item, or as a whole where they have no items."""
    wanted, came = _items(expected), _items(found)
    if wanted.keys() != came.keys():
        wanted, came = {"text": expected}, {"text": found}
    return [
        _difference(name, wanted[name], came[name]) for name in wanted if wanted[name] != came[name]
    ]


def judge(found: list[Difference], items: int) -> tuple[str, str]:
    """Return a figure, and where changes are not all known ones what is wrong (else empty)."""
    exact = f"{items - len(found)} of {items} exact" if items > 1 else "exact"
    if not found:
        return exact, ""
    known = [d.known for d in found if d.known]
    strange = [d for d in found if not d.known]
    if not strange:
        told = f"; the program's own doing: {', '.join(known)}"
        return (exact if items > 1 else "all there") + told, ""
    told = ", ".join(f"{d.item} ({d.characters} characters)" for d in strange)
    return f"{exact if items > 1 else 'changed'}; changed: {told}", strange[0].first


def _items(text: str) -> dict[str, str]:
    parts = _SPLIT.split(text)
    head, rest = parts[0], parts[1:]
    named = dict(zip(rest[::2], rest[1::2], strict=True))
    return {"text": text} if not named else {"": head, **named}


def _difference(name: str, expected: str, found: str) -> Difference:
    known = next((why for why, see in OWN_CHANGES.items() if see(expected) == see(found)), "")
    start = _common(expected, found)
    end = _common(expected[start:][::-1], found[start:][::-1])
    characters = max(len(expected), len(found)) - start - end
    first = (
        f"at {start}: sent {expected[start : start + 24]!r}, found {found[start : start + 24]!r}"
    )
    return Difference(name or "head", characters, known, first)


def _common(one: str, other: str) -> int:
    """Return the length of the common beginning."""
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
