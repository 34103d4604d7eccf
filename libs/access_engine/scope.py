"""What a set of rules reaches of one kind of object: the answer that `check` and `filter` share."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Self

from libs.access_engine.permission import Reach
from libs.access_engine.predicate import EVERYTHING, NOTHING, Member, Predicate, all_of, any_of, negated
from libs.access_engine.rule import UNBOUND, Bounds, Effect, Rule, reach_predicate
from libs.access_engine.subject import Object, Subject

_NONE: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Scope:
    """The objects within `reach` or among `ids`, except those within `denied_reach` or among `denied_ids`.

    `allow_if` and `deny_if` are the rules whose bounds must be looked at each time, as far as they could still matter.
    `within` narrows all of it.
    """

    reach: Reach = Reach.NOTHING
    ids: frozenset[str] = _NONE
    denied_reach: Reach = Reach.NOTHING
    denied_ids: frozenset[str] = _NONE
    allow_if: tuple[Rule, ...] = ()
    deny_if: tuple[Rule, ...] = ()
    within: "Scope | None" = None
    _plain: bool = field(default=True, init=False, repr=False, compare=False)
    _allowing: "_ByTarget" = field(init=False, repr=False, compare=False)
    _denying: "_ByTarget" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        plain = not self.allow_if and not self.deny_if and self.within is None
        object.__setattr__(self, "_plain", plain)
        object.__setattr__(self, "_allowing", _ByTarget.of(self.allow_if))
        object.__setattr__(self, "_denying", _ByTarget.of(self.deny_if))

    @classmethod
    def of(cls, rules: Iterable[Rule]) -> "Scope":
        """In its simplest form: what is wholly denied is not kept as allowed, so that `nothing` tells the truth.

        As the reaches are nested, the union of several is the widest of them.
        """
        sides = {Effect.ALLOW: _Side(), Effect.DENY: _Side()}
        for rule in rules:
            sides[rule.effect].add(rule)
        return cls._simplest(sides[Effect.ALLOW], sides[Effect.DENY])

    @classmethod
    def _simplest(cls, allowed: "_Side", denied: "_Side") -> "Scope":
        if denied.reach is Reach.ALL:
            return _NOTHING
        reach = allowed.reach if allowed.reach > denied.reach else Reach.NOTHING
        ids = frozenset(allowed.ids - denied.ids)
        allow_if = [rule for rule in allowed.bounded if not denied.covers(rule) and not _covered(rule, reach, ids)]
        if reach is Reach.NOTHING and not ids and not allow_if:
            return _NOTHING
        deny_if = [rule for rule in denied.bounded if not denied.covers(rule)]
        return cls(reach, ids, denied.reach, frozenset(denied.ids), tuple(allow_if), tuple(deny_if))

    def narrowed(self, within: "Scope") -> "Scope":
        """What is in both."""
        if self.nothing or within.nothing:
            return _NOTHING
        if within.reach is Reach.ALL and within == _EVERYTHING:
            return self
        return Scope(
            self.reach, self.ids, self.denied_reach, self.denied_ids, self.allow_if, self.deny_if, within=within
        )

    @property
    def nothing(self) -> bool:
        """No object at all, whatever it is and whoever asks. `possible` knows more."""
        return self.reach is Reach.NOTHING and not self.ids and not self.allow_if

    @property
    def bounded(self) -> bool:
        """Whether it depends on more than where an object is: on the time, on conditions, on scopes."""
        return not self._plain

    @property
    def simple(self) -> bool:
        """One reach, without exceptions."""
        return self._plain and bool(self.reach) and not self.ids and not self.denied_reach and not self.denied_ids

    def possible(self, subject: Subject, now: datetime | None = None) -> bool:
        """Whether there may be an object that `subject` is permitted: not, if none of the rules is in force for it."""
        return not self.nothing if self._plain else self.predicate(subject, now) != NOTHING

    def at(self, subject: Subject, now: datetime) -> "Scope":
        """What it is for this subject at this instant: of the bounds, only conditions are left."""
        if self._plain:
            return self
        sides = {
            Effect.ALLOW: _Side(self.reach, set(self.ids)),
            Effect.DENY: _Side(self.denied_reach, set(self.denied_ids)),
        }
        for rule in (*self.allow_if, *self.deny_if):
            if rule.in_force(subject, now):
                condition = rule.bounds.condition
                sides[rule.effect].add(Rule(rule.permission, rule.effect, Bounds(condition=condition)))
        scope = self._simplest(sides[Effect.ALLOW], sides[Effect.DENY])
        return scope if self.within is None else scope.narrowed(self.within.at(subject, now))

    def permits(self, subject: Subject, obj: Object, now: datetime | None = None) -> bool:
        """`now` is the current instant unless it is given; it matters only to rules with a time."""
        # What `distance` says, in line: it is asked for every object of every request.
        if not (tenant_id := subject.tenant_id) or obj.tenant_id != tenant_id:
            away = 3
        elif not (subject_id := subject.id) or obj.owner_id != subject_id:
            away = 2
        else:
            away = 1
        if away <= self.denied_reach or obj.id in self.denied_ids:
            return False
        if self._plain:
            return away <= self.reach or obj.id in self.ids
        return self._permits(subject, obj, away, now or datetime.now(UTC))

    def _permits(self, subject: Subject, obj: Object, away: int, now: datetime) -> bool:
        if self.within is not None and not self.within.permits(subject, obj, now):
            return False
        if any(rule.applies(subject, obj, now) for rule in self._denying.reaching(obj, away)):
            return False
        if away <= self.reach or obj.id in self.ids:
            return True
        return any(rule.applies(subject, obj, now) for rule in self._allowing.reaching(obj, away))

    def predicate(self, subject: Subject, now: datetime | None = None) -> Predicate:
        """The objects that `permits` is true of, at `now`, as a predicate that a store can turn into its query."""
        now = now or datetime.now(UTC)
        scope = self.at(subject, now)
        allowed = _either(scope.reach, scope.ids, scope.allow_if, subject, now)
        denied = _either(scope.denied_reach, scope.denied_ids, scope.deny_if, subject, now)
        within = EVERYTHING if scope.within is None else scope.within.predicate(subject, now)
        return all_of([allowed, negated(denied), within])


def _either(reach: Reach, ids: frozenset[str], rules: Iterable[Rule], subject: Subject, now: datetime) -> Predicate:
    among = (Member.of("id", ids),) if ids else ()
    return any_of([reach_predicate(reach, subject), *among, *(rule.predicate(subject, now) for rule in rules)])


def distance(subject: Subject, obj: Object) -> Reach:
    """The narrowest reach from `subject` that includes `obj`. What is of another tenant is never one's own."""
    if not subject.tenant_id or obj.tenant_id != subject.tenant_id:
        return Reach.ALL
    return Reach.OWN if subject.id and obj.owner_id == subject.id else Reach.TENANT


@dataclass(slots=True)
class _Side:
    """The rules of one effect, taken together as far as they can be."""

    reach: Reach = Reach.NOTHING
    ids: set[str] = field(default_factory=set)
    bounded: dict[Rule, None] = field(default_factory=dict)

    def add(self, rule: Rule) -> None:
        if rule.bounds is not UNBOUND and rule.bounds != UNBOUND:
            self.bounded[rule] = None
        elif rule.reach is Reach.NOTHING:
            self.ids.add(rule.permission.target)
        else:
            self.reach = max(self.reach, rule.reach)

    def covers(self, rule: Rule) -> bool:
        return _covered(rule, self.reach, self.ids)


def _covered(rule: Rule, reach: Reach, ids: set[str] | frozenset[str]) -> bool:
    if rule.reach is Reach.NOTHING:
        return reach is Reach.ALL or rule.permission.target in ids
    return rule.reach <= reach


@dataclass(frozen=True, slots=True)
class _ByTarget:
    """Bounded rules by what they reach, so that ten thousand of them for as many ids cost what one does."""

    within: tuple[tuple[Rule, ...], ...] = ((), (), (), ())
    ids: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, rules: Sequence[Rule]) -> Self:
        if not rules:
            return _NO_RULES  # type: ignore[return-value]
        ids: dict[str, tuple[Rule, ...]] = {}
        for rule in rules:
            if rule.reach is Reach.NOTHING:
                ids[rule.permission.target] = (*ids.get(rule.permission.target, ()), rule)
        within = tuple(tuple(rule for rule in rules if rule.reach >= max(away, 1)) for away in range(4))
        return cls(within, ids)

    def reaching(self, obj: Object, away: int) -> Iterable[Rule]:
        yield from self.within[away]
        if obj.id is not None and self.ids:
            yield from self.ids.get(obj.id, ())


_NO_RULES: Final = _ByTarget()
_NOTHING: Final = Scope()
_EVERYTHING: Final = Scope(Reach.ALL)
