"""Service accounts and their keys: what a key looks like, what it is good for, and when it is not."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from libs.core.context import Context
from libs.core.errors import InvalidInput, NotFound, RateLimited, Refusal, Unauthenticated
from libs.core.testing import eventually
from services.auth.commands import administration, api_keys, roles
from services.auth.commands.api_keys import KeyMade, NewKey
from services.auth.domain.api_keys import new_key, parse_key, parse_networks, secret_hash
from services.auth.domain.users import User
from services.auth.schema import schema
from tests.auth.conftest import House

SCOPES = ("wallet:read:tenant",)


async def admin(house: House, who: str = "root", **fields: Any) -> Context:
    return house.context(await house.user(who, roles=("admin",), password="", **fields))


async def account(house: House, by: Context, *names: str) -> User:
    return await api_keys.create_account(house.auth, by, "books", names or ("service",), "bookkeeping")


async def made(house: House, by: Context, **fields: Any) -> KeyMade:
    robot = fields.pop("account", None) or await account(house, by)
    return await api_keys.create(house.auth, by, NewKey(robot.id, "books", **{"scopes": SCOPES, **fields}))


async def exchanged(house: House, text: str, **context: Any) -> Context:
    token = (await api_keys.exchange(house.auth, house.context(**context), text)).access_token
    caller = await house.auth.platform.identity.authenticate(f"Bearer {token}")
    return replace(house.context(), caller=caller)


async def refused(house: House, text: str, **context: Any) -> bool:
    with pytest.raises(Refusal) as caught:
        await api_keys.exchange(house.auth, house.context(**context), text)
    assert (caught.value.code, caught.value.details) == ("API_KEY_REFUSED", {})
    return True


class TestFormat:
    def test_is_recognised_and_checked(self) -> None:
        text, key_id, hashed = new_key()
        parsed = parse_key(text)
        assert parsed and parsed[0] == key_id and secret_hash(parsed[1]) == hashed  # noqa: PT018
        assert text.startswith(f"ppk_{key_id}_")
        assert len(text) == 4 + 32 + 1 + 43 + 6

    def test_a_slip_is_seen_without_asking_anybody(self) -> None:
        text, *_ = new_key()
        for position in range(4, len(text)):
            slipped = text[:position] + ("a" if text[position] != "a" else "b") + text[position + 1 :]
            assert parse_key(slipped) is None

    @pytest.mark.parametrize("text", ["", "ppk_", "ppk_1_2", "x" * 86, "ppk_" + "0" * 32 + "_" + "é" * 49])
    def test_what_is_no_key(self, text: str) -> None:
        assert parse_key(text) is None

    def test_networks(self) -> None:
        assert parse_networks(["192.0.2.1", "2001:db8::/32"], "networks") == ("192.0.2.1/32", "2001:db8::/32")
        for wrong in ("192.0.2.1/24", "everywhere", ""):
            with pytest.raises(InvalidInput):
                parse_networks([wrong], "networks")


class TestCreateAccount:
    async def test_has_no_way_in_but_keys(self, house: House) -> None:
        robot = await account(house, await admin(house))
        assert (robot.kind, robot.roles, robot.password, robot.email) == ("service", ("service",), "", "")
        [event] = await house.events("service_account.created")
        assert event.data == {"account_id": robot.id, "roles": ["service"]}

    async def test_no_wider_than_its_author(self, house: House) -> None:
        clerk, chief = await house.user("clerk", roles=("operator",), password=""), await admin(house)
        access = house.auth.platform.access
        await access.grant(chief.caller, clerk.id, "serviceaccount:manage:tenant", reason="deputy")
        with pytest.raises(Refusal) as caught:
            await account(house, house.context(clerk), "admin")
        assert caught.value.code == "ROLES_TOO_WIDE"


class TestCreate:
    async def test_is_kept_as_a_hash_alone(self, house: House) -> None:
        key = await made(house, await admin(house))
        stored = await house.auth.database["api_keys"].find_one({"_id": key.key.id})
        secret = parse_key(key.text)
        assert stored and secret  # noqa: PT018
        assert secret[1] not in str(stored)
        for told in (await house.rows(), [event.data for event in await house.events()]):
            assert secret[1] not in str(told)
            assert stored["hash"] not in str(told)

    async def test_expires_in_any_case(self, house: House) -> None:
        by = await admin(house)
        assert (await made(house, by)).key.expires_at == house.clock.now() + timedelta(days=90)
        for wrong in (house.clock.now(), house.clock.now() + timedelta(days=367)):
            with pytest.raises(InvalidInput):
                await made(house, by, expires_at=wrong)

    async def test_no_wider_than_the_account(self, house: House) -> None:
        by = await admin(house)
        for wider in ("user:delete:tenant", "*:*:tenant", "wallet:*:tenant", "wallet:freeze:tenant"):
            with pytest.raises(Refusal) as caught:
                await made(house, by, scopes=(*SCOPES, wider))
            assert (caught.value.code, caught.value.rule) == ("SCOPES_TOO_WIDE", "apikey.account")

    async def test_no_wider_than_its_author(self, house: House) -> None:
        clerk, chief = await house.user("clerk", roles=("operator",), password=""), await admin(house)
        robot = await account(house, chief, "admin")
        await house.auth.platform.access.grant(chief.caller, clerk.id, "apikey:manage:tenant", reason="deputy")
        with pytest.raises(Refusal) as caught:
            await made(house, house.context(clerk), account=robot, scopes=("role:assign:tenant",))
        assert (caught.value.code, caught.value.rule) == ("SCOPES_TOO_WIDE", "apikey.author")
        with pytest.raises(Refusal) as caught:
            await made(house, house.context(clerk), account=robot)
        assert caught.value.code == "USER_OUTRANKS_YOU"

    @pytest.mark.parametrize("scopes", [(), ("wallet:read",), ("x",), ("wallet:read:" + "x" * 100,), ("a:b:own",) * 1])
    async def test_scopes_that_are_none(self, house: House, scopes: tuple[str, ...]) -> None:
        with pytest.raises((InvalidInput, Refusal)):
            await made(house, await admin(house), scopes=scopes)

    async def test_not_for_people(self, house: House) -> None:
        ann, by = await house.user(password=""), await admin(house)
        with pytest.raises(Refusal) as caught:
            await made(house, by, account=ann, scopes=("wallet:read:own",))
        assert caught.value.code == "NOT_A_SERVICE_ACCOUNT"

    async def test_not_for_an_account_of_another_tenant(self, house: House) -> None:
        theirs = await account(house, await admin(house, "eve", tenant="other"))
        with pytest.raises(NotFound):
            await made(house, await admin(house), account=theirs)

    async def test_not_by_a_key(self, house: House) -> None:
        by = await admin(house)
        robot = await account(house, by, "admin")
        key = await made(house, by, account=robot, scopes=("*:*:tenant",))
        with pytest.raises(Refusal) as caught:
            await made(house, await exchanged(house, key.text), account=robot)
        assert caught.value.code == "REAUTHENTICATION_REQUIRED"


class TestExchange:
    async def test_a_token_of_the_account_within_the_scopes(self, house: House) -> None:
        key = await made(house, await admin(house))
        caller = (await exchanged(house, key.text)).caller
        assert (caller.kind, caller.subject, caller.session_id) == ("service", key.key.account_id, key.key.id)
        assert (caller.scopes, caller.level, caller.authenticated_at) == (SCOPES, 1, None)
        access = house.auth.platform.access
        assert access.allows(caller, "wallet:read")
        assert not access.allows(caller, "wallet:create")  # which its account may

    async def test_what_the_account_loses_the_key_loses(self, house: House) -> None:
        by = await admin(house)
        robot = await account(house, by)
        key = await made(house, by, account=robot)
        before = await api_keys.exchange(house.auth, house.context(), key.text)
        await roles.assign(house.auth, by, robot.id, ["player"], "narrowed")
        await house.auth.platform.revocations.reload()
        with pytest.raises(Unauthenticated):
            await house.auth.platform.identity.authenticate(f"Bearer {before.access_token}")
        caller = (await exchanged(house, key.text)).caller
        scope = house.auth.platform.access.scope(caller, "wallet:read")
        assert not scope.permits(owner_id="ann-id", tenant_id="demo", id="w1")

    async def test_whatever_is_wrong_is_one_answer(self, house: House) -> None:
        by = await admin(house)
        key = await made(house, by)
        other, _, _ = new_key()
        forged = new_key()[0]
        swapped = key.text[:37] + forged[37:]
        for wrong in (other, swapped, key.text[:-1], "", key.text.upper(), "x" * 10_000):
            assert await refused(house, wrong)
        assert await exchanged(house, f" {key.text}\n")

    async def test_of_another_tenant(self, house: House) -> None:
        key = await made(house, await admin(house))
        assert await refused(house, key.text, tenant="other")

    async def test_expired(self, house: House) -> None:
        key = await made(house, await admin(house), expires_at=house.clock.now() + timedelta(minutes=2))
        made_of_it = await api_keys.exchange(house.auth, house.context(), key.text)
        assert made_of_it.expires_in_s == 120  # no token outlives its key
        house.clock.advance(minutes=2)
        assert await refused(house, key.text)

    async def test_from_where_it_is_allowed(self, house: House) -> None:
        key = await made(house, await admin(house), networks=("192.0.2.0/24", "2001:db8::/32"))
        for address in ("192.0.2.77", "::ffff:192.0.2.77", "2001:db8::1"):
            assert await exchanged(house, key.text, address=address)
        for address in ("198.51.100.1", "2001:db9::1", "", "localhost"):
            assert await refused(house, key.text, address=address)

    async def test_of_a_suspended_account(self, house: House) -> None:
        by = await admin(house)
        key = await made(house, by)
        await administration.suspend(house.auth, by, key.key.account_id, "odd calls")
        assert await refused(house, key.text)
        await administration.resume(house.auth, by, key.key.account_id, "explained")
        assert await exchanged(house, key.text)

    async def test_tries_of_an_address_slow_down_and_honest_ones_do_not(self, new_house: Any) -> None:
        house = await new_house(address_free_tries=3)
        key = await made(house, await admin(house))
        for _ in range(6):
            assert await exchanged(house, key.text)
        for _ in range(3):
            await refused(house, new_key()[0], address="203.0.113.1")
        with pytest.raises(RateLimited):
            await api_keys.exchange(house.auth, house.context(address="203.0.113.1"), new_key()[0])
        assert await exchanged(house, key.text)

    async def test_use_is_noted_coarsely(self, house: House) -> None:
        key = await made(house, await admin(house))
        for _ in range(3):
            await exchanged(house, key.text)
        house.clock.advance(minutes=59)
        await exchanged(house, key.text)
        assert len(await house.rows("api_key.used")) == 1
        house.clock.advance(minutes=1)
        await exchanged(house, key.text)
        assert len(await house.rows("api_key.used")) == 2

    async def test_of_many_uses_at_once_one_is_noted(self, house: House, new_house: Any) -> None:
        elsewhere = await new_house()
        key = await made(house, await admin(house))
        await asyncio.gather(*(exchanged(at, key.text) for at in (house, elsewhere) * 5))
        assert len(await house.rows("api_key.used")) == 1

    async def test_wrong_secrets_of_a_key_are_in_the_log(self, house: House) -> None:
        key = await made(house, await admin(house))
        await refused(house, key.text, address="198.51.100.1", tenant="other")
        text, _, secret = new_key()
        await house.auth.database["api_keys"].update_one({"_id": key.key.id}, {"$set": {"hash": secret}})
        await refused(house, key.text, address="198.51.100.1")
        [row] = await house.rows("api_key.refused")
        assert (row["resource"], row["reason"], row["origin"]) == (key.key.id, "wrong secret", "198.51.100.1")
        assert text not in str(row)


class TestRevoke:
    async def test_reaches_another_process(self, house: House, new_house: Any) -> None:
        elsewhere, by = await new_house(), await admin(house)
        key = await made(house, by)
        token = (await api_keys.exchange(house.auth, house.context(), key.text)).access_token
        assert await elsewhere.auth.platform.identity.authenticate(f"Bearer {token}")
        await api_keys.revoke(house.auth, by, key.key.id, "leaked")
        assert await refused(house, key.text)
        await eventually(lambda: key.key.id in elsewhere.revoked, within_s=4)
        with pytest.raises(Unauthenticated):
            await elsewhere.auth.platform.identity.authenticate(f"Bearer {token}")

    async def test_twice_is_once(self, house: House) -> None:
        by = await admin(house)
        key = await made(house, by)
        for _ in range(2):
            assert (await api_keys.revoke(house.auth, by, key.key.id, "leaked")).revoked_by == "root-id"
        assert len(await house.events("api_key.revoked")) == 1

    async def test_not_anothers(self, house: House) -> None:
        theirs = await made(house, await admin(house, "eve", tenant="other"))
        with pytest.raises(NotFound):
            await api_keys.revoke(house.auth, await admin(house), theirs.key.id, "reach")


async def ask(context: Context, query: str, **variables: Any) -> Any:
    return await schema.execute(query, variable_values=variables, context_value=context)


class TestSchema:
    async def test_from_account_to_token(self, house: House) -> None:
        by = await admin(house)
        answer = await ask(
            by, """mutation ($input: ServiceAccountInput!) {
                createServiceAccount(input: $input) { ... on User { id kind } } }""",
            input={"name": "books", "roles": ["service"], "reason": "bookkeeping"},
        )  # fmt: skip
        robot = answer.data["createServiceAccount"]
        assert robot["kind"] == "service"
        answer = await ask(
            by, """mutation ($input: ApiKeyInput!) { createApiKey(input: $input) {
                ... on ApiKeyMade { key apiKey { id scopes } } ... on Problem { code } } }""",
            input={"accountId": robot["id"], "name": "books", "scopes": list(SCOPES)},
        )  # fmt: skip
        key = answer.data["createApiKey"]
        exchange = """mutation ($key: String!) { exchangeApiKey(key: $key) {
            ... on AccessToken { accessToken expiresInS } ... on Problem { code } } }"""
        answer = await ask(house.context(), exchange, key=key["key"])
        assert answer.data["exchangeApiKey"]["expiresInS"] == 300
        listed = await ask(
            by, "{ apiKeys { edges { node { id lastAddress } } } serviceAccounts { edges { node { id } } } }"
        )
        assert listed.data == {
            "apiKeys": {"edges": [{"node": {"id": key["apiKey"]["id"], "lastAddress": "192.0.2.1"}}]},
            "serviceAccounts": {"edges": [{"node": {"id": robot["id"]}}]},
        }
        answer = await ask(
            by, """mutation ($input: RevokeApiKeyInput!) { revokeApiKey(input: $input) {
                ... on ApiKey { revokedAt } ... on Problem { code } } }""",
            input={"keyId": key["apiKey"]["id"], "reason": "done"},
        )  # fmt: skip
        assert answer.data["revokeApiKey"]["revokedAt"]
        answer = await ask(house.context(), exchange, key=key["key"])
        assert answer.data == {"exchangeApiKey": {"code": "API_KEY_REFUSED"}}

    async def test_an_operator_sees_no_keys(self, house: House) -> None:
        clerk = await house.user("clerk", roles=("operator",), password="")
        assert (await ask(house.context(clerk), "{ apiKeys { edges { cursor } } }")).errors

    async def test_another_tenants_are_not_listed(self, house: House) -> None:
        theirs = await made(house, await admin(house, "eve", tenant="other"))
        query = "query ($id: ID) { apiKeys(accountId: $id) { edges { cursor } } }"
        answer = await ask(await admin(house), query, id=theirs.key.account_id)
        assert answer.data == {"apiKeys": {"edges": []}}
