"""The same rules in pycasbin, as its documentation has roles, denials and functions of one's own."""

from collections.abc import Iterable

import casbin  # type: ignore[import-untyped]
from casbin.model import Model  # type: ignore[import-untyped]

from libs.access_engine import Effect, Object, Role, Subject

# The cheap comparisons first: its evaluator stops at the first that is false.
_MODEL = """
[request_definition]
r = sub, res, act, obj

[policy_definition]
p = role, res, act, target, eft

[role_definition]
g = _, _

[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))

[matchers]
m = {matcher}
"""
_MATCHER = (
    '(p.res == "*" || p.res == r.res) && (p.act == "*" || p.act == r.act)'
    " && g(r.sub.id, p.role) && reaches(p.target, r.sub, r.obj)"
)


def enforcer(roles: Iterable[Role], members: Iterable[Subject]) -> casbin.Enforcer:
    model = Model()
    model.load_model_from_text(_MODEL.replace("{matcher}", _MATCHER))
    enforcer = casbin.Enforcer(model)
    enforcer.add_function("reaches", _reaches)
    for role in roles:
        for parent in role.inherits:
            enforcer.add_grouping_policy(role.name, parent)
        for rule in role.rules:
            effect = "allow" if rule.effect is Effect.ALLOW else "deny"
            enforcer.add_policy(role.name, *str(rule.permission).split(":"), effect)
    for member in members:
        for name in member.roles:
            enforcer.add_grouping_policy(member.id, name)
    return enforcer


def _reaches(target: str, subject: Subject, obj: Object) -> bool:
    if target in ("all", "*"):
        return True
    if target == "tenant":
        return obj.tenant_id == subject.tenant_id
    if target == "own":
        return obj.tenant_id == subject.tenant_id and obj.owner_id == subject.id
    return target == obj.id
