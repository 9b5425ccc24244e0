"""How the Docker stand-in prints lists and objects."""

from __future__ import annotations

import json
from typing import Any

from alfa_cloud.sandbox.practice import options
from alfa_cloud.sandbox.practice.call import Call


def rows(call: Call, items: list[dict[str, Any]], template: str, *, quiet: bool = False) -> int:
    """Print rows of a list by a template, or as a plain table."""
    for row in items:
        if quiet:
            call.out(f"{row['ID']}\n")
        elif template:
            call.out(options.render(template, row) + "\n")
        else:
            call.out("   ".join(str(value) for value in row.values()) + "\n")
    return 0


def objects(call: Call, found: list[dict[str, Any]], missing: list[str], template: str) -> int:
    """Print what `inspect` found, and complain about the rest."""
    if template and template != "json":
        for item in found:
            call.out(options.render(template, item) + "\n")
    else:
        call.out(json.dumps(found, indent=4) + "\n")
    for words in missing:
        call.err(f"Error response from daemon: {words}\n")
    return 1 if missing else 0
