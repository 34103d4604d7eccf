"""Who may do what to which objects: a permission library that stands alone. It does no I/O and knows no framework.

    policy = Policy([
        Role.of("player", allow=["wallet:read:own"]),
        Role.of("support", allow=["*:read:tenant"], deny=["audit:read:all"], inherits=["player"]),
    ])
    anna = Subject("anna", tenant_id="acme", roles=("support",))
    policy.check(anna, "wallet", "read", Object("w1", owner_id="ben", tenant_id="acme"))    # True
    policy.filter(anna.roles, "wallet", "read")    # the Scope to turn into a store's query, for lists

Nothing is allowed unless a role allows it, and a denial wins over every allowance. `permission.py` has the grammar.
"""

from libs.access_engine.permission import Permission, PermissionSyntaxError, Reach
from libs.access_engine.policy import Policy, PolicyError, Role, RoleCycle, Roles, UnknownRole
from libs.access_engine.scope import Object, Scope, Subject

__all__ = [
    "Object",
    "Permission",
    "PermissionSyntaxError",
    "Policy",
    "PolicyError",
    "Reach",
    "Role",
    "RoleCycle",
    "Roles",
    "Scope",
    "Subject",
    "UnknownRole",
]
