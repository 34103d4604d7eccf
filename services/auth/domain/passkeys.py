"""Passkeys: WebAuthn's two ceremonies, as far as they are rules (https://www.w3.org/TR/webauthn-3/).

What the browser sends back is a stranger's input through and through: whatever is wrong with it is one
`PasskeyRefused`, whose reason is for our log and not for the client.
"""

import hashlib
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from webauthn import (
    generate_authentication_options,
    generate_registration_options,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.helpers import base64url_to_bytes, options_to_json_dict, parse_client_data_json
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    AuthenticatorTransport,
    CredentialDeviceType,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

MAX_PASSKEYS = 20
MAX_NAME = 64
MAX_CREDENTIAL_ID_BYTES = 1023  # WebAuthn, 7.1, step 25
TIMEOUT_MS = 300_000  # to find the phone, wake it, and unlock it

_TRANSPORTS = {transport.value: transport for transport in AuthenticatorTransport}


class PasskeyRefused(Exception):
    """The answer of a ceremony is not good."""


@dataclass(frozen=True, slots=True)
class RelyingParty:
    """Who passkeys are for. `id` is a domain; `origins` are the sites on it, or below, that may ask for them."""

    id: str
    name: str
    origins: tuple[str, ...]

    @classmethod
    def of(
        cls, name: str, *, configured_id: str, configured_origins: Sequence[str], hosts: Sequence[str], public_url: str
    ) -> "RelyingParty":
        """As configured; else the tenant's first host with those of its hosts below it; else where auth itself is."""
        ours = urlsplit(public_url)
        rp_id = configured_id or (hosts[0] if hosts else _domain_of(ours.hostname or ""))
        if configured_origins:
            return cls(rp_id, name, tuple(configured_origins))
        if hosts:
            return cls(rp_id, name, tuple(f"https://{host}" for host in hosts if is_within(host, rp_id)))
        port = f":{ours.port}" if ours.port else ""
        return cls(rp_id, name, (f"{ours.scheme}://{rp_id}{port}",))


def is_within(host: str, rp_id: str) -> bool:
    return host == rp_id or host.endswith(f".{rp_id}")


def _domain_of(host: str) -> str:
    """No browser takes an address for the domain of a relying party, but all take localhost."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host
    return "localhost"


@dataclass(frozen=True, slots=True)
class Passkey:
    """`id` is a hash of the credential's id: as unique over the platform as that, and short."""

    id: str
    tenant_id: str
    user_id: str
    credential_id: bytes
    public_key: bytes
    sign_count: int
    name: str
    synced: bool  # it may live on several devices ("backup eligible"): which never changes
    backed_up: bool
    transports: tuple[str, ...]
    aaguid: str
    created_at: datetime
    last_used_at: datetime | None = None

    @property
    def method(self) -> str:
        """As RFC 8176 has it: a key that leaves its device is no hardware key."""
        return "swk" if self.synced else "hwk"


@dataclass(frozen=True, slots=True)
class NewCredential:
    """What an authenticator made."""

    credential_id: bytes
    public_key: bytes
    sign_count: int
    synced: bool
    backed_up: bool
    transports: tuple[str, ...]
    aaguid: str
    user_verified: bool


@dataclass(frozen=True, slots=True)
class Assertion:
    """What a passkey proved, and what it is like now."""

    sign_count: int
    backed_up: bool
    user_verified: bool


def passkey_id(credential_id: bytes) -> str:
    return hashlib.sha256(credential_id).hexdigest()


def challenge_of(flow_token: str) -> bytes:
    """A flow's challenge follows from its token: random, known to the flow's client alone, and over with the flow."""
    return hashlib.sha256(b"webauthn challenge\0" + flow_token.encode()).digest()


def registration_options(
    party: RelyingParty, *, user_id: str, account: str, name: str, challenge: bytes, existing: Sequence[Passkey]
) -> dict[str, Any]:
    """For `navigator.credentials.create()`. What can be discovered and verifies its user is asked for, and not forced:

    a plain security key is a good second factor.
    """
    return options_to_json_dict(
        generate_registration_options(
            rp_id=party.id,
            rp_name=party.name,
            user_id=user_id.encode(),
            user_name=account,
            user_display_name=name or account,
            challenge=challenge,
            timeout=TIMEOUT_MS,
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.PREFERRED,
                user_verification=UserVerificationRequirement.PREFERRED,
            ),
            exclude_credentials=_descriptors(existing),
        )
    )


def login_options(
    party: RelyingParty, *, challenge: bytes, allowed: Sequence[Passkey] = (), verify_user: bool
) -> dict[str, Any]:
    """For `navigator.credentials.get()`. With none allowed by name, the user chooses among those the device has."""
    wanted = UserVerificationRequirement.REQUIRED if verify_user else UserVerificationRequirement.PREFERRED
    return options_to_json_dict(
        generate_authentication_options(
            rp_id=party.id,
            challenge=challenge,
            timeout=TIMEOUT_MS,
            allow_credentials=_descriptors(allowed),
            user_verification=wanted,
        )
    )


def check_registration(party: RelyingParty, answer: Mapping[str, Any], challenge: bytes) -> NewCredential:
    try:
        verified = verify_registration_response(
            credential=dict(answer),
            expected_challenge=challenge,
            expected_rp_id=party.id,
            expected_origin=list(party.origins),
        )
        _refuse_framed(answer)
    except PasskeyRefused:
        raise
    except Exception as error:  # bytes of a stranger, four formats deep: it raises whatever its parsers do
        raise PasskeyRefused(str(error)) from error
    if len(verified.credential_id) > MAX_CREDENTIAL_ID_BYTES:
        raise PasskeyRefused("the credential's id is too long")
    transports = answer["response"].get("transports")
    return NewCredential(
        credential_id=verified.credential_id,
        public_key=verified.credential_public_key,
        sign_count=verified.sign_count,
        synced=verified.credential_device_type is CredentialDeviceType.MULTI_DEVICE,
        backed_up=verified.credential_backed_up,
        transports=tuple(t for t in _TRANSPORTS if isinstance(transports, list) and t in transports),
        aaguid=verified.aaguid,
        user_verified=verified.user_verified,
    )


def named_passkey(answer: Mapping[str, Any]) -> str:
    """The id of the passkey that the answer says it is of."""
    try:
        return passkey_id(base64url_to_bytes(answer["rawId"]))
    except Exception as error:
        raise PasskeyRefused("the answer names no credential") from error


def check_assertion(
    party: RelyingParty, passkey: Passkey, answer: Mapping[str, Any], challenge: bytes, *, verify_user: bool
) -> Assertion:
    """A passkey without a counter says 0 for ever. One whose counter does not grow is refused: it may be a copy."""
    try:
        verified = verify_authentication_response(
            credential=dict(answer),
            expected_challenge=challenge,
            expected_rp_id=party.id,
            expected_origin=list(party.origins),
            credential_public_key=passkey.public_key,
            credential_current_sign_count=0,  # compared below, once the signature is known to be good
            require_user_verification=verify_user,
        )
        _refuse_framed(answer)
        _refuse_other_user(passkey, answer)
    except PasskeyRefused:
        raise
    except Exception as error:
        raise PasskeyRefused(str(error)) from error
    if passkey_id(verified.credential_id) != passkey.id:
        raise PasskeyRefused("another credential answered")
    if (verified.credential_device_type is CredentialDeviceType.MULTI_DEVICE) != passkey.synced:
        raise PasskeyRefused("whether it may be backed up has changed, which cannot be")
    if (passkey.sign_count or verified.new_sign_count) and verified.new_sign_count <= passkey.sign_count:
        raise PasskeyRefused(f"its counter is at {verified.new_sign_count}, and was at {passkey.sign_count} before")
    return Assertion(verified.new_sign_count, verified.credential_backed_up, verified.user_verified)


def _descriptors(passkeys: Sequence[Passkey]) -> list[PublicKeyCredentialDescriptor]:
    return [
        PublicKeyCredentialDescriptor(
            id=passkey.credential_id, transports=[_TRANSPORTS[t] for t in passkey.transports if t in _TRANSPORTS]
        )
        for passkey in passkeys
    ]


def _refuse_framed(answer: Mapping[str, Any]) -> None:
    """A page of somebody else's, with ours in a frame, is where clicks are stolen."""
    if parse_client_data_json(base64url_to_bytes(answer["response"]["clientDataJSON"])).cross_origin:
        raise PasskeyRefused("it was asked for from within another site")


def _refuse_other_user(passkey: Passkey, answer: Mapping[str, Any]) -> None:
    """The authenticator says whose the key is, if it was found without a name: and must agree with us."""
    handle = answer["response"].get("userHandle")
    if handle and base64url_to_bytes(handle) != passkey.user_id.encode():
        raise PasskeyRefused("it is of another user")
