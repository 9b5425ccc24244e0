"""Options of a command line, as loosely as the stand-ins need them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final

TEMPLATE: Final = re.compile(r"\{\{\s*(json\s+)?(?:(index)\s+)?(\.[\w.]*)(?:\s+\"([^\"]*)\")?\s*\}\}")


@dataclass(slots=True)
class Options:
    """What stood on a command line."""

    values: dict[str, list[str]] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)
    words: list[str] = field(default_factory=list)

    def get(self, *names: str, default: str = "") -> str:
        """The last value of an option, under any of its names."""
        for name in names:
            if name in self.values:
                return self.values[name][-1]
        return default

    def all(self, *names: str) -> list[str]:
        """Every value of an option."""
        return [value for name in names for value in self.values.get(name, [])]

    def has(self, *names: str) -> bool:
        """Whether a flag was given."""
        return not self.flags.isdisjoint(names)


def parse(argv: list[str], with_value: Collection[str], *, stop_at_word: bool = False) -> Options:
    """Sort a command line into options with a value, flags and words.

    Args:
        with_value: names, with their dashes, that take a value.
        stop_at_word: whether everything from the first word on is words.
    """
    options = Options()
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            options.words += rest
            break
        if not word.startswith("-") or word == "-":
            options.words.append(word)
            if stop_at_word:
                options.words += rest
                break
            continue
        name, equals, value = word.partition("=")
        if not word.startswith("--") and len(word) > 2 and word[:2] in with_value:
            options.values.setdefault(word[:2], []).append(word[2:].removeprefix("="))
        elif equals and word.startswith("--"):
            options.values.setdefault(name, []).append(value)
            if value != "false":
                options.flags.add(name)
        elif word in with_value:
            options.values.setdefault(word, []).append(rest.pop(0) if rest else "")
        elif not word.startswith("--") and len(word) > 2:
            _short(word, rest, with_value, options)
        else:
            options.flags.add(word)
    return options


def _short(word: str, rest: list[str], with_value: Collection[str], options: Options) -> None:
    """Take flags that are written together (`-sSo FILE`)."""
    for place, letter in enumerate(word[1:], 1):
        name = f"-{letter}"
        if name in with_value:
            options.values.setdefault(name, []).append(word[place + 1 :] or (rest.pop(0) if rest else ""))
            return
        options.flags.add(name)


def render(template: str, item: dict[str, Any]) -> str:
    """One object by a Go template: `{{json .}}`, `{{.A.B}}` and `{{index .A "key"}}` are known."""
    if template == "json":
        return json.dumps(item)

    def value(found: re.Match[str]) -> str:
        as_json, index, path, key = found.groups()
        node: Any = item
        for part in filter(None, path.split(".")):
            node = node.get(part, "<no value>") if isinstance(node, dict) else "<no value>"
        if index:
            node = node.get(key, "") if isinstance(node, dict) else ""
        if as_json:
            return json.dumps(node)
        return str(node).lower() if isinstance(node, bool) else str(node)

    return TEMPLATE.sub(value, template.replace("\\t", "\t").replace("\\n", "\n"))
