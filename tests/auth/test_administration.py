"""Users, administered: by whom, and what becomes of them."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, strategies as st

from libs.core.context import Context
from libs.core.errors import Forbidden, InvalidInput, NotFound, Refusal, Unauthenticated
from libs.core.pagination import PageArgs
from libs.core.testing import FROZEN_AT
from services.auth.commands import administration, sessions
from services.auth.commands.devices import Device
from services.auth.commands.login import login
from services.auth.commands.tokens import SignedIn
from services.auth.domain.identifiers import parse_email, parse_identifier
from services.auth.domain.user_lists import SearchBy, UserFilter, UserKind, list_keys, parse_prefix
from services.auth.domain.users import User, UserStatus
from services.auth.schema import schema
from services.auth.store import factors, identities, passkeys, users
from tests.auth.conftest import PASSWORD, House


async def signed_in(house: House, user: User) -> SignedIn:
    identifier = parse_identifier(user.email, "email")
    result = await login(house.auth, house.context(), identifier, PASSWORD, device=Device())
    assert isinstance(result, SignedIn)
    return result


async def olga(house: House, **fields: Any) -> Context:
    """An operator."""
    return house.context(await house.user("olga", roles=("operator",), **fields))


async def root(house: House, **fields: Any) -> Context:
    """An administrator."""
    return house.context(await house.user("root", roles=("admin",), **fields))


async def found(house: House, user: User) -> User:
    there = await users.load(house.auth.database, None, user.tenant_id, user.id)
    assert there is not None
    return there


class TestSuspend:
    async def test_ends_everything_and_lets_nobody_in(self, house: House) -> None:
        ann, by = await house.user(), await olga(house)
        tokens = await signed_in(house, ann)
        suspended = await administration.suspend(house.auth, by, ann.id, "fraud")
        assert suspended.status is UserStatus.SUSPENDED
        with pytest.raises(Refusal) as caught:
            await signed_in(house, ann)
        assert caught.value.code == "ACCOUNT_SUSPENDED"
        with pytest.raises(Refusal, match="over"):
            await sessions.refresh(house.auth, house.context(), tokens.refresh_token)
        await house.auth.platform.revocations.reload()
        with pytest.raises(Unauthenticated):
            await house.of_token(tokens)

    async def test_is_told_and_written_down(self, house: House) -> None:
        ann, by = await house.user(), await olga(house)
        await administration.suspend(house.auth, by, ann.id, "fraud")
        [event] = await house.events("user.suspended")
        assert event.data == {"user_id": ann.id, "reason": "fraud"}
        [row] = await house.rows("user.suspended")
        told = (row["actor"], row["on_behalf_of"], row["reason"], row["origin"])
        assert told == ("olga-id", ann.id, "fraud", "192.0.2.1")

    async def test_twice_is_once(self, house: House) -> None:
        ann, by = await house.user(), await olga(house)
        for _ in range(2):
            await administration.suspend(house.auth, by, ann.id, "fraud")
        assert len(await house.rows("user.suspended")) == 1

    async def test_ten_at_once_are_one(self, house: House, new_house: Any) -> None:
        elsewhere = await new_house()
        ann, by = await house.user(), await olga(house)
        acts = [administration.suspend(at.auth, by, ann.id, "fraud") for at in (house, elsewhere) * 5]
        assert {user.status for user in await asyncio.gather(*acts)} == {UserStatus.SUSPENDED}
        assert len(await house.events("user.suspended")) == 1

    async def test_not_by_one_who_was_an_operator_a_moment_ago(self, house: House) -> None:
        ann, by = await house.user(), await olga(house)
        await house.auth.database["users"].update_one({"id": "olga-id"}, {"$set": {"roles": ["player"]}})
        with pytest.raises(Unauthenticated):
            await administration.suspend(house.auth, by, ann.id, "fraud")

    async def test_and_resumed_they_are_in_again_at_once(self, house: House) -> None:
        ann, by = await house.user(), await olga(house)
        await administration.suspend(house.auth, by, ann.id, "fraud")
        await administration.resume(house.auth, by, ann.id, "a mistake")
        await house.auth.platform.revocations.reload()
        tokens = await signed_in(house, ann)
        assert (await house.of_token(tokens)).caller.subject == ann.id

    @pytest.mark.parametrize("reason", ["", "  ", "a\nb", "x" * 501])
    async def test_needs_a_reason(self, house: House, reason: str) -> None:
        ann, by = await house.user(), await olga(house)
        with pytest.raises(InvalidInput):
            await administration.suspend(house.auth, by, ann.id, reason)


ACTIONS = [administration.suspend, administration.delete, administration.force_reset, administration.revoke_sessions]


class TestWhoMay:
    @pytest.mark.parametrize("act", ACTIONS)
    async def test_an_operator_not_an_administrator(self, house: House, act: Any) -> None:
        chief, by = await house.user("chief", roles=("admin",)), await olga(house)
        with pytest.raises((Refusal, NotFound)) as caught:
            await act(house.auth, by, chief.id, "mutiny")
        assert caught.value.code == ("NOT_FOUND" if act is administration.delete else "USER_OUTRANKS_YOU")
        assert await found(house, chief) == chief

    async def test_nor_somebody_with_a_grant_beyond_theirs(self, house: House) -> None:
        chief, by, ann = await root(house), await olga(house), await house.user()
        await house.auth.platform.access.grant(chief.caller, ann.id, "role:assign:tenant", reason="deputy")
        with pytest.raises(Refusal) as caught:
            await administration.suspend(house.auth, by, ann.id, "mutiny")
        assert caught.value.details["beyond"] == ["allow role:assign:tenant"]

    @pytest.mark.parametrize("act", ACTIONS[:3])
    async def test_nobody_oneself(self, house: House, act: Any) -> None:
        by = await root(house)
        with pytest.raises(Refusal) as caught:
            await act(house.auth, by, by.caller.subject, "enough")
        assert caught.value.code == "NOT_TO_ONESELF"

    @pytest.mark.parametrize("act", ACTIONS)
    async def test_a_player_nobody(self, house: House, act: Any) -> None:
        ann, ben = await house.user(), await house.user("ben")
        with pytest.raises(NotFound):
            await act(house.auth, house.context(ben), ann.id, "envy")

    @pytest.mark.parametrize("act", ACTIONS)
    async def test_nobody_of_another_tenant(self, house: House, act: Any) -> None:
        there, by = await house.user("eve", tenant="other"), await root(house)
        with pytest.raises(NotFound) as caught:
            await act(house.auth, by, there.id, "reach")
        with pytest.raises(NotFound) as of_nobody:
            await act(house.auth, by, "nobody", "reach")
        assert str(caught.value) == str(of_nobody.value)
        assert await found(house, there) == there

    async def test_an_api_key_not_beyond_its_scopes(self, house: House) -> None:
        clerk, by = await house.user("clerk", roles=("operator",)), await root(house)
        key = replace(by, caller=replace(by.caller, scopes=("user:suspend:tenant",)))
        ann = await house.user()
        assert (await administration.suspend(house.auth, key, ann.id, "fraud")).status is UserStatus.SUSPENDED
        with pytest.raises(Refusal):
            await administration.suspend(house.auth, key, clerk.id, "fraud")
        with pytest.raises(NotFound):
            await administration.force_reset(house.auth, key, ann.id, "fraud")


class TestDelete:
    async def test_removes_what_they_sign_in_with(self, house: House) -> None:
        auth, by = house.auth, await root(house)
        ann = await house.user(second_factors=("totp",), name="Ann", phone="+4915112345678")
        await auth.platform.mongo.transaction(
            lambda session: factors.put_recovery_codes(auth.database, session, "demo", ann.id, ["h"], house.clock.now())
        )
        tokens = await auth.database["devices"].insert_one({"tenant_id": "demo", "user_id": ann.id})
        gone = await administration.delete(auth, by, ann.id, "as they asked")
        assert replace(gone, tokens_from=None) == User(
            "demo", ann.id, ann.created_at, status=UserStatus.DELETED, version=2
        )
        assert await factors.recovery_codes(auth.database, None, "demo", ann.id) is None
        assert await passkeys.of_user(auth.database, None, "demo", ann.id) == []
        assert await identities.of_user(auth.database, None, "demo", ann.id) == []
        assert await auth.database["devices"].count_documents({"_id": tokens.inserted_id}) == 0

    async def test_frees_what_they_were_called(self, house: House) -> None:
        ann, by = await house.user(), await root(house)
        await administration.delete(house.auth, by, ann.id, "as they asked")
        await house.auth.platform.mongo.transaction(
            lambda session: users.insert(house.auth.database, session, replace(ann, id="another"))
        )
        again = await users.by_identifier(house.auth.database, None, "demo", parse_email(ann.email, "email"))
        assert again
        assert again.id == "another"

    async def test_signs_them_out_and_says_so_once(self, house: House) -> None:
        ann, by = await house.user(), await root(house)
        tokens = await signed_in(house, ann)
        await administration.delete(house.auth, by, ann.id, "as they asked")
        with pytest.raises(Refusal):
            await sessions.refresh(house.auth, house.context(), tokens.refresh_token)
        [event] = await house.events("user.deleted")
        assert event.data == {"user_id": ann.id, "reason": "as they asked"}
        assert [message.recipient for message in await house.sent()] == [ann.email]
        with pytest.raises(NotFound):
            await administration.delete(house.auth, by, ann.id, "again")

    async def test_of_a_service_account_ends_its_keys(self, house: House) -> None:
        by = await root(house)
        robot = await house.user("robot", kind="service", roles=("service",), email="", password="")
        await house.auth.database["api_keys"].insert_one(
            {"_id": "k", "tenant_id": "demo", "account_id": robot.id, "revoked_at": None}
        )
        await administration.delete(house.auth, by, robot.id, "retired")
        row = await house.auth.database["api_keys"].find_one({"_id": "k"})
        assert row
        assert row["revoked_by"] == "root-id"

    async def test_needs_that_it_was_shown_lately_who_it_is(self, house: House) -> None:
        ann, by = await house.user(), await root(house)
        house.clock.advance(minutes=10)
        with pytest.raises(Refusal) as caught:
            await administration.delete(house.auth, by, ann.id, "as they asked")
        assert caught.value.code == "REAUTHENTICATION_REQUIRED"


class TestForceReset:
    async def test_the_password_is_not_accepted_any_more(self, house: House) -> None:
        ann, by = await house.user(), await olga(house)
        tokens = await signed_in(house, ann)
        assert (await administration.force_reset(house.auth, by, ann.id, "leaked")).must_reset
        with pytest.raises(Refusal) as caught:
            await signed_in(house, ann)
        assert caught.value.code == "PASSWORD_RESET_REQUIRED"
        with pytest.raises(Refusal):
            await sessions.refresh(house.auth, house.context(), tokens.refresh_token)
        assert (await house.sent())[-1].params["what"] == "password_reset_forced"

    async def test_not_of_one_whom_no_code_reaches(self, house: House) -> None:
        ann, by = await house.user(email=""), await olga(house)
        with pytest.raises(Refusal) as caught:
            await administration.force_reset(house.auth, by, ann.id, "leaked")
        assert caught.value.code == "RESET_IMPOSSIBLE"


class TestRevokeSessions:
    async def test_all_and_one(self, house: House) -> None:
        ann, by = await house.user(), await olga(house)
        first, *_ = [await signed_in(house, ann) for _ in range(3)]
        assert await administration.revoke_sessions(house.auth, by, ann.id, "stolen", only=first.session_id) == 1
        assert await administration.revoke_sessions(house.auth, by, ann.id, "stolen") == 2
        assert await administration.revoke_sessions(house.auth, by, ann.id, "stolen") == 0
        assert len(await house.rows("sessions.revoked")) == 2

    async def test_another_users_session_is_not_meant(self, house: House) -> None:
        ann, ben, by = await house.user(), await house.user("ben"), await olga(house)
        bens = await signed_in(house, ben)
        assert await administration.revoke_sessions(house.auth, by, ann.id, "stolen", only=bens.session_id) == 0


ROLES = ["player", "operator", "admin"]


async def names(house: House, wanted: UserFilter | None = None, **args: Any) -> list[str]:
    page = await users.page_of(
        house.auth.database, house.auth.paginator, "demo", wanted or UserFilter(), PageArgs(**args)
    )
    return [user.username for user in page.items]


async def searched(house: House, by: SearchBy, text: str, **args: Any) -> list[str]:
    prefix = parse_prefix(by, text)
    page = await users.search(house.auth.database, house.auth.paginator, "demo", by, prefix, PageArgs(**args))
    return [user.username for user in page.items]


class TestLists:
    @pytest.fixture
    async def people(self, house: House) -> House:
        await house.user("ann", name="Änne Müller", phone="+4915112345678", password="")
        house.clock.advance(minutes=1)
        await house.user(
            "ben", roles=("operator", "player"), status=UserStatus.SUSPENDED, name="ÄNNE  Schmidt", password=""
        )
        house.clock.advance(minutes=1)
        await house.user("robot", kind="service", roles=("service",), email="", password="")
        await house.user("eve", tenant="other", name="Änne Other", password="")
        return house

    @pytest.mark.parametrize(
        ("wanted", "expected"),
        [
            (UserFilter(), ["robot", "ben", "ann"]),
            (UserFilter(status=UserStatus.ACTIVE), ["robot", "ann"]),
            (UserFilter(role="player"), ["ben", "ann"]),
            (UserFilter(kind=UserKind.SERVICE), ["robot"]),
            (UserFilter(status=UserStatus.SUSPENDED, role="operator", kind=UserKind.USER), ["ben"]),
            (UserFilter(status=UserStatus.ACTIVE, role="operator"), []),
            (UserFilter(role="player/"), []),
        ],
    )
    async def test_filters(self, people: House, wanted: UserFilter, expected: list[str]) -> None:
        assert await names(people, wanted) == expected

    async def test_by_when_they_came(self, people: House) -> None:
        now = people.clock.now()
        assert await names(people, UserFilter(since=now)) == ["robot"]
        assert await names(people, UserFilter(until=now - timedelta(minutes=1))) == ["ann"]

    @pytest.mark.parametrize(
        ("by", "text", "expected"),
        [
            (SearchBy.EMAIL, "ANN@", ["ann"]),
            (SearchBy.EMAIL, ".*", []),
            (SearchBy.PHONE, "+49 151", ["ann"]),
            (SearchBy.USERNAME, "Be", ["ben"]),
            (SearchBy.NAME, "änne", ["ann", "ben"]),
            (SearchBy.NAME, "ÄNNE s", ["ben"]),
            (SearchBy.NAME, "schmidt", []),
        ],
    )
    async def test_searches(self, people: House, by: SearchBy, text: str, expected: list[str]) -> None:
        assert await searched(people, by, text) == expected

    async def test_a_search_page_by_page_of_those_of_one_name(self, house: House) -> None:
        for n in range(5):
            await house.user(f"ann{n}", name="Ann", password="")
        shown: list[str] = []
        after = None
        while len(shown) < 5:
            page = await users.search(
                house.auth.database, house.auth.paginator, "demo", SearchBy.NAME, "ann", PageArgs(first=2, after=after)
            )
            shown += [user.username for user in page.items]
            after = page.cursors[-1]
        assert shown == [f"ann{n}" for n in range(5)]

    @pytest.mark.parametrize(
        ("by", "text"),
        [(SearchBy.EMAIL, "a"), (SearchBy.PHONE, "0151"), (SearchBy.NAME, "x" * 101), (SearchBy.USERNAME, "a\x00b")],
    )
    def test_what_nothing_begins_with(self, by: SearchBy, text: str) -> None:
        with pytest.raises(InvalidInput):
            parse_prefix(by, text)

    @pytest.mark.parametrize(
        "query",
        [
            {"listed_under": "active/user/player"},
            {"email": {"$gte": "ann", "$lt": "ann\U0010ffff"}},
            {"phone": {"$gte": "+49", "$lt": "+49\U0010ffff"}},
            {"username": {"$gte": "ann", "$lt": "ann\U0010ffff"}},
            {"name_key": {"$gte": "änne", "$lt": "änne\U0010ffff"}},
        ],
    )
    async def test_a_page_is_a_range_of_an_index(self, house: House, query: dict[str, Any]) -> None:
        """However many users there are, and however few of them are meant."""
        many = [
            users.user_row(User("demo", f"u{n}", house.clock.now() + timedelta(seconds=n), roles=("player",),
                                email=f"ann{n:03}@example.com", phone=f"+49{n:03}", username=f"ann{n:03}",
                                name=f"Änne {n:03}"))
            for n in range(200)
        ]  # fmt: skip
        await house.auth.database["users"].insert_many(many)
        field = next(iter(query))
        order = [("created_at", -1), ("_id", -1)] if field == "listed_under" else [(field, 1), ("_id", 1)]
        if field in ("email", "phone", "username"):
            order = order[:1]
        command = {"find": "users", "filter": {"tenant_id": "demo", **query}, "sort": dict(order), "limit": 21}
        explained = await house.auth.database.command("explain", command, verbosity="executionStats")
        stats = explained["executionStats"]
        assert (stats["totalKeysExamined"], stats["totalDocsExamined"]) == (21, 21)


class TestListKeys:
    @given(
        status=st.sampled_from(UserStatus),
        kind=st.sampled_from(["user", "service"]),
        roles=st.lists(st.sampled_from(ROLES), unique=True),
        wanted=st.builds(
            UserFilter,
            status=st.none() | st.sampled_from(UserStatus),
            role=st.none() | st.sampled_from([*ROLES, "player/", "active", ""]),
            kind=st.none() | st.sampled_from(UserKind),
        ),
    )
    def test_a_user_is_in_the_lists_of_what_they_are(
        self, status: UserStatus, kind: Any, roles: list[str], wanted: UserFilter
    ) -> None:
        user = User("demo", "ann", FROZEN_AT, kind=kind, status=status, roles=tuple(roles))
        meant = (
            wanted.status in (None, status)
            and wanted.kind in (None, kind)
            and (not wanted.role or wanted.role in roles)
        )
        assert (wanted.key in list_keys(user)) is meant


QUERY = """query ($filter: UserFilterInput, $search: UserSearchInput) {
    users(filter: $filter, search: $search) { edges { node { id } } }
}"""


async def ask(context: Context, query: str, **variables: Any) -> Any:
    return await schema.execute(query, variable_values=variables, context_value=context)


class TestSchema:
    async def test_an_operator_lists_users(self, house: House) -> None:
        by = await olga(house)
        answer = await ask(by, QUERY, filter={"role": "operator"})
        assert answer.data == {"users": {"edges": [{"node": {"id": "olga-id"}}]}}

    async def test_a_player_does_not(self, house: House) -> None:
        answer = await ask(house.context(await house.user()), QUERY)
        assert isinstance(answer.errors[0].original_error, Forbidden)

    @pytest.mark.parametrize(
        "variables",
        [
            {"filter": {"role": {"$ne": ""}}},
            {"filter": {"tenantId": "other"}},
            {"search": {"by": "EMAIL", "prefix": {"$regex": "^a"}}},
            {"search": {"by": "PASSWORD", "prefix": "$argon2"}},
        ],
    )
    async def test_operators_and_unknown_fields(self, house: House, variables: Any) -> None:
        answer = await ask(await olga(house), QUERY, **variables)
        assert answer.errors
        assert answer.data is None

    async def test_a_user_of_another_tenant_is_nobody(self, house: House) -> None:
        await house.user("eve", tenant="other")
        answer = await ask(
            await root(house), '{ user(id: "eve-id") { id } userSessions(userId: "eve-id") { edges { cursor } } }'
        )
        assert answer.data == {"user": None, "userSessions": None}

    async def test_another_user_is_nobody_to_a_player(self, house: House) -> None:
        ann, ben = await house.user(), await house.user("ben")
        query = "query ($id: ID!) { user(id: $id) { id } userSessions(userId: $id) { edges { cursor } } }"
        answer = await ask(house.context(ben), query, id=ann.id)
        assert answer.data == {"user": None, "userSessions": None}

    async def test_a_suspension(self, house: House) -> None:
        ann, by = await house.user(), await olga(house)
        mutation = """mutation ($input: UserReasonInput!) {
            suspendUser(input: $input) { ... on User { status } ... on Problem { code } }
        }"""
        answer = await ask(by, mutation, input={"userId": ann.id, "reason": "fraud"})
        assert answer.data == {"suspendUser": {"status": "SUSPENDED"}}
        answer = await ask(by, mutation, input={"userId": by.caller.subject, "reason": "fraud"})
        assert answer.data == {"suspendUser": {"code": "NOT_TO_ONESELF"}}
