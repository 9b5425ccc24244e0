"""How far a fleet command is: a row for each of its targets, and which of them may start next. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from alfa_cloud.specs import OperationState, StepState

ENDED: Final = ("ok", "error", "cancelled")
STEP_STATES: Final = {
    OperationState.QUEUED: StepState.PENDING,
    OperationState.RUNNING: StepState.RUNNING,
    OperationState.OK: StepState.DONE,
    OperationState.ERROR: StepState.FAILED,
    OperationState.CANCELLED: StepState.UNDONE,
}


@dataclass(frozen=True, slots=True)
class Limits:
    """How bold a fleet command is.

    Args:
        max_parallel: of each server, at once; None is the kind's own.
        canary_count: the first so many go alone; where one of them fails, nothing else starts.
        max_failures: past so many nothing else starts; None is no limit.
    """

    max_parallel: int | None = None
    canary_count: int = 0
    max_failures: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """As parameters."""
        return asdict(self)


@dataclass(slots=True)
class Row:
    """One target: a client, or a server itself, and the operation that does it.

    Args:
        client_id: None where the target is the server.
        state: that of its operation; `queued` before there is one.
        result: what its operation reported, where the fleet command shows that.
    """

    name: str
    server_id: str
    client_id: str | None = None
    operation_id: str | None = None
    state: str = OperationState.QUEUED
    error: dict[str, Any] | None = None
    result: dict[str, Any] | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing follows."""
        return self.state in ENDED

    @property
    def untouched(self) -> bool:
        """Whether it has neither an operation nor an end."""
        return self.operation_id is None and not self.ended

    @property
    def failed(self) -> bool:
        """Whether it ended otherwise than well."""
        return self.ended and self.state != OperationState.OK

    @property
    def step_state(self) -> StepState:
        """Where it stands as a step of the fleet command; one that never started stays pending."""
        never_started = self.state == OperationState.CANCELLED and self.operation_id is None
        return StepState.PENDING if never_started else STEP_STATES[OperationState(self.state)]

    def fresh(self) -> Row:
        """The same target, not begun."""
        return Row(self.name, self.server_id, self.client_id)

    def end(self, state: OperationState, code: str, message: str) -> None:
        """It ends without an operation."""
        self.state = state
        self.error = {"code": code, "message": message, "step": None}


@dataclass(slots=True)
class Course:
    """The rows of a fleet command, in their order.

    Args:
        gates: so many of the first rows must have ended well before any later one starts.
        max_parallel: by server id.
        cancelled: somebody asked to cancel it.
    """

    rows: list[Row]
    gates: Sequence[int]
    max_parallel: Mapping[str, int]
    max_failures: int | None
    cancelled: bool

    @classmethod
    def of(cls, params: Mapping[str, Any], rows: list[Row], *, default: Mapping[str, int], cancelled: bool) -> Self:
        """That of a fleet command's parameters.

        Args:
            default: `max_parallel` of each server where the parameters say nothing.
        """
        limits = Limits(**params["limits"])
        before = 1 if rows and rows[0].client_id is None and any(row.client_id for row in rows) else 0
        gates = {before, before + limits.canary_count} - {0}
        most = {server: limits.max_parallel or number for server, number in default.items()}
        return cls(rows, sorted(gates), most, limits.max_failures, cancelled)

    @property
    def stopped(self) -> str | None:
        """Why nothing else may start, in words; None while something may."""
        if self.cancelled:
            return "Cancelled before it started."
        for gate in self.gates:
            failed = next((row for row in self.rows[:gate] if row.failed), None)
            if failed is not None:
                return f"Never started: {failed.name} came first, and failed."
        failures = sum(row.failed for row in self.rows)
        if self.max_failures is not None and failures > self.max_failures:
            return f"Never started: {failures} had failed, and {self.max_failures} may."
        return None

    def next_row(self) -> Row | None:
        """The next target that may start now."""
        open_to = len(self.rows)
        for gate in self.gates:
            if not all(row.state == OperationState.OK for row in self.rows[:gate]):
                open_to = gate
                break
        busy = Counter(row.server_id for row in self.rows if row.operation_id is not None and not row.ended)
        for row in self.rows[:open_to]:
            if row.untouched and busy[row.server_id] < self.max_parallel.get(row.server_id, 1):
                return row
        return None

    @property
    def ended(self) -> bool:
        """Whether every target has ended."""
        return all(row.ended for row in self.rows)

    def outcome(self) -> tuple[OperationState, dict[str, Any] | None]:
        """How the fleet command ends, and why."""
        failed = [row for row in self.rows if row.state == OperationState.ERROR]
        left = [row for row in self.rows if row.state == OperationState.CANCELLED]
        parts = [f"{len(failed)} of {len(self.rows)} failed ({names(failed)})"] if failed else []
        parts += [f"{len(left)} of {len(self.rows)} were cancelled or never started ({names(left)})"] if left else []
        words = "; ".join(parts)
        if self.cancelled:
            return OperationState.CANCELLED, problem("cancelled", f"Cancelled. {words}".strip(), None)
        if not words:
            return OperationState.OK, None
        first = failed[0].name if failed else None
        message = f"{words}. `result.rows` says why; a retry does these only."
        return OperationState.ERROR, problem("some_children_failed", message, first)

    def counts(self) -> dict[str, int]:
        """How many targets are in each state, and in all."""
        found = Counter(row.state for row in self.rows)
        return {**{str(state): found[state] for state in OperationState}, "total": len(self.rows)}


def problem(code: str, message: str, step: str | None) -> dict[str, Any]:
    """An operation's error."""
    return {"code": code, "message": message, "step": step}


def names(rows: Sequence[Row], most: int = 5) -> str:
    """The names of some targets."""
    shown = ", ".join(row.name for row in rows[:most])
    return shown if len(rows) <= most else f"{shown} and {len(rows) - most} more"
