"""Who vouches for people here: identity providers by OpenID Connect and OAuth 2.0."""

from typing import Self

from libs.core.clock import Clock
from libs.core.crypto import SecretBox
from services.auth.domain.providers import IdentityProvider
from services.auth.providers.answers import Answer, Question
from services.auth.providers.discovery import Discovery
from services.auth.providers.github import GitHub
from services.auth.providers.openid import Apple, OpenIDProvider
from services.auth.providers.outside import Outside

__all__ = ["Answer", "Providers", "Question"]

PURPOSE = "identity providers"


class Providers:
    """Asked by one process (`async with`), with what they say of themselves kept. `keys` seal client secrets."""

    def __init__(self, keys: str, clock: Clock, *, development: bool) -> None:
        self._box = SecretBox(keys, purpose=PURPOSE)
        self._clock = clock
        self._outside = Outside(development=development)
        self._discovery = Discovery(self._outside)

    async def __aenter__(self) -> Self:
        await self._outside.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._outside.__aexit__()

    def at(self, provider: IdentityProvider) -> OpenIDProvider | GitHub:
        """As it is configured at this moment."""
        if provider.preset == "github":
            return GitHub(provider, self._outside, self._box)
        kind = Apple if provider.preset == "apple" else OpenIDProvider
        return kind(provider, self._outside, self._discovery, self._box, self._clock)
