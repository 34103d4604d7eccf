"""Authlib's OAuth client on our connections: asks for a code, and redeems it."""

import asyncio
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import authlib.deprecate
import httpx
import structlog

from libs.core.errors import Refusal
from services.auth.domain.providers import IdentityProvider
from services.auth.providers.answers import Answer, Question, invalid, unavailable
from services.auth.providers.outside import WITHIN_S, Outside

with warnings.catch_warnings():
    # That it will want httpx2 some day. Its own filter, which it sets when imported, would show it all the same.
    warnings.simplefilter("ignore", authlib.deprecate.AuthlibDeprecationWarning)
    from authlib.integrations.httpx_client import AsyncOAuth2Client, OAuthError

log = structlog.get_logger(__name__)


@asynccontextmanager
async def client(
    outside: Outside, provider: IdentityProvider, redirect_uri: str, *, secret: str = "", auth_method: str = "none"
) -> AsyncIterator[AsyncOAuth2Client]:
    """Whatever goes wrong while it is used is a `Refusal`, and a line in the log for whoever runs this."""
    try:
        async with (
            asyncio.timeout(WITHIN_S),
            AsyncOAuth2Client(
                provider.client_id,
                secret or None,
                token_endpoint_auth_method=auth_method,
                scope=" ".join(provider.asks_for),
                redirect_uri=redirect_uri,
                code_challenge_method="S256",
                leeway=0,  # the access token is used at once: one that lives a minute is not old
                transport=outside.transport,
                timeout=outside.timeout,
                trust_env=False,
            ) as session,
        ):
            yield session
    except OAuthError as error:
        log.warning("identity provider refuses", provider=provider.id, issuer=provider.at, error=str(error)[:300])
        raise invalid("oauth.code") from None
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        reason = f"{type(error).__name__}: {error}"[:300]
        log.warning("identity provider cannot be asked", provider=provider.id, issuer=provider.at, error=reason)
        raise unavailable() from None
    except Refusal:
        raise
    except (ValueError, KeyError, TypeError) as error:  # no JSON, or of another shape
        reason = f"{type(error).__name__}: {error}"[:300]
        log.warning("identity provider answers nonsense", provider=provider.id, issuer=provider.at, error=reason)
        raise invalid("oauth.answer") from None


def authorization_url(session: AsyncOAuth2Client, endpoint: str, question: Question, **more: str) -> str:
    url, _ = session.create_authorization_url(
        endpoint, state=question.state, code_verifier=question.verifier, nonce=question.nonce, **more
    )
    return str(url)


async def redeem(session: AsyncOAuth2Client, endpoint: str, question: Question, answer: Answer) -> dict[str, Any]:
    """The token response, which has an access token."""
    token: dict[str, Any] = await session.fetch_token(
        endpoint, grant_type="authorization_code", code=answer.code, code_verifier=question.verifier
    )
    if not isinstance(token.get("access_token"), str):
        raise invalid("oauth.access_token")
    return token


async def get_json(session: AsyncOAuth2Client, url: str) -> Any:
    """With the access token that was redeemed."""
    response = await session.get(url, headers={"Accept": "application/json"})
    response.raise_for_status()
    return response.json()
