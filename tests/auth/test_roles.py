"""Roles given and taken, policies published, single permissions granted: never more than their author holds."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from libs.core.access import Access
from libs.core.context import Caller, Context
from libs.core.errors import Forbidden, InvalidInput, NotFound, Refusal, Unauthenticated
from libs.core.testing import eventually
from services.auth.commands import grants, roles, sessions
from services.auth.commands.devices import Device
from services.auth.commands.grants import NewGrant
from services.auth.commands.login import login
from services.auth.commands.roles import NewRole
from services.auth.commands.tokens import SignedIn
from services.auth.domain.identifiers import parse_identifier
from services.auth.domain.users import User
from services.auth.schema import schema
from services.auth.store import users
from tests.auth.conftest import PASSWORD, House


async def admin(house: House, who: str = "root", **fields: Any) -> Context:
    return house.context(await house.user(who, roles=("admin",), password="", **fields))


async def signed_in(house: House, user: User) -> SignedIn:
    identifier = parse_identifier(user.email, "email")
    result = await login(house.auth, house.context(), identifier, PASSWORD, device=Device())
    assert isinstance(result, SignedIn)
    return result


async def roles_of(house: House, user_id: str) -> tuple[str, ...]:
    user = await users.load(house.auth.database, None, "demo", user_id)
    assert user is not None
    return user.roles


def access(house: House) -> Access:
    return house.auth.platform.access


class TestAssign:
    async def test_gives_and_takes_and_tells(self, house: House) -> None:
        ann, by = await house.user(password=""), await admin(house)
        changed = await roles.assign(house.auth, by, ann.id, ["operator"], "promoted")
        assert changed.roles == ("operator",)
        [event] = await house.events("user.role_changed")
        assert event.data == {"user_id": ann.id, "before": ["player"], "after": ["operator"]}
        [row] = await house.rows("user.role_changed")
        assert (row["actor"], row["before"], row["after"]) == ("root-id", ["player"], ["operator"])

    async def test_what_is_so_already_changes_nothing(self, house: House) -> None:
        ann, by = await house.user(password=""), await admin(house)
        await roles.assign(house.auth, by, ann.id, ["player", "player"], "promoted")
        assert await house.rows("user.role_changed") == []

    async def test_a_token_with_the_old_roles_is_refused_and_the_session_goes_on(self, house: House) -> None:
        chief, by = await house.user("chief", roles=("admin",)), await admin(house)
        tokens = await signed_in(house, chief)
        assert (await house.of_token(tokens)).caller.roles == ("admin",)
        await roles.assign(house.auth, by, chief.id, ["player"], "demoted")
        await house.auth.platform.revocations.reload()
        with pytest.raises(Unauthenticated):
            await house.of_token(tokens)
        # In the same second, by a clock that stands still: the new token is good all the same.
        tokens = await sessions.refresh(house.auth, house.context(), tokens.refresh_token)
        assert (await house.of_token(tokens)).caller.roles == ("player",)

    async def test_taken_back_in_the_same_second(self, house: House) -> None:
        ann, by = await house.user(), await admin(house)
        tokens = await signed_in(house, ann)
        await roles.assign(house.auth, by, ann.id, ["admin"], "by mistake")
        tokens = await sessions.refresh(house.auth, house.context(), tokens.refresh_token)
        await roles.assign(house.auth, by, ann.id, ["player"], "that was a mistake")
        await house.auth.platform.revocations.reload()
        with pytest.raises(Unauthenticated):
            await house.of_token(tokens)
        tokens = await sessions.refresh(house.auth, house.context(), tokens.refresh_token)
        assert (await house.of_token(tokens)).caller.roles == ("player",)

    async def test_another_process_hears_of_it(self, house: House, new_house: Any) -> None:
        elsewhere = await new_house()
        chief, by = await house.user("chief", roles=("admin",)), await admin(house)
        tokens = await signed_in(house, chief)
        await roles.assign(house.auth, by, chief.id, ["player"], "demoted")

        async def refused() -> bool:
            try:
                await elsewhere.of_token(tokens)
            except Unauthenticated:
                return True
            return False

        assert await eventually(refused, within_s=4)

    async def test_no_role_wider_than_the_authors(self, house: House) -> None:
        deputy, ann = await house.user("deputy", roles=("operator",), password=""), await house.user(password="")
        chief = await admin(house)
        await access(house).grant(chief.caller, deputy.id, "role:assign:tenant", reason="deputy")
        by = house.context(deputy)
        with pytest.raises(Refusal) as caught:
            await roles.assign(house.auth, by, ann.id, ["player", "admin"], "promoted")
        assert (caught.value.code, caught.value.details["beyond"]) == ("ROLES_TOO_WIDE", ["allow *:*:tenant"])
        assert (await roles.assign(house.auth, by, ann.id, ["player", "operator"], "promoted")).roles

    async def test_nor_taken_away(self, house: House) -> None:
        """From one of no rank: what a role denies is beyond its author as well."""
        chief = await admin(house)
        jail = NewRole("jail", deny=("audit:export:tenant",))
        await roles.publish(house.auth, chief, [jail], after=0, reason="test", accept_findings=True)
        deputy = await house.user("deputy", roles=("operator",), password="")
        await access(house).grant(chief.caller, deputy.id, "role:assign:tenant", reason="deputy")
        ann = await house.user(roles=("jail", "player"), password="")
        with pytest.raises(Refusal) as caught:
            await roles.assign(house.auth, house.context(deputy), ann.id, ["player"], "freed")
        assert caught.value.code == "ROLES_TOO_WIDE"

    async def test_not_to_oneself(self, house: House) -> None:
        by = await admin(house)
        with pytest.raises(Refusal) as caught:
            await roles.assign(house.auth, by, "root-id", ["admin", "operator"], "why not")
        assert caught.value.code == "NOT_TO_ONESELF"

    async def test_not_to_one_of_higher_rank(self, house: House) -> None:
        chief = await admin(house)
        deputy = await house.user("deputy", roles=("operator",), password="")
        await access(house).grant(chief.caller, deputy.id, "role:assign:tenant", reason="deputy")
        with pytest.raises(Refusal) as caught:
            await roles.assign(house.auth, house.context(deputy), "root-id", ["player"], "mutiny")
        assert caught.value.code == "USER_OUTRANKS_YOU"

    async def test_two_who_demote_each_other_at_once(self, house: House, new_house: Any) -> None:
        """One is first. The other's token is not refused yet, and good for nothing all the same."""
        elsewhere = await new_house()
        ann, ben = await admin(house, "ann"), await admin(house, "ben")
        done = await asyncio.gather(
            roles.assign(house.auth, ann, "ben-id", ["player"], "mutiny"),
            roles.assign(elsewhere.auth, ben, "ann-id", ["player"], "mutiny"),
            return_exceptions=True,
        )
        assert sorted(type(each).__name__ for each in done) == ["Unauthenticated", "User"]
        assert sorted([await roles_of(house, "ann-id"), await roles_of(house, "ben-id")]) == [("admin",), ("player",)]

    async def test_not_in_another_tenant(self, house: House) -> None:
        eve, by = await house.user("eve", tenant="other", password=""), await admin(house)
        with pytest.raises(NotFound):
            await roles.assign(house.auth, by, eve.id, ["admin"], "reach")

    async def test_not_by_a_key(self, house: House) -> None:
        ann, by = await house.user(password=""), await admin(house)
        key = replace(by, caller=replace(by.caller, scopes=("*:*:tenant",), authenticated_at=None))
        with pytest.raises(Refusal) as caught:
            await roles.assign(house.auth, key, ann.id, ["admin"], "quick")
        assert caught.value.code == "REAUTHENTICATION_REQUIRED"

    async def test_a_role_that_there_is_not(self, house: House) -> None:
        ann, by = await house.user(password=""), await admin(house)
        with pytest.raises(InvalidInput):
            await roles.assign(house.auth, by, ann.id, ["emperor"], "promoted")
        ben = await house.user("ben", roles=("gone", "player"), password="")
        assert (await roles.assign(house.auth, by, ben.id, ["player"], "tidied")).roles == ("player",)


class TestPublish:
    CASHIER = NewRole("cashier", allow=("wallet:read:tenant",), inherits=("player",))

    async def test_is_in_force_at_once_and_written_down(self, house: House) -> None:
        done = await roles.publish(
            house.auth, await admin(house), [self.CASHIER], after=0, reason="cash", accept_findings=False
        )
        assert (done.version, done.findings) == (1, [])
        cashier = Caller("other", "eve", ("cashier",), kind="user")
        assert access(house).allows(cashier, "wallet:read")
        [row] = await house.rows("policy.published")
        assert (row["before"], row["after"], row["reason"]) == (0, 1, "cash")

    async def test_not_by_another_tenants_administrator(self, house: House) -> None:
        by = await admin(house, "eve", tenant="other")
        with pytest.raises(Forbidden):
            await roles.publish(house.auth, by, [self.CASHIER], after=0, reason="cash", accept_findings=False)
        with pytest.raises(Forbidden):
            roles.lint_policy(house.auth, by, [self.CASHIER])

    async def test_what_the_linter_finds_has_to_be_accepted(self, house: House) -> None:
        by, slip = await admin(house), replace(self.CASHIER, allow=("wallet:raed:tenant",))
        with pytest.raises(Refusal) as caught:
            await roles.publish(house.auth, by, [slip], after=0, reason="cash", accept_findings=False)
        assert caught.value.code == "POLICY_DOUBTFUL"
        assert [finding["code"] for finding in caught.value.details["findings"]] == ["unknown-action"]
        done = await roles.publish(house.auth, by, [slip], after=0, reason="cash", accept_findings=True)
        assert [finding.code for finding in done.findings] == ["unknown-action"]

    @pytest.mark.parametrize(
        "role",
        [NewRole("a", inherits=("a",)), NewRole("a", inherits=("nobody",))],
    )
    async def test_what_is_no_policy_cannot_be_accepted(self, house: House, role: NewRole) -> None:
        with pytest.raises((Refusal, InvalidInput)):
            await roles.publish(house.auth, await admin(house), [role], after=0, reason="x", accept_findings=True)

    @pytest.mark.parametrize("rule", ["wallet:read", '{"permission": "a:b:own", "if": {"$where": "1"}}', "{"])
    async def test_what_is_no_rule(self, house: House, rule: str) -> None:
        with pytest.raises(InvalidInput):
            roles.lint_policy(house.auth, await admin(house), [NewRole("a", allow=(rule,))])

    async def test_nobody_locks_themselves_out(self, house: House) -> None:
        less = NewRole("admin", allow=("user:read:tenant",))
        with pytest.raises(Refusal) as caught:
            await roles.publish(house.auth, await admin(house), [less], after=0, reason="x", accept_findings=True)
        assert caught.value.code == "POLICY_LOCKS_YOU_OUT"

    async def test_nor_gives_what_they_do_not_hold(self, house: House) -> None:
        chief, clerk = await admin(house), await house.user("clerk", roles=("operator",), password="")
        await access(house).grant(chief.caller, clerk.id, "policy:manage:tenant", reason="deputy")
        with pytest.raises(Refusal) as caught:
            await roles.publish(
                house.auth, house.context(clerk), [NewRole("operator", allow=("*:*:tenant",))],
                after=0, reason="mine", accept_findings=True,
            )  # fmt: skip
        assert caught.value.code == "POLICY_TOO_WIDE"

    async def test_on_an_older_version_than_the_newest(self, house: House) -> None:
        by = await admin(house)
        await roles.publish(house.auth, by, [self.CASHIER], after=0, reason="cash", accept_findings=False)
        with pytest.raises(Refusal) as caught:
            await roles.publish(house.auth, by, [self.CASHIER], after=0, reason="cash", accept_findings=False)
        assert caught.value.code == "POLICY_CHANGED"
        assert len(await house.rows("policy.published")) == 1

    async def test_of_two_at_once_one_wins(self, house: House, new_house: Any) -> None:
        by = await admin(house)
        done = await asyncio.gather(
            *(
                roles.publish(at.auth, by, [self.CASHIER], after=0, reason="cash", accept_findings=False)
                for at in (house, await new_house()) * 2
            ),
            return_exceptions=True,
        )
        assert sorted(getattr(each, "code", "") for each in done) == ["", *["POLICY_CHANGED"] * 3]
        assert len(await house.rows("policy.published")) == 1


class TestGrants:
    async def test_given_and_revoked(self, house: House) -> None:
        ann, by = await house.user(password=""), await admin(house)
        until = house.clock.now() + timedelta(days=1)
        new = NewGrant(ann.id, "wallet:freeze:tenant", until=until, level=2)
        given = await grants.grant(house.auth, by, new, "on call")
        holder = replace(house.context(ann).caller, level=2)
        assert access(house).allows(holder, "wallet:freeze")
        assert not access(house).allows(replace(holder, level=1), "wallet:freeze")
        await grants.revoke(house.auth, by, given.id, "back")
        assert not access(house).allows(holder, "wallet:freeze")
        assert [row["action"] for row in await house.rows()] == ["permission.granted", "permission.revoked"]

    async def test_no_wider_than_held(self, house: House) -> None:
        chief, clerk = await admin(house), await house.user("clerk", roles=("operator",), password="")
        ann = await house.user(password="")
        await access(house).grant(chief.caller, clerk.id, "grant:manage:tenant", reason="deputy")
        by = house.context(clerk)
        for wider in ("*:*:tenant", "role:assign:tenant", "user:*:tenant"):
            with pytest.raises(Refusal) as caught:
                await grants.grant(house.auth, by, NewGrant(ann.id, wider), "a favour")
            assert caught.value.code == "GRANT_TOO_WIDE"
        assert (await grants.grant(house.auth, by, NewGrant(ann.id, "wallet:read:tenant"), "a favour")).id

    async def test_not_to_oneself_who_would_keep_it(self, house: House) -> None:
        by = await admin(house)
        with pytest.raises(Refusal) as caught:
            await grants.grant(house.auth, by, NewGrant("root-id", "*:*:tenant"), "to keep")
        assert caught.value.code == "NOT_TO_ONESELF"

    async def test_not_to_others_of_higher_rank(self, house: House) -> None:
        chief, clerk = await admin(house), await house.user("clerk", roles=("operator",), password="")
        await access(house).grant(chief.caller, clerk.id, "grant:manage:tenant", reason="deputy")
        new = NewGrant("root-id", "wallet:read:tenant", effect="deny")
        with pytest.raises(Refusal) as caught:
            await grants.grant(house.auth, house.context(clerk), new, "mutiny")
        assert caught.value.code == "USER_OUTRANKS_YOU"

    async def test_a_denial_is_not_lifted_by_whom_it_is_for(self, house: House) -> None:
        chief, other = await admin(house), await admin(house, "chief")
        new = NewGrant("chief-id", "wallet:freeze:tenant", effect="deny")
        denied = await grants.grant(house.auth, chief, new, "under inquiry")
        with pytest.raises(Refusal):
            await grants.revoke(house.auth, other, denied.id, "I am innocent")
        assert not access(house).allows(other.caller, "wallet:freeze")

    async def test_neither_for_nor_from_another_tenant(self, house: House) -> None:
        eve, by = await house.user("eve", tenant="other", password=""), await admin(house)
        with pytest.raises(NotFound):
            await grants.grant(house.auth, by, NewGrant(eve.id, "wallet:read:tenant"), "reach")
        there = await admin(house, "boss", tenant="other")
        given = await grants.grant(house.auth, there, NewGrant(eve.id, "wallet:read:tenant"), "help")
        with pytest.raises(NotFound):
            await grants.revoke(house.auth, by, given.id, "reach")

    async def test_a_refused_one_leaves_nothing(self, house: House) -> None:
        ann, by = await house.user(password=""), await admin(house)
        with pytest.raises(InvalidInput):
            await grants.grant(house.auth, by, NewGrant(ann.id, "wallet:read:tenant", condition={"$gt": 1}), "odd")
        assert await house.rows() == []
        assert await access(house).grants_of("demo", ann.id) == []


async def ask(context: Context, query: str, **variables: Any) -> Any:
    return await schema.execute(query, variable_values=variables, context_value=context)


class TestSchema:
    async def test_roles_and_the_policy(self, house: House) -> None:
        query = "{ roles { name builtIn } policy { version newest } policyVersions { edges { cursor } } }"
        answer = await ask(await admin(house), query)
        assert not answer.errors
        assert [role["name"] for role in answer.data["roles"]] == ["admin", "operator", "player", "service"]
        assert answer.data["policy"] == {"version": 0, "newest": 0}

    async def test_the_policy_is_the_platforms(self, house: House) -> None:
        by = await admin(house, "eve", tenant="other")
        for query in ("{ policy { version } }", "{ policyVersions { edges { cursor } } }", "{ signingKeys { id } }"):
            assert isinstance((await ask(by, query)).errors[0].original_error, Forbidden)

    async def test_a_policy_from_its_draft_to_its_history(self, house: House) -> None:
        by = await admin(house)
        drafted = await ask(
            by, "query ($roles: [RoleInput!]!) { policyFindings(roles: $roles) { code where } }",
            roles=[{"name": "cashier", "allow": ["wallet:raed:tenant"]}],
        )  # fmt: skip
        assert drafted.data == {"policyFindings": [{"code": "unknown-action", "where": "role cashier"}]}
        mutation = """mutation ($input: PublishPolicyInput!) { publishPolicy(input: $input) {
            ... on PolicyPublished { version findings { code } } ... on Problem { code details } } }"""
        rule = '{"permission":"wallet:read:tenant","if":{"object.currency":{"eq":"EUR"}}}'
        made = {"after": 0, "roles": [{"name": "cashier", "allow": [rule]}], "reason": "cash"}
        assert (await ask(by, mutation, input=made)).data == {"publishPolicy": {"version": 1, "findings": []}}
        assert (await ask(by, mutation, input=made)).data["publishPolicy"]["code"] == "POLICY_CHANGED"
        history = await ask(by, "{ policyVersions { edges { node { version actor roles { name allow } } } } }")
        [edge] = history.data["policyVersions"]["edges"]
        assert edge["node"] == {"version": 1, "actor": "root-id", "roles": [{"name": "cashier", "allow": [rule]}]}

    async def test_a_grant(self, house: House) -> None:
        ann, by = await house.user(password=""), await admin(house)
        mutation = """mutation ($input: GrantPermissionInput!) { grantPermission(input: $input) {
            ... on Grant { id userId effect ruleText condition } ... on Problem { code rule } } }"""
        condition = {"object.currency": {"eq": "EUR"}}
        asked = {"userId": ann.id, "permission": "wallet:read:tenant", "reason": "help", "condition": condition}
        made = (await ask(by, mutation, input=asked)).data["grantPermission"]
        assert (made["userId"], made["effect"], made["condition"]) == (ann.id, "ALLOW", condition)
        listed = await ask(by, "query ($id: ID) { grants(userId: $id) { edges { node { id author } } } }", id=ann.id)
        assert listed.data["grants"]["edges"] == [{"node": {"id": made["id"], "author": "root-id"}}]
        wrong = await ask(by, mutation, input=asked | {"condition": [1]})
        assert isinstance(wrong.errors[0].original_error, InvalidInput)

    async def test_roles_are_not_part_of_a_profile(self, house: House) -> None:
        ann = await house.user(password="")
        mutation = "mutation ($input: ProfileInput!) { updateProfile(input: $input) { __typename } }"
        for more in ({"roles": ["admin"]}, {"status": "ACTIVE"}, {"tenantId": "other"}):
            assert (await ask(house.context(ann), mutation, input={"name": "Ann"} | more)).errors
        assert await roles_of(house, ann.id) == ("player",)
