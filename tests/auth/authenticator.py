"""A passkey on a device, in software: makes ES256 credentials and signs challenges, as a browser would hand them on."""

import hashlib
import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

ORIGIN = "http://localhost:9001"

_PRESENT, _VERIFIED, _BACKUP_ELIGIBLE, _BACKED_UP, _ATTESTED = 0x01, 0x04, 0x08, 0x10, 0x40


def b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass
class Credential:
    id: bytes
    key: ec.EllipticCurvePrivateKey
    rp_id: str
    user_handle: bytes
    counter: int = 0


@dataclass
class Authenticator:
    """Each attribute is something that a hostile, broken or merely different device does otherwise."""

    origin: str = ORIGIN
    rp_id: str = ""  # "": as it was asked
    present: bool = True
    verifies: bool = True
    synced: bool = True
    counts: bool = False
    framed: bool = False
    credentials: list[Credential] = field(default_factory=list)

    def create(self, options: Mapping[str, Any], again: Credential | None = None) -> dict[str, Any]:
        """`navigator.credentials.create({publicKey: options})`, as JSON. `again`: it shows one that it has."""
        credential = again or Credential(
            secrets.token_bytes(16),
            ec.generate_private_key(ec.SECP256R1()),
            self.rp_id or options["rp"]["id"],
            unb64(options["user"]["id"]),
        )
        if not again:
            self.credentials.append(credential)
        attested = bytes(16) + len(credential.id).to_bytes(2, "big") + credential.id + _cose(credential.key)
        data = self._data(credential, _ATTESTED) + attested
        attestation = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})
        client = self._client("webauthn.create", options["challenge"])
        response = {"clientDataJSON": b64(client), "attestationObject": b64(attestation), "transports": ["internal"]}
        return _answer(credential, response)

    def get(self, options: Mapping[str, Any], credential: Credential | None = None) -> dict[str, Any]:
        """`navigator.credentials.get({publicKey: options})`, as JSON: with the first that is allowed, or with this."""
        chosen = credential or self._choose(options)
        chosen.counter += self.counts
        client, data = self._client("webauthn.get", options["challenge"]), self._data(chosen)
        signature = chosen.key.sign(data + hashlib.sha256(client).digest(), ec.ECDSA(SHA256()))
        response = {
            "clientDataJSON": b64(client),
            "authenticatorData": b64(data),
            "signature": b64(signature),
            "userHandle": b64(chosen.user_handle),
        }
        return _answer(chosen, response)

    def _choose(self, options: Mapping[str, Any]) -> Credential:
        allowed = {unb64(c["id"]) for c in options["allowCredentials"]}
        return next(c for c in self.credentials if c.rp_id == options["rpId"] and (not allowed or c.id in allowed))

    def _client(self, kind: str, challenge: str) -> bytes:
        said = {"type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": self.framed}
        return json.dumps(said).encode()

    def _data(self, credential: Credential, flags: int = 0) -> bytes:
        flags |= self.present * _PRESENT | self.verifies * _VERIFIED
        flags |= self.synced * (_BACKUP_ELIGIBLE | _BACKED_UP)
        rp_id = self.rp_id or credential.rp_id
        return hashlib.sha256(rp_id.encode()).digest() + bytes([flags]) + credential.counter.to_bytes(4, "big")


def _cose(key: ec.EllipticCurvePrivateKey) -> bytes:
    numbers = key.public_key().public_numbers()
    return cbor2.dumps({1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")})


def _answer(credential: Credential, response: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": b64(credential.id), "rawId": b64(credential.id), "type": "public-key", "response": dict(response)}
