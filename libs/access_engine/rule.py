"""Rules, the roles that hold them, and the grants that give one to a single subject."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Any, Self

from libs.access_engine.condition import Condition, ConditionError, dump_condition, parse_condition, parse_instant
from libs.access_engine.permission import Permission, PermissionSyntaxError, Reach
from libs.access_engine.predicate import EVERYTHING, NOTHING, All, Compare, Predicate, all_of, negated
from libs.access_engine.subject import Object, Subject

MAX_LEVEL = 9


class Effect(StrEnum):
    ALLOW = "allow"
    DENY = "deny"


class RuleError(ValueError):
    """This makes no rule; `path` leads to where it goes wrong: "roles.clerk.allow[0].until"."""

    def __init__(self, reason: str, *, path: str) -> None:
        super().__init__(f"{reason}, at {path}")
        self.reason = reason
        self.path = path


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where and when a rule is in force: for subjects of one tenant or brand, from `since`, before `until`, with so
    many factors proven, for objects of which `condition` holds. Whatever is not given does not bind.
    """

    tenant_id: str = ""
    brand_id: str = ""
    since: datetime | None = None
    until: datetime | None = None
    level: int = 0
    condition: Condition | None = None

    def around(self, subject: Subject, now: datetime) -> bool | None:
        """Whether they hold as far as the object has no say. None: unknown, as the subject has no tenant or brand."""
        if (self.since is not None and now < self.since) or (self.until is not None and now >= self.until):
            return False
        if subject.level < self.level:
            return False
        outcome: bool | None = True
        for bound, found in ((self.tenant_id, subject.tenant_id), (self.brand_id, subject.brand_id)):
            if bound and bound != found:
                if found:
                    return False
                outcome = None
        return outcome


UNBOUND = Bounds()


@dataclass(frozen=True)
class Rule:
    """An allowance applies where its bounds are sure to hold; a denial unless they are sure not to.

    So an attribute that is missing, misspelt, or of an unexpected kind gives nothing away, on either side of `not`.
    """

    permission: Permission
    effect: Effect = Effect.ALLOW
    bounds: Bounds = UNBOUND

    def __post_init__(self) -> None:
        for name, at in (("since", self.bounds.since), ("until", self.bounds.until)):
            if at is not None and at.tzinfo is None:
                raise ValueError(f"{name} needs a time zone")
        if self.effect is Effect.DENY and self.bounds.level:
            # It would be escaped by proving less.
            raise ValueError("a denial has no level: give it a condition, {'subject.level': {'lt': 2}}")
        if not 0 <= self.bounds.level <= MAX_LEVEL:
            raise ValueError(f"a level is from 0 to {MAX_LEVEL}")

    @cached_property
    def reach(self) -> Reach:
        return self.permission.reach

    def in_force(self, subject: Subject, now: datetime) -> bool:
        """As far as the object has no say."""
        around = self.bounds.around(subject, now)
        return around is True or (around is None and self.effect is Effect.DENY)

    def applies(self, subject: Subject, obj: Object, now: datetime) -> bool:
        """To an object that the target reaches."""
        if not self.in_force(subject, now):
            return False
        condition = self.bounds.condition
        truth = True if condition is None else condition.truth(subject, obj)
        return truth is True or (truth is None and self.effect is Effect.DENY)

    def predicate(self, subject: Subject, now: datetime) -> Predicate:
        """To which objects it applies."""
        if not self.in_force(subject, now):
            return NOTHING
        target = target_predicate(self.permission, subject)
        condition = self.bounds.condition
        if condition is None:
            return target
        if self.effect is Effect.ALLOW:
            return all_of([target, condition.surely(subject, wanted=True)])
        return all_of([target, negated(condition.surely(subject, wanted=False))])

    def __str__(self) -> str:
        return " ".join([str(self.effect), str(self.permission), *_spoken(self.bounds)])

    @classmethod
    def of(cls, data: "str | Mapping[str, Any] | Rule", effect: Effect = Effect.ALLOW, *, path: str = "rule") -> "Rule":
        """From text, "wallet:read:own", or from a mapping, whose other keys bound it:

            {"permission": "wallet:freeze:tenant", "tenant": …, "brand": …, "from": …, "until": …, "level": 2, "if": …}

        Raises `PermissionSyntaxError`, `ConditionError` or `RuleError`.
        """
        if isinstance(data, Rule):
            return data
        if isinstance(data, str):
            return cls(Permission.parse(data), effect)
        if not isinstance(data, Mapping):
            raise RuleError("a rule is a permission, or a mapping with one", path=path)
        if unknown := [str(key)[:60] for key in data if key not in _KEYS]:
            # One that is not understood may be a bound: without it, the rule would be too wide.
            raise RuleError(f"a rule has no {unknown[0]!r}, but {', '.join(_KEYS)}", path=path)
        permission = _text(data, "permission", path)
        if permission is None:
            raise RuleError("'permission' is missing", path=path)
        try:
            return cls(Permission.parse(permission), effect, _bounds(data, path))
        except (PermissionSyntaxError, ConditionError, RuleError):
            raise
        except ValueError as error:
            raise RuleError(str(error), path=path) from None

    def dump(self) -> str | dict[str, Any]:
        """As data again, that JSON can hold: what `of` reads back."""
        bounds = self.bounds
        if bounds == UNBOUND:
            return str(self.permission)
        times = {"from": bounds.since, "until": bounds.until}
        data = {
            "permission": str(self.permission),
            "tenant": bounds.tenant_id,
            "brand": bounds.brand_id,
            **{key: at.isoformat().replace("+00:00", "Z") for key, at in times.items() if at is not None},
            "level": bounds.level,
            "if": dump_condition(bounds.condition) if bounds.condition else None,
        }
        return {key: value for key, value in data.items() if value}


@dataclass(frozen=True, slots=True)
class Role:
    """What its holders may and may not do, beside what the roles that it inherits from say."""

    name: str
    rules: tuple[Rule, ...] = ()
    inherits: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        name: str,
        *,
        allow: Iterable[str | Mapping[str, Any] | Rule] = (),
        deny: Iterable[str | Mapping[str, Any] | Rule] = (),
        inherits: Iterable[str] = (),
    ) -> Self:
        """From rules as data, see `Rule.of`, which says what is raised."""
        path = f"roles.{name}"
        allowed = [Rule.of(data, Effect.ALLOW, path=f"{path}.allow[{n}]") for n, data in enumerate(allow)]
        denied = [Rule.of(data, Effect.DENY, path=f"{path}.deny[{n}]") for n, data in enumerate(deny)]
        return cls(name, (*allowed, *denied), tuple(inherits))

    @property
    def allow(self) -> tuple[Rule, ...]:
        return tuple(rule for rule in self.rules if rule.effect is Effect.ALLOW)

    @property
    def deny(self) -> tuple[Rule, ...]:
        return tuple(rule for rule in self.rules if rule.effect is Effect.DENY)


@dataclass(frozen=True, slots=True)
class Grant:
    """One rule for one subject, without a role. `author` is the id of who gave it, in the same tenant."""

    id: str
    tenant_id: str
    subject_id: str
    rule: Rule
    author: str = ""


_KEYS = ("permission", "tenant", "brand", "from", "until", "level", "if")


def _bounds(data: Mapping[str, Any], path: str) -> Bounds:
    level = data.get("level", 0)
    if not isinstance(level, int) or isinstance(level, bool):
        raise RuleError("'level' is a whole number", path=path)
    condition = parse_condition(data["if"], path=f"{path}.if") if "if" in data else None
    return Bounds(
        tenant_id=_text(data, "tenant", path) or "",
        brand_id=_text(data, "brand", path) or "",
        since=_instant(data, "from", path),
        until=_instant(data, "until", path),
        level=level,
        condition=condition,
    )


def _text(data: Mapping[str, Any], key: str, path: str) -> str | None:
    if key not in data:
        return None
    value = data[key]
    if not isinstance(value, str) or not 0 < len(value) <= 200:
        raise RuleError(f"{key!r} is a text of 1 to 200 characters", path=path)
    return value


def _instant(data: Mapping[str, Any], key: str, path: str) -> datetime | None:
    if key not in data:
        return None
    try:
        return parse_instant(data[key])
    except ValueError as error:
        raise RuleError(str(error), path=f"{path}.{key}") from None


def target_predicate(permission: Permission, subject: Subject) -> Predicate:
    """The objects that the permission's target reaches from `subject`."""
    if permission.reach is Reach.NOTHING:
        return Compare.of("id", "eq", permission.target)
    return reach_predicate(permission.reach, subject)


def reach_predicate(reach: Reach, subject: Subject) -> Predicate:
    if reach is Reach.ALL:
        return EVERYTHING
    if reach is Reach.NOTHING or not subject.tenant_id or (reach is Reach.OWN and not subject.id):
        return NOTHING
    in_tenant = Compare.of("tenant_id", "eq", subject.tenant_id)
    return in_tenant if reach is Reach.TENANT else All((in_tenant, Compare.of("owner_id", "eq", subject.id)))


def _spoken(bounds: Bounds) -> Iterable[str]:
    if bounds.tenant_id:
        yield f"in tenant {bounds.tenant_id}"
    if bounds.brand_id:
        yield f"in brand {bounds.brand_id}"
    if bounds.since:
        yield f"from {bounds.since.isoformat()}"
    if bounds.until:
        yield f"until {bounds.until.isoformat()}"
    if bounds.level:
        yield f"at level {bounds.level}"
    if bounds.condition:
        yield f"if {dump_condition(bounds.condition)}"
