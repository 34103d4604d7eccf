"""The facts that auth publishes. None holds an address, a name or a secret: who needs those asks for the user."""

from datetime import datetime
from typing import Literal

from libs.core.events.event import EventData


class UserRegistered(EventData, type="user.registered", version=1):
    """`method`: password, oauth, or operator."""

    user_id: str
    method: str
    locale: str


class UserVerified(EventData, type="user.verified", version=1):
    """The user has shown that they receive what is sent there. `identifier`: email or phone."""

    user_id: str
    identifier: str


class UserSuspended(EventData, type="user.suspended", version=1):
    user_id: str
    reason: str


class UserResumed(EventData, type="user.resumed", version=1):
    user_id: str
    reason: str


class UserDeleted(EventData, type="user.deleted", version=1):
    user_id: str
    reason: str


class UserRoleChanged(EventData, type="user.role_changed", version=1):
    user_id: str
    before: list[str]
    after: list[str]


class LoginSucceeded(EventData, type="login.succeeded", version=1):
    """`methods` as in RFC 8176 (pwd, otp, hwk, mfa, …); `level`: how many factors were proven."""

    user_id: str
    session_id: str
    methods: list[str]
    level: int
    device: str
    place: str


class LoginFailed(EventData, type="login.failed", version=1):
    """Of an account that exists; for the others there is a row in the security log."""

    user_id: str
    method: str
    reason: str


class SessionRevoked(EventData, type="session.revoked", version=1):
    user_id: str
    session_id: str
    reason: str


class PasswordChanged(EventData, type="password.changed", version=1):
    """`how`: change, reset."""

    user_id: str
    how: str


class MfaEnabled(EventData, type="mfa.enabled", version=1):
    """The user has a kind of second factor, `totp` or `passkey`, that they had not. `methods`: all that they have."""

    user_id: str
    method: str
    methods: list[str]


class MfaDisabled(EventData, type="mfa.disabled", version=1):
    """The last of a kind is gone. With no `methods` left, a password alone lets them in again."""

    user_id: str
    method: str
    methods: list[str]


class IdentityLinked(EventData, type="identity.linked", version=1):
    """From now on the user can sign in with that identity provider, by its issuer."""

    user_id: str
    issuer: str


class IdentityUnlinked(EventData, type="identity.unlinked", version=1):
    user_id: str
    issuer: str


class MessageRequested(EventData, type="message.requested", version=1):
    """Something is to be sent to somebody, before `expires_at` or not at all.

    `sealed` holds JSON {recipient, params: {locale, code, link, what}}, of which none but `locale` need be there. It
    opens with MESSAGE_KEY, for the owner `tenant:message_id` (`libs/core/crypto.py`, purpose "messages to users").
    """

    message_id: str
    channel: Literal["email", "sms"]
    template: str
    expires_at: datetime
    sealed: str


class ServiceAccountCreated(EventData, type="service_account.created", version=1):
    account_id: str
    roles: list[str]


class ApiKeyCreated(EventData, type="api_key.created", version=1):
    """`scopes` narrow what its account may do."""

    key_id: str
    account_id: str
    scopes: list[str]
    expires_at: datetime


class ApiKeyRevoked(EventData, type="api_key.revoked", version=1):
    key_id: str
    account_id: str
    reason: str


class SigningKeyWithdrawn(EventData, type="signing_key.withdrawn", version=1):
    """Somebody else may have had it: nothing that it signed is good any more."""

    kid: str
    reason: str


class SecurityLogHead(EventData, type="security_log.head", version=1):
    """Where a tenant's security log ended, verified. Whoever keeps it can tell later whether the log up to there is
    still the same: `verifySecurityLog` takes it."""

    sequence: int
    hash: str


class SecurityLogDiverged(EventData, type="security_log.diverged", version=1):
    """The log is not what was written, from that row on. `problem` as in `libs/core/audit.py`."""

    sequence: int
    problem: str
