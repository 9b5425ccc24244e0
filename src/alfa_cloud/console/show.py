"""What the console prints: tables and a progress bar on a terminal, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

COLUMNS: Final = {
    "clients": ("name", "status", "available", "version", "url", "expire_date", "users_count"),
    "servers": ("name", "host", "role", "active", "database_engine", "clients_count", "reachable", "requirements_ok"),
    "backups": ("reason", "version", "size_bytes", "created_at", "keep_until", "proven_at", "proof_error"),
    "operations": ("kind", "state", "step", "created_at"),
    "images": ("tag", "branch", "commit", "size_bytes", "clients", "prunable"),
    "requirements": ("name", "ok", "found", "needed", "mend"),
    "expire_dates": ("old_date", "new_date", "comment", "actor", "created_at"),
}
"""What a table shows of each type of resource."""


FILE_WIDTH: Final = 250
"""Columns of a table that goes to a file or a pipe: nothing is cut off there."""


class Show:
    """The way to print.

    Args:
        as_json: one JSON document, or one on a line in a log.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        width = None if sys.stdout.isatty() else FILE_WIDTH
        # Data is printed as it is: no part of it is a style, a colour or an emoji.
        self._out = Console(file=sys.stdout, markup=False, emoji=False, highlight=False, soft_wrap=True, width=width)
        self._err = Console(file=sys.stderr, markup=False, emoji=False, highlight=False)

    def rows(self, rows: Sequence[Any]) -> None:
        """A list of resources."""
        if self.as_json:
            self._json(list(rows))
            return
        columns = COLUMNS.get(rows[0]["type"], tuple(rows[0].get("attributes", {}))) if rows else ()
        table = Table("id", *columns, box=None, pad_edge=False)
        for row in rows:
            table.add_row(row["id"], *(_cell(row.get("attributes", {}).get(name)) for name in columns))
        self._out.print(table)

    def resource(self, row: Any) -> None:
        """One resource, an attribute on a line."""
        if self.as_json:
            self._json(row)
            return
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_row("id", row["id"])
        for name, value in row.get("attributes", {}).items():
            table.add_row(name, _cell(value))
        self._out.print(table)

    def plan(self, row: Any) -> None:
        """What a command would do."""
        if self.as_json:
            self._json(row)
            return
        attributes = row["attributes"]
        for reason in attributes["blocks"]:
            self._out.print(f"Not now: {reason}")
        for number, title in enumerate(attributes["steps"], 1):
            self._out.print(f"{number:>3}. {title}")
        if attributes["took_before_s"] is not None:
            self._out.print(f"The last ones took {attributes['took_before_s']:g} s.")

    def end(self, row: Any) -> None:
        """How an operation ended."""
        if self.as_json:
            self._json(row)
            return
        attributes = row["attributes"]
        self._out.print(f"{attributes['kind']} {row['id']}: {attributes['state']}")
        for warning in attributes["warnings"]:
            self._out.print(f"warning: {warning}")
        if attributes["error"]:
            step = attributes["error"]["step"]
            place = f"“{step}”: " if step else ""
            self._out.print(f"{attributes['error']['code']}: {place}{attributes['error']['message']}")
        if attributes["result"]:
            self._out.print(json.dumps(attributes["result"], ensure_ascii=False, indent=1))

    def lines(self, lines: Iterable[Any]) -> None:
        """Lines of a log; steps stand out."""
        for line in lines:
            if self.as_json:
                print(json.dumps(line, ensure_ascii=False), flush=True)
            else:
                print(f"== {line['text']}" if line["stream"] == "step" else line["text"], flush=True)

    def progress(self, parts: Iterator[Any]) -> None:
        """A bar that follows an operation, on a terminal; nothing elsewhere."""
        if not self._err.is_terminal or self.as_json:
            for _ in parts:
                pass
            return
        bars = (SpinnerColumn(), BarColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        with Progress(*bars, console=self._err, transient=True) as bar:
            task = bar.add_task("waiting", total=1.0)
            for part in parts:
                bar.update(task, completed=part["progress"], description=part["step"] or part["state"])

    def error(self, text: str) -> None:
        """What went wrong with the call."""
        print(f"alfa-cloud: {text}", file=sys.stderr)

    @staticmethod
    def _json(value: Any) -> None:
        print(json.dumps(value, ensure_ascii=False, indent=1))


def _cell(value: Any) -> str:
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case dict() | list():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return str(value)
