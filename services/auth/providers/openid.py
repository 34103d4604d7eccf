"""Providers that speak OpenID Connect: any that is found by discovery, Google, and Apple with its ways."""

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from libs.core.clock import Clock
from libs.core.crypto import SecretBox
from libs.core.errors import InvalidInput, Misconfigured, Unavailable
from services.auth.domain.identifiers import parse_email
from services.auth.domain.identities import Proven
from services.auth.domain.providers import IdentityProvider
from services.auth.providers.answers import Answer, Question, invalid, unavailable
from services.auth.providers.client import authorization_url, client, get_json, redeem
from services.auth.providers.discovery import Discovery, Metadata
from services.auth.providers.id_token import Expected, UnknownKey, claims_of
from services.auth.providers.outside import Outside

_NAME_CHARS = 120
_CLIENT_SECRET_LIVES = timedelta(minutes=5)


class OpenIDProvider:
    def __init__(
        self, provider: IdentityProvider, outside: Outside, discovery: Discovery, box: SecretBox, clock: Clock
    ) -> None:
        self.provider = provider
        self._outside = outside
        self._discovery = discovery
        self._box = box
        self._clock = clock

    async def address(self, question: Question) -> str:
        """Where the browser goes. `Refusal` PROVIDER_UNAVAILABLE if the provider does not say."""
        metadata = await self._metadata()
        more = {"response_mode": "form_post"} if self.provider.answers_by_post else {}
        async with client(self._outside, self.provider, question.redirect_uri) as session:
            return authorization_url(session, metadata.authorization_endpoint, question, **more)

    async def proven(self, question: Question, answer: Answer) -> Proven:
        """Who came back. `Refusal` if the provider cannot be asked, or what it says is not accepted."""
        metadata = await self._metadata()
        self._check_issuer(metadata, answer)
        secret = self._client_secret()
        method = _auth_method(metadata, secret)
        async with client(
            self._outside, self.provider, question.redirect_uri, secret=secret, auth_method=method
        ) as session:
            token = await redeem(session, metadata.token_endpoint, question, answer)
            expected = Expected(
                issuer=metadata.issuer,
                client_id=self.provider.client_id,
                nonce=question.nonce,
                access_token=token["access_token"],
                algorithms=metadata.id_token_signing_alg_values_supported,
            )
            claims = await self._claims(metadata, token.get("id_token"), expected)
            if "email" not in claims and "email" in self.provider.asks_for and metadata.userinfo_endpoint:
                claims = {**await self._user_info(session, metadata, claims["sub"]), **claims}
        return Proven(
            issuer=metadata.issuer,
            subject=claims["sub"],
            email=verified_email(claims.get("email"), claims.get("email_verified")),
            name=plain_text(claims.get("name")) or self._name(answer),
            locale=plain_text(claims.get("locale"))[:35],
        )

    async def _metadata(self) -> Metadata:
        if not self._outside.allows(self.provider.at):
            raise unavailable()
        try:
            return await self._discovery.metadata(self.provider.at)
        except Unavailable:
            raise unavailable() from None

    def _check_issuer(self, metadata: Metadata, answer: Answer) -> None:
        """RFC 9207: a code of another provider's, which was talked into answering in this one's place."""
        if answer.iss != metadata.issuer and (answer.iss or metadata.authorization_response_iss_parameter_supported):
            raise invalid("oauth.iss")

    async def _claims(self, metadata: Metadata, id_token: object, expected: Expected) -> Mapping[str, Any]:
        for anew in (False, True):
            try:
                keys = await self._discovery.keys(metadata, anew=anew)
                return claims_of(id_token, keys, expected, self._clock.now())
            except UnknownKey:
                continue
            except Unavailable:
                raise unavailable() from None
        raise invalid("oauth.id_token.key")

    async def _user_info(self, session: Any, metadata: Metadata, subject: str) -> Mapping[str, Any]:
        if not self._outside.allows(metadata.userinfo_endpoint):
            raise invalid("oauth.userinfo")
        claims = await get_json(session, metadata.userinfo_endpoint)
        if claims["sub"] != subject:  # section 5.3.4: the token may have been swapped
            raise invalid("oauth.userinfo.sub")
        return dict(claims)

    def _client_secret(self) -> str:
        return opened(self.provider, self._box)

    def _name(self, answer: Answer) -> str:
        return ""


class Apple(OpenIDProvider):
    def _client_secret(self) -> str:
        """Made for each login, so that none can be kept by anybody: Apple would take them for half a year."""
        return apple_client_secret(self.provider, opened(self.provider, self._box), self._clock.now())

    def _name(self, answer: Answer) -> str:
        """It came through the browser, unsigned: good enough to be greeted by."""
        with suppress(ValueError, TypeError, KeyError, AttributeError):
            name = json.loads(answer.user)["name"]
            return plain_text(" ".join(filter(None, (name.get("firstName"), name.get("lastName")))))
        return ""


def apple_client_secret(provider: IdentityProvider, private_key: str, now: datetime) -> str:
    """https://developer.apple.com/documentation/accountorganizationaldatasharing/creating-a-client-secret"""
    claims = {
        "iss": provider.team_id,
        "sub": provider.client_id,
        "aud": provider.at,
        "iat": int(now.timestamp()),
        "exp": int((now + _CLIENT_SECRET_LIVES).timestamp()),
    }
    try:
        key = ECKey.import_key(private_key)
        return jwt.encode({"alg": "ES256", "kid": provider.key_id}, claims, key)
    except (JoseError, ValueError):
        raise Misconfigured(f"identity provider {provider.id}: its secret is not the private key of Apple's") from None


def opened(provider: IdentityProvider, box: SecretBox) -> str:
    return box.open(provider.client_secret, owner=provider.secret_owner) if provider.client_secret else ""


def verified_email(email: object, verified: object) -> str:
    """In the spelling that users have it in; empty unless the provider says that it verified it. Apple says "true"."""
    if isinstance(email, str) and (verified is True or verified == "true"):
        with suppress(InvalidInput):
            return parse_email(email, "email").value
    return ""


def plain_text(text: object) -> str:
    """Names are shown to people: no line breaks, nothing invisible, and not without end."""
    if not isinstance(text, str):
        return ""
    return "".join(character for character in text if character.isprintable()).strip()[:_NAME_CHARS]


def _auth_method(metadata: Metadata, secret: str) -> str:
    if not secret:
        return "none"
    supported = metadata.token_endpoint_auth_methods_supported
    basic = "client_secret_basic" in supported or "client_secret_post" not in supported
    return "client_secret_basic" if basic else "client_secret_post"
