"""Identity providers, signing in with one, and a user's identities with them."""

from datetime import datetime
from typing import Annotated, Self
from urllib.parse import urlencode

import strawberry
from strawberry import ID, Info

from libs.core.access import Public, Requires
from libs.core.context import Context
from libs.core.graphql import Problem
from libs.core.ids import parse_id
from services.auth.commands import identities, oauth
from services.auth.commands.auth import Auth
from services.auth.domain.identities import Identity
from services.auth.domain.providers import IdentityProvider as ConfiguredProvider
from services.auth.schema.common import auth_of, or_problem
from services.auth.schema.sign_in import DeviceInput, SignInResult, device_of, sign_in_result

MANAGE = "identity:manage"


@strawberry.type(description="Somebody who vouches for people: for a button on a login page.")
class IdentityProvider:
    id: ID
    label: str
    preset: str = strawberry.field(description="google, github, apple, or oidc for any other: for its logo.")
    start_url: str = strawberry.field(
        description="What the button opens, with return_url, challenge and, if you like, state added to its query."
    )

    @classmethod
    def of(cls, provider: ConfiguredProvider, auth: Auth, tenant_id: str) -> Self:
        start_url = _start_url(auth, tenant_id, provider.id)
        return cls(id=ID(provider.id), label=provider.shown_as, preset=provider.preset, start_url=start_url)


@strawberry.type(description="Who the user is to an identity provider.")
class LinkedIdentity:
    id: ID
    issuer: str
    provider_id: ID | None = strawberry.field(description="Null if the provider is not in use here any more.")
    label: str = strawberry.field(description="The e-mail address, or else the name, that it had when it was linked.")
    linked_at: datetime
    last_used_at: datetime

    @classmethod
    def of(cls, identity: Identity, auth: Auth) -> Self:
        providers = auth.config(identity.tenant_id).identity_providers
        provider_id = next((provider.id for provider in providers if provider.at == identity.issuer), None)
        return cls(
            id=ID(identity.id),
            issuer=identity.issuer,
            provider_id=ID(provider_id) if provider_id else None,
            label=identity.label,
            linked_at=identity.linked_at,
            last_used_at=identity.last_used_at,
        )


@strawberry.type
class IdentityLinkStarted:
    url: str = strawberry.field(description="For the user's browser to open, once.")
    expires_at: datetime


@strawberry.input
class FinishOAuthInput:
    code: str = strawberry.field(description="From the query of the address that the browser was sent back to.")
    verifier: str = strawberry.field(description="Whose SHA-256 in base64url was the challenge.")
    device: DeviceInput | None = None


@strawberry.input
class StartIdentityLinkInput:
    provider_id: ID
    return_url: str
    challenge: str = strawberry.field(description="The SHA-256, in base64url, of a verifier of 43 to 128 characters.")


@strawberry.input
class FinishIdentityLinkInput:
    code: str
    verifier: str


IdentityLinkStartResult = Annotated[IdentityLinkStarted | Problem, strawberry.union("IdentityLinkStartResult")]
LinkedIdentityResult = Annotated[LinkedIdentity | Problem, strawberry.union("LinkedIdentityResult")]


@strawberry.type
class IdentityQueries:
    @strawberry.field(description="In the order that the tenant has them in.", extensions=[Public()])
    async def identity_providers(self, info: Info[Context]) -> list[IdentityProvider]:
        auth, tenant_id = auth_of(info), info.context.tenant_id
        return [
            IdentityProvider.of(provider, auth, tenant_id) for provider in auth.config(tenant_id).identity_providers
        ]

    @strawberry.field(description="Yours, the oldest first.", extensions=[Requires(MANAGE)])
    async def my_identities(self, info: Info[Context]) -> list[LinkedIdentity]:
        auth = auth_of(info)
        return [LinkedIdentity.of(identity, auth) for identity in await identities.mine(auth, info.context)]


@strawberry.type
class IdentityMutations:
    @strawberry.mutation(
        name="finishOAuth",
        description="Signs in whoever came back from an identity provider, and registers them if they are new. "
        "A second factor is asked for as ever.",
        extensions=[Public()],
    )
    async def finish_oauth(self, info: Info[Context], input: FinishOAuthInput) -> SignInResult:  # noqa: A002
        device = device_of(input.device)
        finished = oauth.finish(auth_of(info), info.context, input.code, input.verifier, device=device)
        return sign_in_result(await or_problem(finished))

    @strawberry.mutation(
        description="Another way to sign in. Needs a fresh login, and is finished in the same session.",
        extensions=[Requires(MANAGE)],
    )
    async def start_identity_link(
        self,
        info: Info[Context],
        input: StartIdentityLinkInput,  # noqa: A002
    ) -> IdentityLinkStartResult:
        auth = auth_of(info)
        started = await or_problem(
            identities.start_link(auth, info.context, input.provider_id, input.return_url, input.challenge)
        )
        if isinstance(started, Problem):
            return started
        url = _start_url(auth, info.context.tenant_id, started.provider_id, link=started.token)
        return IdentityLinkStarted(url=url, expires_at=started.expires_at)

    @strawberry.mutation(extensions=[Requires(MANAGE)])
    async def finish_identity_link(
        self,
        info: Info[Context],
        input: FinishIdentityLinkInput,  # noqa: A002
    ) -> LinkedIdentityResult:
        auth = auth_of(info)
        linked = await or_problem(identities.finish_link(auth, info.context, input.code, input.verifier))
        return linked if isinstance(linked, Problem) else LinkedIdentity.of(linked, auth)

    @strawberry.mutation(
        description="Needs a fresh login, and some other way to sign in.", extensions=[Requires(MANAGE)]
    )
    async def unlink_identity(self, info: Info[Context], id: ID) -> LinkedIdentityResult:  # noqa: A002
        auth = auth_of(info)
        unlinked = await or_problem(identities.unlink(auth, info.context, parse_id(id, "id")))
        return unlinked if isinstance(unlinked, Problem) else LinkedIdentity.of(unlinked, auth)


def _start_url(auth: Auth, tenant_id: str, provider_id: str, **more: str) -> str:
    query = urlencode({"tenant": tenant_id, **more})
    return f"{auth.settings.public_url.rstrip('/')}/oauth/{provider_id}/start?{query}"
