"""Roles: given to users and taken from them, and what they are at all."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from libs.access_engine import Effect, Role
from libs.access_engine.lint import Finding
from libs.core.context import Context
from libs.core.errors import InvalidInput, Refusal
from libs.core.grants import rule_of
from libs.core.mongo import Session
from services.auth.commands.administration import change, demand_author, reason_of, refuse_oneself, target, void_tokens
from services.auth.commands.auth import Auth, record
from services.auth.commands.fresh import demand_fresh
from services.auth.domain.users import User
from services.auth.events import UserRoleChanged
from services.auth.store import users

MAX_ROLES = 16
_MANAGE = "policy:manage"
# With these it is no policy, whoever insists.
_FATAL = frozenset({"unknown-role", "inheritance-cycle", "no-policy"})


async def assign(auth: Auth, context: Context, user_id: str, roles: Sequence[str], reason: str) -> User:
    """All the roles that a user has from now on. Their access tokens are refused at once, and the next have these.

    `Refusal` ROLES_TOO_WIDE unless the author holds every rule of each role that is given, or taken away.
    """
    reason, wanted = reason_of(reason), sorted(set(roles))
    if len(wanted) > MAX_ROLES:
        raise InvalidInput(f"a user has at most {MAX_ROLES} roles", field="input.roles")
    refuse_oneself(context, user_id)
    await demand_fresh(auth, context)

    async def work(session: Session) -> User:
        before = await target(auth, context, session, "role:assign", user_id)
        if set(wanted) == set(before.roles):
            return before
        refuse_wider_roles(auth, context, before.roles, wanted)
        after = await void_tokens(auth, session, replace(before, roles=tuple(wanted)))
        after = await users.save(auth.database, session, before, after)
        told = UserRoleChanged(user_id=after.id, before=list(before.roles), after=wanted)
        await record(
            auth, session, context, "user.role_changed", user_id=after.id, event=told, reason=reason,
            before=list(before.roles), after=wanted,
        )  # fmt: skip
        return after

    return await change(auth, context, work)


def refuse_wider_roles(auth: Auth, context: Context, before: Sequence[str], after: Sequence[str]) -> None:
    """A role that there is no more cannot be given, and can be taken by anybody who may assign: it says nothing."""
    access = auth.platform.access
    given = set(after) - set(before)
    taken = {role for role in set(before) - set(after) if role in access.roles}
    if beyond := access.wider_roles(context.caller, sorted(given | taken)):
        raise Refusal(
            "ROLES_TOO_WIDE", "nobody gives or takes more than they hold themselves", rule="role.author", beyond=beyond
        )


@dataclass(frozen=True, slots=True)
class NewRole:
    """`allow` and `deny`: permissions, or rules with bounds as JSON."""

    name: str
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    inherits: tuple[str, ...] = ()

    def role(self) -> Role:
        try:
            allow = [rule_of(text, Effect.ALLOW) for text in self.allow]
            deny = [rule_of(text, Effect.DENY) for text in self.deny]
        except ValueError as error:
            raise InvalidInput(f"role {self.name[:64]!r}: {error}", field="input.roles") from error
        return Role(self.name, (*allow, *deny), self.inherits)


@dataclass(frozen=True, slots=True)
class Published:
    version: int
    findings: list[Finding]


def lint_policy(auth: Auth, context: Context, roles: Sequence[NewRole]) -> list[Finding]:
    """What the linter says of them; nothing is stored."""
    auth.platform.access.demand_shared(context.caller, _MANAGE)
    return auth.platform.access.lint([role.role() for role in roles])


async def publish(
    auth: Auth, context: Context, roles: Sequence[NewRole], *, after: int, reason: str, accept_findings: bool
) -> Published:
    """The roles of all tenants from now on, on top of the built-in ones. `after` is the version that the author saw.

    `Refusal` POLICY_DOUBTFUL with what the linter found, unless that is accepted; POLICY_TOO_WIDE if it gives what the
    author does not hold; POLICY_LOCKS_YOU_OUT if its author could not publish the next.
    """
    access = auth.platform.access
    access.demand_shared(context.caller, _MANAGE)
    reason = reason_of(reason)
    await demand_fresh(auth, context)
    made = [role.role() for role in roles]
    findings = access.lint(made)
    if findings and (not accept_findings or any(finding.code in _FATAL for finding in findings)):
        told = [{"code": f.code, "where": f.where, "message": f.message} for f in findings]
        raise Refusal("POLICY_DOUBTFUL", "the linter has found something", rule="policy.lint", findings=told)
    if beyond := access.wider_policy(context.caller, made):
        raise Refusal("POLICY_TOO_WIDE", "nobody grants more than they hold", rule="policy.author", beyond=beyond)
    if access.locks_out(context.caller, made, f"{_MANAGE}:tenant"):
        raise Refusal("POLICY_LOCKS_YOU_OUT", "you could not publish the next policy", rule="policy.author")

    async def work(session: Session) -> int:
        await demand_author(auth, context, session)
        version = await access.publish(made, after=after, actor=context.caller.user_id, reason=reason, session=session)
        await record(
            auth, session, context, "policy.published", user_id="", resource="policy", reason=reason,
            before=after, after=version,
        )  # fmt: skip
        return version

    version = await auth.transaction(context.tenant_id, work)
    await access.changed()
    return Published(version, findings)
