"""Every error the product raises; the branch says the HTTP status, the leaf a stable code.

AlfaCloudError          500
├── NotFoundError       404  ServerNotFoundError, ClientNotFoundError, OperationNotFoundError
├── ConflictError       409  ClientNameTakenError, ClientDomainTakenError, ServerNameTakenError,
│                            ServerInUseError, NotCancellableError, NotRetryableError, ClientStateError
├── InvalidError        422  FieldError and its leaves: one wrong field, named by its pointer; LetterInvalidError
├── ForbiddenError      403
├── RemoteError         502  HostUnreachableError*, ConnectionLostError*, HostKeyChangedError,
│                            LoginRefusedError, CommandFailedError, CommandTimeoutError (504)
├── MailError           502  MailServerError*, MailRefusedError, MailUncertainError
├── LetterTemplateError 500  a letter's template is broken
├── PlaybookError       500  StepFailedError, StepNotConvergedError, OperationTimeoutError
└── LeaseLostError      500  this worker was replaced: it stops without another word

(* may pass by itself: tried again on a fresh connection)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class AlfaCloudError(Exception):
    """The root; its message is written for the person who asked."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str = "", *, meta: Mapping[str, Any] | None = None) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.meta = dict(meta or {})


class NotFoundError(AlfaCloudError):
    """There is no such thing."""

    status = 404
    code = "not_found"
    title = "Not found"


class ServerNotFoundError(NotFoundError):
    """No server has this id."""

    code = "server_not_found"


class ClientNotFoundError(NotFoundError):
    """No client has this id."""

    code = "client_not_found"


class OperationNotFoundError(NotFoundError):
    """No operation has this id."""

    code = "operation_not_found"


class BackupNotFoundError(NotFoundError):
    """There is no such back-up."""

    code = "backup_not_found"
    title = "No such back-up"


class ConflictError(AlfaCloudError):
    """The present state does not allow it."""

    status = 409
    code = "conflict"
    title = "Conflict with the present state"


class ClientNameTakenError(ConflictError):
    """Another client bears the name."""

    code = "client_name_taken"
    title = "The name is taken"


class ClientDomainTakenError(ConflictError):
    """Another client answers under the domain."""

    code = "client_domain_taken"
    title = "The domain is taken"


class ServerNameTakenError(ConflictError):
    """Another server bears the name."""

    code = "server_name_taken"
    title = "The name is taken"


class ServerInUseError(ConflictError):
    """Clients stand on the server."""

    code = "server_in_use"
    title = "Clients stand on this server"


class ServerFullError(ConflictError):
    """The server has as many clients as it may."""

    code = "server_full"
    title = "The server is full"


class ServerNotReadyError(ConflictError):
    """The server is switched off, or misses something a client needs."""

    code = "server_not_ready"
    title = "The server cannot take clients"


class ClientStateError(ConflictError):
    """The client's status does not allow this command."""

    code = "client_state"
    title = "Not possible in the client's present status"


class NotCancellableError(ConflictError):
    """The operation is past the point where it could be stopped."""

    code = "not_cancellable"
    title = "The operation cannot be cancelled"


class NotRetryableError(ConflictError):
    """The operation cannot be run again."""

    code = "not_retryable"
    title = "The operation cannot be retried"


class NotUndoableError(ConflictError):
    """The operation cannot be undone."""

    code = "not_undoable"
    title = "The operation cannot be undone"


class InvalidError(AlfaCloudError):
    """The request is well-formed and wrong."""

    status = 422
    code = "invalid"
    title = "Invalid value"


class FieldError(InvalidError):
    """One field of the body is wrong.

    Args:
        field: the attribute's name (`host`), or the relationship's (`server`).
    """

    def __init__(self, field: str, detail: str, *, code: str | None = None) -> None:
        super().__init__(detail)
        self.field = field
        self.field_code = code or self.code


class LetterInvalidError(InvalidError):
    """A letter cannot be written of these values, or not to this address."""

    code = "letter_invalid"
    title = "The letter cannot be written"


class ForbiddenError(AlfaCloudError):
    """The request is not allowed."""

    status = 403
    code = "forbidden"
    title = "Forbidden"


class RemoteError(AlfaCloudError):
    """A server did not do what it was told."""

    status = 502
    code = "remote_error"
    title = "The server did not answer as expected"


class HostUnreachableError(RemoteError):
    """No connection to the server could be made."""

    code = "server_unreachable"
    title = "The server cannot be reached"
    retryable = True


class ConnectionLostError(RemoteError):
    """The connection ended before the command did: its outcome is unknown."""

    code = "connection_lost"
    title = "The connection to the server was lost"
    retryable = True


class HostKeyChangedError(RemoteError):
    """The server shows another host key than the pinned one."""

    code = "host_key_changed"
    title = "The server's host key has changed"


class LoginRefusedError(RemoteError):
    """The server refuses the user or the key."""

    code = "login_refused"
    title = "The server refuses the login"


class AddressRefusedError(RemoteError):
    """The address is one this service must not connect to."""

    code = "address_refused"
    title = "The address is not allowed"


class CommandFailedError(RemoteError):
    """A command ended with a non-zero exit status.

    Args:
        exit_status: as the server reported it.
        output: the last lines, masked, for the message.
    """

    code = "command_failed"
    title = "A command failed on the server"

    def __init__(self, detail: str, *, exit_status: int = 1, output: str = "") -> None:
        super().__init__(detail, meta={"exit_status": exit_status})
        self.exit_status = exit_status
        self.output = output


class CommandTimeoutError(RemoteError):
    """A command did not end in its time."""

    status = 504
    code = "command_timeout"
    title = "A command took too long on the server"


class MailError(AlfaCloudError):
    """A letter was not handed over."""

    status = 502
    code = "mail_error"
    title = "The letter could not be sent"


class MailServerError(MailError):
    """The mail server cannot be reached, or takes no letters at the moment; it has not taken this one."""

    code = "mail_server"
    title = "The mail server does not take letters now"
    retryable = True


class MailRefusedError(MailError):
    """The mail server refuses for good: the login, an address or the letter."""

    code = "mail_refused"
    title = "The mail server refuses the letter"


class MailUncertainError(MailError):
    """The connection ended between the letter and the server's answer: it may have arrived."""

    code = "mail_uncertain"
    title = "The letter may have arrived, or not"


class LetterTemplateError(AlfaCloudError):
    """A template of a letter is broken."""

    code = "letter_template"
    title = "The template of a letter is broken"


class PlaybookError(AlfaCloudError):
    """An operation could not be brought to its end."""

    code = "playbook_failed"
    title = "The operation failed"


class StepFailedError(PlaybookError):
    """A step found that it cannot be done; the message says what a person can do.

    Args:
        code: a stable snake_case word for this failure, such as `disk_full`.
    """

    code = "step_failed"
    title = "A step failed"

    def __init__(self, detail: str, *, code: str | None = None) -> None:
        super().__init__(detail)
        self.step_code = code or self.code


class StepNotConvergedError(PlaybookError):
    """A step was applied without an error and still does not hold."""

    code = "step_not_converged"
    title = "A step did not take effect"


class OperationTimeoutError(PlaybookError):
    """The operation passed its deadline."""

    code = "operation_timeout"
    title = "The operation took too long"


class LeaseLostError(AlfaCloudError):
    """Another worker has taken this operation over: stop at once, write nothing."""

    code = "lease_lost"
    title = "The operation was taken over by another worker"
