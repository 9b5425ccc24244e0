"""The published interface: every path with its methods, as the front end is written against it."""

from __future__ import annotations

from typing import Final

COMMAND: Final = ("GET", "POST")
"""Published as a GET; POST does the same."""

PUBLISHED: Final[dict[str, tuple[str, ...]]] = {
    "/servers": ("GET",),
    "/servers/": ("POST",),
    "/servers/{server_id}": ("GET", "PATCH", "DELETE"),
    "/servers/{server_id}/images": ("GET",),
    "/servers/{server_id}/check": ("GET",),
    "/servers/{server_id}/metrics": ("GET",),
    "/servers/{server_id}/provision": ("POST",),
    "/servers/{server_id}/host_key": ("POST",),
    "/servers/{server_id}/reboot_server": COMMAND,
    "/servers/{server_id}/maintain_enable": COMMAND,
    "/servers/{server_id}/maintain_disable": COMMAND,
    "/server/{server_id}/deploy": COMMAND,
    "/server/{server_id}/switch_all": COMMAND,
    "/server/{server_id}/migrate_all": COMMAND,
    "/containers/{server_id}/build_dev": COMMAND,
    "/containers/{server_id}/build_prod": COMMAND,
    "/containers/prune": COMMAND,
    "/clients": ("GET",),
    "/clients/": ("POST",),
    "/clients/{client_id}": ("GET", "PATCH", "DELETE"),
    "/clients/{client_id}/create_log": ("GET",),
    "/clients/{client_id}/container_log": ("GET",),
    "/clients/{client_id}/owner_password": ("POST",),
    "/clients/{client_id}/expire_date": ("POST",),
    "/clients/{client_id}/expire_dates_history": ("GET",),
    "/clients/{client_id}/demo_enable": COMMAND,
    "/clients/{client_id}/demo_disable": COMMAND,
    "/clients/{client_id}/maintain_enable": COMMAND,
    "/clients/{client_id}/maintain_disable": COMMAND,
    "/clients/{client_id}/send_success": COMMAND,
    "/clients/{client_id}/send_expire": COMMAND,
    "/clients/{client_id}/reboot": COMMAND,
    "/clients/{client_id}/switch/{image_name}": COMMAND,
    "/clients/{client_id}/migrate": COMMAND,
    "/clients/{client_id}/move_to/{server_id}": COMMAND,
    "/clients/{client_id}/copy_to/{server_id}": COMMAND,
    "/clients/{client_id}/restore": ("POST",),
    "/clients/{client_id}/backups": ("GET", "POST"),
    "/clients/{client_id}/backups/{backup_id}": ("GET",),
    "/clients/{client_id}/backups/{backup_id}/file": ("GET",),
    "/clients/{client_id}/backups/{backup_id}/restore": ("POST",),
    "/cloud_admin_password": ("POST",),
    "/operations": ("GET",),
    "/operations/{operation_id}": ("GET",),
    "/operations/{operation_id}/log": ("GET",),
    "/operations/{operation_id}/cancel": ("POST",),
    "/operations/{operation_id}/retry": ("POST",),
    "/operations/{operation_id}/undo": ("POST",),
    "/events": ("GET",),
    "/ssh_public_key": ("GET",),
    "/metrics": ("GET",),
    "/healthz": ("GET",),
    "/readyz": ("GET",),
}

PUBLIC: Final = frozenset({"/healthz", "/readyz", "/clients/{client_id}/backups/{backup_id}/file"})
"""What asks for no login; the file of a back-up asks for a signed link."""
