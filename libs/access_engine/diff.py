"""What a policy lets its roles do that another does not: by effect, not by text."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from libs.access_engine.permission import Reach
from libs.access_engine.policy import Policy
from libs.access_engine.rule import Grant
from libs.access_engine.scope import Scope


@dataclass(frozen=True, slots=True)
class Change:
    """What `role` reaches of `resource` with `action`; "*": of any other that the policies do not name."""

    role: str
    resource: str
    action: str
    before: Scope
    after: Scope

    @property
    def kind(self) -> Literal["wider", "narrower", "changed"]:
        if _includes(self.after, self.before):
            return "wider"
        return "narrower" if _includes(self.before, self.after) else "changed"

    def __str__(self) -> str:
        name = f"{self.role}: {self.resource}:{self.action}"
        return f"{self.kind:8} {name}  {_shown(self.before)} → {_shown(self.after)}"


@dataclass(frozen=True, slots=True)
class PolicyDiff:
    changes: tuple[Change, ...]
    granted: tuple[Grant, ...]
    revoked: tuple[Grant, ...]

    def __bool__(self) -> bool:
        return bool(self.changes or self.granted or self.revoked)

    def __str__(self) -> str:
        given = [f"granted  {_shown_grant(grant)}" for grant in self.granted]
        taken = [f"revoked  {_shown_grant(grant)}" for grant in self.revoked]
        return "\n".join([*map(str, self.changes), *given, *taken]) or "no change"


def diff(old: Policy, new: Policy) -> PolicyDiff:
    """Every role, in every combination of a resource and an action that either policy names."""
    resources, actions = _named(old, new)
    changes: list[Change] = []
    for role in sorted({*old.roles, *new.roles}):
        seen: dict[tuple[str, str], tuple[Scope, Scope]] = {}
        for resource in resources:
            for action in actions:
                before, after = (policy.filter((role,), resource, action) for policy in (old, new))
                seen[resource, action] = before, after
                # What is so for any resource or any action is said once.
                general = ((resource, "*"), ("*", action), ("*", "*"))
                if before != after and all(
                    seen[place] != (before, after) for place in general if place != (resource, action)
                ):
                    changes.append(Change(role, resource, action, before, after))
    before_grants, after_grants = set(old.grants), set(new.grants)
    return PolicyDiff(
        tuple(changes),
        tuple(sorted(after_grants - before_grants, key=lambda grant: grant.id)),
        tuple(sorted(before_grants - after_grants, key=lambda grant: grant.id)),
    )


def _named(*policies: Policy) -> tuple[list[str], list[str]]:
    """ "*" comes first."""
    permissions = [rule.permission for policy in policies for role in policy.roles.values() for rule in role.rules]
    return (
        sorted({"*", *(permission.resource for permission in permissions)}),
        sorted({"*", *(permission.action for permission in permissions)}),
    )


def _includes(wide: Scope, narrow: Scope) -> bool:
    """Whether it is sure to."""
    return (
        wide.reach >= narrow.reach
        and (wide.ids >= narrow.ids or wide.reach is Reach.ALL)
        and wide.denied_reach <= narrow.denied_reach
        and (wide.denied_ids <= narrow.denied_ids or narrow.denied_reach is Reach.ALL)
        and (set(wide.allow_if) >= set(narrow.allow_if) or wide.reach is Reach.ALL)
        and set(wide.deny_if) <= set(narrow.deny_if)
    ) or narrow.nothing


def _shown(scope: Scope) -> str:
    allowed = [*_reached(scope.reach, scope.ids), *(str(rule) for rule in scope.allow_if)]
    denied = [*_reached(scope.denied_reach, scope.denied_ids), *(str(rule) for rule in scope.deny_if)]
    return " or ".join(allowed or ["nothing"]) + (f" but not {' or '.join(denied)}" if denied else "")


def _reached(reach: Reach, ids: Iterable[str]) -> Iterable[str]:
    if reach is not Reach.NOTHING:
        yield reach.name.lower()
    yield from sorted(ids)


def _shown_grant(grant: Grant) -> str:
    return f"{grant.id}: {grant.rule} to {grant.subject_id} of {grant.tenant_id}"
