"""Who is it, now? What changes how somebody signs in is not for whoever finds their phone unlocked."""

from datetime import timedelta
from typing import Literal

from libs.core.context import Context
from libs.core.errors import Refusal, Unauthenticated
from services.auth.commands.auth import Auth
from services.auth.domain.users import User
from services.auth.store import users


async def demand_fresh(auth: Auth, context: Context, level: Literal[1, 2] = 1) -> User:
    """The caller, who proved lately that it is them: with two factors if they have two, or if `level` says so.

    `Refusal` SECOND_FACTOR_MISSING if two are demanded and they have one, REAUTHENTICATION_REQUIRED for all else.
    """
    caller = context.caller
    user = await users.load(auth.database, None, context.tenant_id, caller.user_id)
    if user is None or not user.active:
        raise Unauthenticated("the token's user is not active")
    if level == 2 and not user.second_factors:
        raise Refusal("SECOND_FACTOR_MISSING", "set up a second factor first", rule="authentication.level")
    lately = timedelta(seconds=auth.config(context.tenant_id).step_up_s)
    proven_at = caller.authenticated_at
    # A key's bearer is nobody who could be asked.
    if proven_at is None or auth.platform.clock.now() - proven_at > lately or caller.scopes is not None:
        raise _not_fresh("authentication.fresh", user, lately)
    demand_level(auth, context, user)
    return user


def demand_level(auth: Auth, context: Context, user: User) -> None:
    """That the caller, who is `user`, has shown two factors if they have two: also if they had one a moment ago."""
    if context.caller.level < _needed(user):
        lately = timedelta(seconds=auth.config(context.tenant_id).step_up_s)
        raise _not_fresh("authentication.level", user, lately)


def _needed(user: User) -> int:
    return 2 if user.second_factors else 1


def _not_fresh(rule: str, user: User, lately: timedelta) -> Refusal:
    return Refusal(
        "REAUTHENTICATION_REQUIRED",
        "show again that it is you",
        rule=rule,
        level=_needed(user),
        maxAgeSeconds=int(lately.total_seconds()),
    )
