"""Who may do what to which objects: a permission library that stands alone. It does no I/O and knows no framework.

    policy = Policy([
        Role.of("player", allow=["wallet:read:own"]),
        Role.of("support", allow=["*:read:tenant"], deny=["audit:read:all"], inherits=["player"]),
    ])
    anna = Subject("anna", tenant_id="acme", roles=("support",))
    policy.check(anna, "wallet", "read", Object("w1", owner_id="ben", tenant_id="acme"))    # True
    policy.filter(anna, "wallet", "read").predicate(anna)    # to turn into a store's query, for lists

Nothing is allowed unless a rule allows it, and a denial wins over every allowance. README.md has the whole of it.
"""

from libs.access_engine.condition import ConditionError
from libs.access_engine.permission import Permission, PermissionSyntaxError, Reach
from libs.access_engine.policy import Policy, PolicyError, RoleCycle, Roles, UnknownRole
from libs.access_engine.rule import Bounds, Effect, Grant, Role, Rule, RuleError
from libs.access_engine.scope import Scope
from libs.access_engine.subject import Object, Subject

__all__ = [
    "Bounds",
    "ConditionError",
    "Effect",
    "Grant",
    "Object",
    "Permission",
    "PermissionSyntaxError",
    "Policy",
    "PolicyError",
    "Reach",
    "Role",
    "RoleCycle",
    "Roles",
    "Rule",
    "RuleError",
    "Scope",
    "Subject",
    "UnknownRole",
]
