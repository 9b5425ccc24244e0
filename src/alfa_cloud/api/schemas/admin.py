"""The administrator's own login, as it is changed."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field

from alfa_cloud.api.jsonapi.fields import BodyModel, SecretText
from alfa_cloud.services.credentials import MAX_BASIC_BYTES, MAX_LOGIN_LENGTH, MIN_PASSWORD_LENGTH

CurrentPassword = Annotated[SecretText, Field(description="The password that is to be replaced.")]
NewLogin = Annotated[
    str,
    Field(description=f"1 to {MAX_LOGIN_LENGTH} characters; no colon, no control characters.", examples=["admin"]),
]
NewPassword = Annotated[
    SecretText,
    Field(
        description=f"At least {MIN_PASSWORD_LENGTH} characters, no control characters; neither the login nor the "
        f"current password. Login and password together take at most {MAX_BASIC_BYTES - 1} bytes in UTF-8."
    ),
]


class CloudAdminPassword(BodyModel):
    """A new login and password for this API."""

    current_password: CurrentPassword
    login: NewLogin
    password: NewPassword


CLOUD_ADMIN_EXAMPLE: Final[dict[str, Any]] = {
    "current_password": "the one that is used now",
    "login": "admin",
    "password": "a new one, fifteen or longer",
}
