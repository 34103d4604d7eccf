"""Why a decision is what it is, who may do a thing, and what a new policy changes: for people, not for each request."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from libs.access_engine.condition import AllOf, AnyOf, Condition, Negation, Test, dump_condition
from libs.access_engine.permission import Reach
from libs.access_engine.policy import Policy, covers_action, narrowing
from libs.access_engine.rule import MAX_LEVEL, Effect, Grant, Rule
from libs.access_engine.scope import Scope, distance
from libs.access_engine.subject import Object, Subject


@dataclass(frozen=True, slots=True)
class Candidate:
    """A rule that is about this action on this resource. `via` is the path to it, from one of the subject's roles to
    the role that holds it, or the one grant's name. `reason` says why it lost, or for the winner why it applies.
    """

    rule: Rule
    via: tuple[str, ...]
    applies: bool
    reason: str

    def __str__(self) -> str:
        return f"{self.rule} ({' → '.join(self.via)}): {self.reason}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """`winner` is None if no rule decided: nothing is allowed without one. `others` are the candidates that lost."""

    allowed: bool
    reason: str
    winner: Candidate | None
    others: tuple[Candidate, ...]

    def __str__(self) -> str:
        lines = [f"{'allowed' if self.allowed else 'denied'}: {self.reason}"]
        if self.winner:
            lines.append(f"  wins: {self.winner}")
        return "\n".join([*lines, *(f"  lost: {other}" for other in self.others)])


def explain(
    policy: Policy, subject: Subject, resource: str, action: str, obj: Object, now: datetime | None = None
) -> Explanation:
    """What `policy.check` answers, and by which rule: the most specific that applies, denials first."""
    now = now or datetime.now(UTC)
    candidates = [
        _judged(rule, via, subject, obj, now)
        for rule, via in _rules(policy, subject)
        if covers_action(rule.permission, resource, action)
    ]
    candidates.sort(key=_rank)
    denials = [each for each in candidates if each.applies and each.rule.effect is Effect.DENY]
    allowances = [each for each in candidates if each.applies and each.rule.effect is Effect.ALLOW]
    if denials:
        return _explained(False, "a rule denies it", denials[0], candidates)
    if not allowances:
        return _explained(False, "no rule allows it", None, candidates)
    if subject.scopes is not None and not narrowing(subject.scopes, resource, action).permits(subject, obj, now):
        return _explained(False, "a rule allows it, but none of the subject's scopes does", None, candidates)
    return _explained(True, "a rule allows it, and none denies it", allowances[0], candidates)


def _explained(allowed: bool, reason: str, winner: Candidate | None, candidates: Iterable[Candidate]) -> Explanation:
    others = tuple(
        replace(each, reason=_why_it_lost(each, winner)) if each.applies else each
        for each in candidates
        if each is not winner
    )
    return Explanation(allowed, reason, winner, others)


def _why_it_lost(candidate: Candidate, winner: Candidate | None) -> str:
    if winner is None:
        return "it allows, but the scopes do not"
    if winner.rule.effect is not candidate.rule.effect:
        return "a denial wins over it"
    return "it says the same, less specifically"


def _rank(candidate: Candidate) -> tuple[object, ...]:
    """Denials first, then by how much is named: the resource, the action, the object; then as written."""
    permission = candidate.rule.permission
    return (
        candidate.rule.effect is Effect.ALLOW,
        permission.resource == "*",
        permission.action == "*",
        permission.reach,
        len(candidate.via),
        str(candidate),
    )


def _rules(policy: Policy, subject: Subject) -> Iterable[tuple[Rule, tuple[str, ...]]]:
    for name, path in _paths(policy, subject.roles).items():
        for rule in policy.roles[name].rules:
            yield rule, path
    for grant in policy.grants_of(subject.tenant_id, subject.id):
        yield grant.rule, (f"grant {grant.id}",)


def _paths(policy: Policy, roles: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """The shortest to each role that `roles` are, or inherit from."""
    paths: dict[str, tuple[str, ...]] = {name: (name,) for name in sorted(roles) if name in policy.roles}
    waiting = deque(paths)
    while waiting:
        name = waiting.popleft()
        for parent in policy.roles[name].inherits:
            if parent not in paths:
                paths[parent] = (*paths[name], parent)
                waiting.append(parent)
    return paths


def _judged(rule: Rule, via: tuple[str, ...], subject: Subject, obj: Object, now: datetime) -> Candidate:
    reason = _off_target(rule, subject, obj) or _out_of_bounds(rule, subject, now)
    if reason:
        return Candidate(rule, via, False, reason)
    condition = rule.bounds.condition
    truth = True if condition is None else condition.truth(subject, obj)
    told = "" if condition is None else "; ".join(_told(condition, subject, obj))
    if truth is True:
        return Candidate(rule, via, True, "it applies")
    if truth is None and rule.effect is Effect.DENY:
        return Candidate(rule, via, True, f"it applies, as nothing shows that it does not: {told}")
    return Candidate(rule, via, False, f"its condition {'is not met' if truth is False else 'cannot be told'}: {told}")


def _off_target(rule: Rule, subject: Subject, obj: Object) -> str | None:
    if rule.reach is Reach.NOTHING:
        return None if obj.id == rule.permission.target else "it is about another object"
    away = distance(subject, obj)
    if away <= rule.reach:
        return None
    return "the object is not of the subject's tenant" if away is Reach.ALL else "the object is not the subject's own"


def _out_of_bounds(rule: Rule, subject: Subject, now: datetime) -> str | None:
    bounds = rule.bounds
    if rule.in_force(subject, now):
        return None
    if bounds.since is not None and now < bounds.since:
        return f"it begins at {bounds.since.isoformat()}"
    if bounds.until is not None and now >= bounds.until:
        return f"it was over at {bounds.until.isoformat()}"
    if subject.level < bounds.level:
        return f"it needs level {bounds.level}, and the subject has {subject.level}"
    if bounds.tenant_id not in ("", subject.tenant_id):
        return f"it is for tenant {bounds.tenant_id}"
    return f"it is for brand {bounds.brand_id}"


def _told(condition: Condition, subject: Subject, obj: Object) -> Iterable[str]:
    """The tests in it, with what they found."""
    match condition:
        case AllOf(parts) | AnyOf(parts):
            for part in parts:
                yield from _told(part, subject, obj)
        case Negation(part):
            yield from _told(part, subject, obj)
        case Test(attribute):
            found = (subject if attribute.of == "subject" else obj).attribute(attribute.name)
            truth = {True: "true", False: "false", None: "unknown"}[condition.truth(subject, obj)]
            shown = "missing" if found is None else f"{found!r:.60}"
            yield f"{dump_condition(condition)} is {truth}, {attribute} being {shown}"


@dataclass(frozen=True, slots=True)
class WhoCan:
    """`roles` with the reach from which each may: OWN, the object's owner; TENANT, anyone of its tenant; ALL, anyone.

    NOTHING: some objects by their id, or under a condition. `grants` are those that allow it beside the roles;
    `subjects`, of those who were asked about, who may.
    """

    roles: Mapping[str, Reach]
    grants: tuple[Grant, ...]
    subjects: tuple[Subject, ...]


def who_can(
    policy: Policy,
    resource: str,
    action: str,
    obj: Object | None = None,
    *,
    subjects: Iterable[Subject] = (),
    now: datetime | None = None,
) -> WhoCan:
    """Who may do `action` to `obj`, or to any `resource` at all. Who has which roles, the policy does not know."""
    now = now or datetime.now(UTC)

    def may(subject: Subject) -> bool:
        if obj is None:
            return policy.filter(subject, resource, action).possible(subject, now)
        return policy.check(subject, resource, action, obj, now)

    scopes = {name: policy.filter((name,), resource, action) for name in sorted(policy.roles)}
    reaches = {
        name: scope.reach if obj is None else _reach_to(scope, name, obj, now)
        for name, scope in scopes.items()
        if not scope.nothing
    }
    grants = tuple(
        grant
        for grant in policy.grants
        if grant.rule.effect is Effect.ALLOW
        and covers_action(grant.rule.permission, resource, action)
        and may(_holder(grant))
    )
    return WhoCan(
        {name: reach for name, reach in reaches.items() if reach is not None},
        grants,
        tuple(subject for subject in subjects if may(subject)),
    )


def _reach_to(scope: Scope, role: str, obj: Object, now: datetime) -> Reach | None:
    """The farthest from which somebody of that role is permitted `obj`; None: nobody is."""
    tenant_id, owner_id = obj.tenant_id or "", obj.owner_id or ""
    askers = {
        Reach.ALL: Subject("somebody", "elsewhere", (role,), level=MAX_LEVEL),
        Reach.TENANT: Subject("somebody", tenant_id, (role,), level=MAX_LEVEL),
        Reach.OWN: Subject(owner_id, tenant_id, (role,), level=MAX_LEVEL),
    }
    return next((reach for reach, asker in askers.items() if scope.permits(asker, obj, now)), None)


def _holder(grant: Grant) -> Subject:
    return Subject(grant.subject_id, grant.tenant_id, brand_id=grant.rule.bounds.brand_id, level=MAX_LEVEL)
