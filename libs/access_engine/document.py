"""A policy as a file, in YAML or JSON, with the catalogue and the tests that its authors write beside it.

    roles:
      player:
        allow: ["wallet:read:own"]
      support:
        inherits: [player]
        allow:
          - "wallet:read:tenant"
          - {permission: "wallet:freeze:tenant", level: 2, if: {object.status: {eq: open}}}
        deny: ["audit:read:all"]
    grants:
      - {id: g1, tenant: acme, subject: anna, author: root, allow: "wallet:close:w7", until: 2027-01-01T00:00:00Z}
    catalogue:                      # optional: what there is, for the linter
      wallet: [read, freeze, close]
      audit: [read]
    subjects:                       # whom the tests are about
      anna: {tenant: acme, roles: [support], level: 1}
    objects:
      w1: {owner: ben, tenant: acme, attributes: {status: open}}
    tests:
      - name: support reads the wallets of its tenant and freezes none without a second factor
        as: anna
        allowed: ["wallet:read w1"]
        denied: ["wallet:freeze w1", "audit:read"]

Strict: a key that is not known is refused, as what it was to say would not be heard. A subject's and an object's id is
its name, unless it has an `id`. What is tested without an object is tested with one of another tenant and nobody's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from libs.access_engine.condition import parse_instant
from libs.access_engine.permission import Permission, PermissionSyntaxError
from libs.access_engine.policy import Policy
from libs.access_engine.rule import Effect, Grant, Role, Rule
from libs.access_engine.subject import Object, Subject

T = TypeVar("T")


class DocumentError(ValueError):
    """This is no such file; `path` leads to where it goes wrong: "tests[2].as"."""

    def __init__(self, reason: str, *, path: str) -> None:
        super().__init__(f"{reason}, at {path or 'the top'}")
        self.path = path


@dataclass(frozen=True, slots=True)
class Question:
    """May the test's subject do `action` to that object? `text` is how the file says it."""

    text: str
    resource: str
    action: str
    obj: Object
    expected: bool


@dataclass(frozen=True, slots=True)
class PolicyTest:
    """`at` is the instant at which it is asked; None: now."""

    name: str
    subject: Subject
    questions: tuple[Question, ...]
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class PolicyDocument:
    roles: tuple[Role, ...]
    grants: tuple[Grant, ...] = ()
    catalogue: Mapping[str, tuple[str, ...]] | None = None
    subjects: Mapping[str, Subject] | None = None
    objects: Mapping[str, Object] | None = None
    tests: tuple[PolicyTest, ...] = ()

    def policy(self) -> Policy:
        """Raises `PolicyError`."""
        return Policy(self.roles, self.grants)


def parse_document(data: object) -> PolicyDocument:
    """What YAML or JSON made of the file. Raises `DocumentError`, or an error of a rule's: all are `ValueError`s."""
    top = _mapping(data, "", ("roles", "grants", "catalogue", "subjects", "objects", "tests"))
    roles = _each(top, "roles", _role)
    subjects = _each(top, "subjects", _subject)
    objects = _each(top, "objects", _object)
    grants = [_grant(each, f"grants[{n}]") for n, each in enumerate(_list(top, "grants", ""))]
    tests = [_test(each, f"tests[{n}]", subjects, objects) for n, each in enumerate(_list(top, "tests", ""))]
    catalogue = _each(top, "catalogue", _actions) if "catalogue" in top else None
    return PolicyDocument(tuple(roles.values()), tuple(grants), catalogue, subjects, objects, tuple(tests))


def parse_question(text: object, objects: Mapping[str, Object], path: str, *, expected: bool = True) -> Question:
    """From "wallet:read w1", or "wallet:read" where no object is meant."""
    words = text.split() if isinstance(text, str) else []
    if not 1 <= len(words) <= 2:
        raise DocumentError("a question reads 'resource:action object'", path=path)
    try:
        permission = Permission.parse(f"{words[0]}:all")
    except PermissionSyntaxError as error:
        raise DocumentError(str(error), path=path) from None
    if "*" in (permission.resource, permission.action):
        raise DocumentError("a question names one resource and one action", path=path)
    if len(words) == 2 and words[1] not in objects:
        raise DocumentError(f"there is no object {words[1]!r:.70}", path=path)
    obj = objects[words[1]] if len(words) == 2 else Object()
    return Question(" ".join(words), permission.resource, permission.action, obj, expected)


def _role(name: str, data: object, path: str) -> Role:
    fields = _mapping({} if data is None else data, path, ("inherits", "allow", "deny"))
    return Role.of(
        name,
        allow=_list(fields, "allow", path),
        deny=_list(fields, "deny", path),
        inherits=_texts(fields, "inherits", path),
    )


def _grant(data: object, path: str) -> Grant:
    bounds = ("brand", "from", "until", "level", "if")
    fields = _mapping(data, path, ("id", "tenant", "subject", "author", "allow", "deny", *bounds))
    given = [effect for effect in Effect if effect.value in fields]
    if len(given) != 1:
        raise DocumentError("a grant has either 'allow' or 'deny'", path=path)
    [effect] = given
    rule = {"permission": fields[effect.value], **{key: fields[key] for key in bounds if key in fields}}
    return Grant(
        id=_text(fields, "id", path),
        tenant_id=_text(fields, "tenant", path),
        subject_id=_text(fields, "subject", path),
        rule=Rule.of(rule, effect, path=path),
        author=_text(fields, "author", path, default=""),
    )


def _actions(name: str, data: object, path: str) -> tuple[str, ...]:
    return _texts({name: data}, name, "catalogue")


def _subject(name: str, data: object, path: str) -> Subject:
    fields = _mapping(
        {} if data is None else data, path, ("id", "tenant", "brand", "roles", "level", "scopes", "attributes")
    )
    level = fields.get("level", 0)
    if not isinstance(level, int) or isinstance(level, bool):
        raise DocumentError("'level' is a whole number", path=path)
    return Subject(
        id=_text(fields, "id", path, default=name),
        tenant_id=_text(fields, "tenant", path, default=""),
        roles=_texts(fields, "roles", path),
        brand_id=_text(fields, "brand", path, default=""),
        level=level,
        scopes=_texts(fields, "scopes", path) if "scopes" in fields else None,
        attributes=_mapping(fields.get("attributes", {}), f"{path}.attributes"),
    )


def _object(name: str, data: object, path: str) -> Object:
    fields = _mapping({} if data is None else data, path, ("id", "owner", "tenant", "attributes"))
    return Object(
        id=_text(fields, "id", path, default=name),
        owner_id=_text(fields, "owner", path, default="") or None,
        tenant_id=_text(fields, "tenant", path, default="") or None,
        attributes=_mapping(fields.get("attributes", {}), f"{path}.attributes"),
    )


def _test(data: object, path: str, subjects: Mapping[str, Subject], objects: Mapping[str, Object]) -> PolicyTest:
    fields = _mapping(data, path, ("name", "as", "at", "allowed", "denied"))
    name = _text(fields, "as", path)
    if name not in subjects:
        raise DocumentError(f"there is no subject {name!r:.70}", path=f"{path}.as")
    questions = tuple(
        parse_question(text, objects, f"{path}.{side}[{n}]", expected=side == "allowed")
        for side in ("allowed", "denied")
        for n, text in enumerate(_list(fields, side, path))
    )
    if not questions:
        raise DocumentError("a test has 'allowed' or 'denied', or it could not fail", path=path)
    try:
        at = parse_instant(fields["at"]) if "at" in fields else None
    except ValueError as error:
        raise DocumentError(str(error), path=f"{path}.at") from None
    return PolicyTest(_text(fields, "name", path, default=path), subjects[name], questions, at)


def _mapping(data: object, path: str, known: tuple[str, ...] | None = None) -> Mapping[str, Any]:
    if not isinstance(data, Mapping) or not all(isinstance(key, str) for key in data):
        raise DocumentError("this is a mapping of names to values", path=path)
    if known is not None and (unknown := [key for key in data if key not in known]):
        raise DocumentError(f"{unknown[0]!r:.70} is not known here, but {', '.join(known)}", path=path)
    return data


def _each(top: Mapping[str, Any], key: str, make: Callable[[str, object, str], T]) -> dict[str, T]:
    return {name: make(name, data, f"{key}.{name}") for name, data in _mapping(top.get(key, {}), key).items()}


def _list(fields: Mapping[str, Any], key: str, path: str) -> list[Any]:
    data = fields.get(key)
    if data is not None and not isinstance(data, list):
        raise DocumentError(f"{key!r} is a list", path=path)
    return data or []


def _texts(fields: Mapping[str, Any], key: str, path: str) -> tuple[str, ...]:
    data = _list(fields, key, path)
    if not all(isinstance(each, str) for each in data):
        raise DocumentError(f"{key!r} is a list of texts", path=path)
    return tuple(data)


def _text(fields: Mapping[str, Any], key: str, path: str, *, default: str | None = None) -> str:
    data = fields.get(key, default)
    if not isinstance(data, str):
        raise DocumentError(f"{key!r} is {'missing' if data is None else 'not a text'}", path=path)
    return data
