"""Whether one who gives something away holds it: nobody grants more than their own.

The answer errs on one side. What it calls covered is; what it does not, may be, by several rules taken together, say,
or by a condition that says the same in other words.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

from libs.access_engine.condition import AllOf, Condition
from libs.access_engine.permission import Permission, PermissionSyntaxError, Reach
from libs.access_engine.policy import Policy
from libs.access_engine.rule import Bounds, Effect, Rule
from libs.access_engine.subject import Subject


def uncovered(
    policy: Policy,
    author: Subject,
    rules: Iterable[Rule],
    now: datetime | None = None,
    *,
    confined: bool = False,
) -> list[Rule]:
    """Those of `rules` that `author` does not wholly hold, denials too: who may not read may not forbid to read either.

    A rule is held if one allowance of the author's, in force now, reaches as far, to resources, actions, targets, and
    is bound no closer; if no denial of theirs touches it; and if their scopes, should they have some, let it through.
    `own` covers `own`, though another's own is not one's own. `confined` says that nobody ever reaches out of their
    tenant, and that the rules are for subjects of the author's: then `tenant` covers ids, and `all`.
    """
    now = now or datetime.now(UTC)
    held = [rule for role in policy.lineage(author.roles) for rule in policy.roles[role].rules]
    held += [grant.rule for grant in policy.grants_of(author.tenant_id, author.id)]
    allowed = [rule for rule in held if rule.effect is Effect.ALLOW and rule.in_force(author, now)]
    denied = [rule for rule in held if rule.effect is Effect.DENY]
    scopes = None if author.scopes is None else list(_parsed(author.scopes))

    def is_held(wanted: Rule) -> bool:
        tenant_id = wanted.bounds.tenant_id or (author.tenant_id if confined else "")
        return (
            any(
                _includes(rule.permission, wanted.permission, confined)
                and _binds_no_closer(rule.bounds, wanted.bounds, tenant_id)
                for rule in allowed
            )
            and not any(_touches(rule, wanted, tenant_id, now) for rule in denied)
            and (scopes is None or any(_includes(scope, wanted.permission, confined) for scope in scopes))
        )

    return [rule for rule in rules if not is_held(rule)]


def _parsed(scopes: Iterable[str]) -> Iterable[Permission]:
    for text in scopes:
        try:
            yield Permission.parse(text)
        except PermissionSyntaxError:
            continue


def _includes(held: Permission, wanted: Permission, confined: bool) -> bool:
    if held.resource not in ("*", wanted.resource) or held.action not in ("*", wanted.action):
        return False
    farthest = Reach.TENANT if confined else Reach.ALL
    if wanted.reach is Reach.NOTHING:
        return held.target == wanted.target or held.reach >= farthest
    return held.reach >= min(wanted.reach, farthest)


def _binds_no_closer(held: Bounds, wanted: Bounds, tenant_id: str) -> bool:
    """`held.since` is past, as `held` is in force."""
    return (
        held.tenant_id in ("", tenant_id)
        and held.brand_id in ("", wanted.brand_id)
        and (held.until is None or (wanted.until is not None and wanted.until <= held.until))
        and held.level <= wanted.level
        and (held.condition is None or _parts(held.condition) <= _parts(wanted.condition))
    )


def _parts(condition: Condition | None) -> set[Condition]:
    if isinstance(condition, AllOf):
        return {part for each in condition.parts for part in _parts(each)}
    return set() if condition is None else {condition}


def _touches(denial: Rule, wanted: Rule, tenant_id: str, now: datetime) -> bool:
    bounds = denial.bounds
    if bounds.until is not None and bounds.until <= now:
        return False
    if bounds.tenant_id and tenant_id and bounds.tenant_id != tenant_id:
        return False
    return overlap(denial.permission, wanted.permission)


def overlap(one: Permission, other: Permission) -> bool:
    """Whether there may be a request that both are about."""
    return (
        (one.resource == other.resource or "*" in (one.resource, other.resource))
        and (one.action == other.action or "*" in (one.action, other.action))
        and (one.reach is not Reach.NOTHING or other.reach is not Reach.NOTHING or one.target == other.target)
    )
