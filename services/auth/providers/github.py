"""GitHub: OAuth without OpenID Connect. Who somebody is, and which address is theirs, its API says."""

from typing import Any

from libs.core.crypto import SecretBox
from services.auth.domain.identities import Proven
from services.auth.domain.providers import PRESETS, IdentityProvider
from services.auth.providers.answers import Answer, Question, invalid, unavailable
from services.auth.providers.client import authorization_url, client, get_json, redeem
from services.auth.providers.openid import opened, plain_text, verified_email
from services.auth.providers.outside import Outside


class GitHub:
    """github.com, or an Enterprise Server of one's own, whose API is at `/api/v3`."""

    def __init__(self, provider: IdentityProvider, outside: Outside, box: SecretBox) -> None:
        self.provider = provider
        self._outside = outside
        self._box = box
        self._api = "https://api.github.com" if self._at == PRESETS["github"].issuer else f"{self._at}/api/v3"

    @property
    def _at(self) -> str:
        return self.provider.at.rstrip("/")

    async def address(self, question: Question) -> str:
        if not self._outside.allows(self._at):
            raise unavailable()
        async with client(self._outside, self.provider, question.redirect_uri) as session:
            return authorization_url(session, f"{self._at}/login/oauth/authorize", question)

    async def proven(self, question: Question, answer: Answer) -> Proven:
        """There is no ID token, and so no nonce: PKCE and the state bind the code to this browser and this login."""
        # In April 2026 GitHub began to send `iss` for some days: this, which it also names in its metadata.
        if answer.iss not in ("", f"{self._at}/login/oauth"):
            raise invalid("oauth.iss")
        secret = opened(self.provider, self._box)
        async with client(
            self._outside, self.provider, question.redirect_uri, secret=secret, auth_method="client_secret_post"
        ) as session:
            await redeem(session, f"{self._at}/login/oauth/access_token", question, answer)
            user = await get_json(session, f"{self._api}/user")
            addresses = await get_json(session, f"{self._api}/user/emails")
            if type(user["id"]) is not int:  # the number, which stays; logins are given up and taken by others
                raise invalid("oauth.user")
            return Proven(
                issuer=self.provider.at,
                subject=str(user["id"]),
                email=_primary(addresses),
                name=plain_text(user.get("name")) or plain_text(user.get("login")),
            )


def _primary(addresses: list[Any]) -> str:
    """Of several, the one that its owner calls primary. GitHub's own no-reply addresses reach nobody."""
    primary: dict[str, Any] = next((a for a in addresses if a.get("primary") is True), {})
    email = verified_email(primary.get("email"), primary.get("verified"))
    return "" if email.endswith("noreply.github.com") else email
