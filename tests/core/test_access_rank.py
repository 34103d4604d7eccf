"""Who may administer whom, and what is no tenant's alone."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from libs.access_engine import Role
from libs.core.access import BUILT_IN, CATALOGUE, Access
from libs.core.clock import SystemClock
from libs.core.context import Caller
from libs.core.errors import Forbidden
from libs.core.mongo import Mongo
from libs.core.redis import Redis


def caller(*roles: str, subject: str = "anna") -> Caller:
    return Caller(tenant_id="acme", subject=subject, roles=roles, session_id="s1", kind="user")


@pytest.fixture
async def access(mongo: Mongo, redis: Redis) -> AsyncIterator[Access]:
    async with Access(mongo.core, redis, SystemClock(), platform_tenant="house", poll_s=60) as access:
        yield access


class TestOutranks:
    @pytest.mark.parametrize(
        ("subject", "author", "does"),
        [
            ("player", "operator", False),  # what is one's own is no rank
            ("operator", "operator", False),
            ("admin", "operator", True),
            ("admin", "admin", False),
            ("operator", "player", True),
            ("a role that is gone", "player", False),
        ],
    )
    async def test_by_roles(self, access: Access, subject: str, author: str, does: bool) -> None:
        assert bool(access.outranks(caller(subject, subject="ben"), caller(author))) is does

    async def test_by_a_grant(self, access: Access) -> None:
        await access.grant(caller("admin"), "ben", "wallet:secret:tenant", reason="test")
        assert access.outranks(caller(subject="ben"), caller("operator")) == ["allow wallet:secret:tenant"]

    async def test_a_key_is_outranked_beyond_its_scopes(self, access: Access) -> None:
        key = replace(caller("admin"), scopes=("user:suspend:tenant",))
        assert not access.outranks(caller("player", subject="ben"), key)
        assert access.outranks(caller("operator", subject="ben"), key)


class TestWiderRoles:
    async def test_denials_count_as_well(self, access: Access) -> None:
        await access.publish([Role.of("blind", deny=["audit:export:tenant"])], after=0, actor="test", reason="test")
        assert access.wider_roles(caller("operator"), ["blind"]) == ["deny audit:export:tenant"]
        assert access.wider_roles(caller("admin"), ["blind"]) == []


class TestDemandShared:
    HOUSE = replace(caller("admin"), tenant_id="house")

    async def test_a_tenants_administrator_may_not(self, access: Access) -> None:
        access.demand(caller("admin"), "policy:manage")
        with pytest.raises(Forbidden):
            access.demand_shared(caller("admin"), "policy:manage")

    async def test_the_platforms_may(self, access: Access) -> None:
        access.demand_shared(self.HOUSE, "policy:manage")

    @pytest.mark.parametrize("less", [{"roles": ("operator",)}, {"scopes": ("user:read:all",)}])
    async def test_others_of_the_platform_may_not(self, access: Access, less: dict[str, Any]) -> None:
        with pytest.raises(Forbidden):
            access.demand_shared(replace(self.HOUSE, **less), "policy:manage")

    async def test_without_a_platforms_tenant_nobody_may(self, mongo: Mongo, redis: Redis) -> None:
        access = Access(mongo.core, redis, SystemClock())
        with pytest.raises(Forbidden):
            access.demand_shared(self.HOUSE, "policy:manage")


class TestLint:
    async def test_knows_what_is_asked_for(self, access: Access) -> None:
        roles = [Role.of("cashier", allow=["wallet:read:tenant", "wallet:raed:tenant"], inherits=["player"])]
        assert [(finding.code, finding.where) for finding in access.lint(roles)] == [("unknown-action", "role cashier")]

    def test_the_catalogue_holds_what_the_built_in_roles_name(self) -> None:
        named = {(r.permission.resource, r.permission.action) for role in BUILT_IN for r in role.rules}
        assert {(resource, action) for resource, action in named if resource != "*"} <= {
            (resource, action) for resource, actions in CATALOGUE.items() for action in actions
        }


class TestLocksOut:
    async def test_an_author_out_of_what_they_did(self, access: Access) -> None:
        nobody, renamed = [Role.of("admin", allow=["user:read:tenant"])], [Role.of("cashier")]
        assert access.locks_out(caller("admin"), nobody, "policy:manage:tenant")
        assert not access.locks_out(caller("admin"), renamed, "policy:manage:tenant")
