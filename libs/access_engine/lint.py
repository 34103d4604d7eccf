"""What is probably wrong with a policy, though it may be one: rules that never matter, names that nobody knows."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches

from libs.access_engine.condition import AllOf, Condition, Test
from libs.access_engine.coverage import uncovered
from libs.access_engine.permission import Permission, Reach
from libs.access_engine.policy import Policy, PolicyError, RoleCycle, UnknownRole
from libs.access_engine.predicate import Constant
from libs.access_engine.rule import UNBOUND, Effect, Grant, Role, Rule
from libs.access_engine.subject import Subject

Catalogue = Mapping[str, Collection[str]]  # the actions of each resource


@dataclass(frozen=True, slots=True)
class Finding:
    """`code` is one of: unknown-role, inheritance-cycle, no-policy, unknown-resource, unknown-action, unreachable-rule,
    shadowed-allow, grant-too-wide. `where` is the role or grant.
    """

    code: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message} [{self.code}]"


def lint(
    roles: Sequence[Role],
    grants: Sequence[Grant] = (),
    *,
    catalogue: Catalogue | None = None,
    authors: Mapping[tuple[str, str], Subject] | None = None,
    confined: bool = False,
    now: datetime | None = None,
) -> list[Finding]:
    """`authors` are, by tenant and id, those who gave grants: without them it is not asked whether they hold so much.

    `confined` as for `coverage.uncovered`.
    """
    now = now or datetime.now(UTC)
    findings = [*_names(roles, grants, catalogue or {}), *_over(roles, grants, now)]
    try:
        policy = Policy(roles, grants)
    except UnknownRole as error:
        return [Finding("unknown-role", f"role {error.role}", str(error)), *findings]
    except RoleCycle as error:
        return [Finding("inheritance-cycle", f"role {error.path[0]}", str(error)), *findings]
    except PolicyError as error:
        twice = next(role for position, role in enumerate(roles) if role.name in {r.name for r in roles[:position]})
        return [Finding("no-policy", f"role {twice.name}", str(error)), *findings]
    findings += [finding for role in roles for finding in _without_effect(policy, role)]
    return findings + list(_too_wide(policy, grants, authors or {}, now, confined=confined))


def _places(roles: Iterable[Role], grants: Iterable[Grant]) -> Iterable[tuple[str, Rule]]:
    for role in roles:
        for rule in role.rules:
            yield f"role {role.name}", rule
    for grant in grants:
        yield f"grant {grant.id}", grant.rule


def _names(roles: Sequence[Role], grants: Sequence[Grant], catalogue: Catalogue) -> Iterable[Finding]:
    if not catalogue:
        return
    every_action = {action for actions in catalogue.values() for action in actions}
    for where, rule in _places(roles, grants):
        resource, action = rule.permission.resource, rule.permission.action
        if resource not in ("*", *catalogue):
            message = f"{rule}: there is no resource {resource!r}{_meant(resource, catalogue)}"
            yield Finding("unknown-resource", where, message)
        actions = every_action if resource == "*" else catalogue.get(resource, every_action)
        if action != "*" and action not in actions:
            yield Finding("unknown-action", where, f"{rule}: there is no action {action!r}{_meant(action, actions)}")


def _meant(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _over(roles: Sequence[Role], grants: Sequence[Grant], now: datetime) -> Iterable[Finding]:
    """Rules that apply to nothing and nobody, whatever the others are."""
    for where, rule in _places(roles, grants):
        if reason := _never(rule, now):
            yield Finding("unreachable-rule", where, f"{rule}: {reason}")


def _never(rule: Rule, now: datetime) -> str | None:
    bounds = rule.bounds
    if bounds.until is not None and bounds.until <= now:
        return "it is over"
    if bounds.since is not None and bounds.until is not None and bounds.until <= bounds.since:
        return "it is over before it begins"
    if bounds.condition is not None and _contradicts_itself(bounds.condition):
        return "its condition contradicts itself"
    return None


def _contradicts_itself(condition: Condition) -> bool:
    """An attribute is to be two different things. There are other ways, which are not found."""
    parts = condition.parts if isinstance(condition, AllOf) else (condition,)
    wanted: dict[object, frozenset[Constant]] = {}
    for part in parts:
        if isinstance(part, Test) and part.op in ("eq", "in"):
            operand = part.operand
            among = operand if isinstance(operand, frozenset) else frozenset([operand])
            if not all(isinstance(each, Constant) for each in among):
                continue
            constants = frozenset(each for each in among if isinstance(each, Constant))
            wanted[part.attribute] = wanted.get(part.attribute, constants) & constants
    return any(not constants for constants in wanted.values())


def _without_effect(policy: Policy, role: Role) -> Iterable[Finding]:
    """Rules to which others of the role, or of those that it inherits from, leave nothing to say."""
    around = [(name, rule) for name in sorted(policy.lineage([role.name])) for rule in policy.roles[name].rules]
    for position, rule in enumerate(role.rules):
        where = f"role {role.name}"
        denials = [
            each for _, each in around if each.effect is Effect.DENY and each is not rule and _covers(each, rule)
        ]
        if rule.effect is Effect.ALLOW and denials:
            yield Finding("shadowed-allow", where, f"{rule}: {denials[0]} denies all of it")
            continue
        if rule in role.rules[:position]:
            yield Finding("unreachable-rule", where, f"{rule}: it is there twice")
            continue
        wider = [(name, each) for name, each in around if each.effect is rule.effect and _wider(each, rule)]
        if wider:
            name, each = wider[0]
            of = "" if name == role.name else f" of {name}"
            yield Finding("unreachable-rule", where, f"{rule}: {each}{of} covers all of it")


def _wider(one: Rule, other: Rule) -> bool:
    return one != other and _covers(one, other) and not (_covers(other, one) and str(other) < str(one))


def _covers(one: Rule, other: Rule) -> bool:
    """Everything that `other` is about, always."""
    return one.bounds in (UNBOUND, other.bounds) and _permission_covers(one.permission, other.permission)


def _permission_covers(one: Permission, other: Permission) -> bool:
    if one.resource not in ("*", other.resource) or one.action not in ("*", other.action):
        return False
    if other.reach is Reach.NOTHING:
        return one.reach is Reach.ALL or one.target == other.target
    return one.reach >= other.reach


def _too_wide(
    policy: Policy,
    grants: Iterable[Grant],
    authors: Mapping[tuple[str, str], Subject],
    now: datetime,
    *,
    confined: bool,
) -> Iterable[Finding]:
    for grant in grants:
        author = authors.get((grant.tenant_id, grant.author))
        if author is not None and uncovered(policy, author, [grant.rule], now, confined=confined):
            message = f"{grant.rule}: its author {author.id} does not hold all of it"
            yield Finding("grant-too-wide", f"grant {grant.id}", message)
