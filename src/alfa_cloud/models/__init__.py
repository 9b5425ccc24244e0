"""Tables, one module for each group."""

from alfa_cloud.models.backup import Backup
from alfa_cloud.models.client import Client
from alfa_cloud.models.credential import Credential
from alfa_cloud.models.event import OperationEvent
from alfa_cloud.models.expiry import ExpireDate, Reminder
from alfa_cloud.models.idempotency import IdempotencyKey
from alfa_cloud.models.operation import Operation, OperationLine, OperationStep
from alfa_cloud.models.place import Place
from alfa_cloud.models.server import Server, ServerSample, SshIdentity
from alfa_cloud.models.worker import Worker

__all__ = [
    "Backup",
    "Client",
    "Credential",
    "ExpireDate",
    "IdempotencyKey",
    "Operation",
    "OperationEvent",
    "OperationLine",
    "OperationStep",
    "Place",
    "Reminder",
    "Server",
    "ServerSample",
    "SshIdentity",
    "Worker",
]
