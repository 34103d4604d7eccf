"""Who is signed in, as often as somebody asks."""

from typing import Any

from libs.core.context import Context
from libs.core.errors import Unauthenticated
from services.auth.commands.auth import Auth
from services.auth.domain.users import User
from services.auth.store import users

# What changes a user forgets the cached one; where that fails, it is old for so long.
_CACHED_S = 15.0


async def me(auth: Auth, context: Context) -> User:
    """From the cache, without the password. `Unauthenticated` if there is no such user any more."""
    tenant_id, user_id = context.tenant_id, context.caller.user_id

    async def load() -> dict[str, Any] | None:
        user = await users.load(auth.database, None, tenant_id, user_id)
        return users.to_cache(user) if user else None

    user: User | None = await auth.platform.cache.get_or_load(
        ("user", tenant_id, user_id), load, _CACHED_S, decode=lambda row: row and users.from_cache(row)
    )
    if user is None or not user.active:
        raise Unauthenticated("there is no such user any more")
    return user


async def forget(auth: Auth, user: User) -> None:
    """What caches know of a user, once it was changed."""
    await auth.platform.cache.invalidate(("user", user.tenant_id, user.id))
