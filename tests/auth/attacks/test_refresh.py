"""Refresh tokens: stolen, sent twice, sent by all tabs at once, sent to another tenant, kept for ever."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest

from libs.core.testing import eventually
from services.auth.domain.flows import flow_key
from tests.auth.attacks.scene import LOGOUT, ME, REFRESH, Person, Scene, code_of


async def refreshed(person: Person, token: str) -> dict[str, Any]:
    answer: dict[str, Any] = await person.ask(REFRESH, token=token)
    return answer


async def refusal(person: Person, token: str) -> str:
    return code_of(await person.elsewhere(token="").answer(REFRESH, token=token))


async def over(person: Person) -> None:
    """The access token, too, within moments."""

    async def refused() -> bool:
        return await person.refused(ME) == "UNAUTHENTICATED"

    await eventually(refused)


async def set_back(scene: Scene, token: str) -> None:
    """As if it had been used a minute ago: beyond the grace of who lost an answer."""
    async with scene.mongo() as mongo:
        spent_at = datetime.now(UTC) - timedelta(minutes=1)
        changed = await mongo.db["refresh_tokens"].update_one(
            {"_id": flow_key(token)}, {"$set": {"spent_at": spent_at}}
        )
    assert changed.matched_count


class TestRaces:
    async def test_fifty_at_once_rotate_once_and_nobody_is_logged_out(self, scene: Scene, ann: Person) -> None:
        first = ann.session["refreshToken"]
        answers = await asyncio.gather(*(refreshed(ann, first) for _ in range(50)))
        successors = {answer["refreshToken"] for answer in answers}
        assert len(successors) == 1
        async with scene.mongo() as mongo:
            assert await mongo.db["refresh_tokens"].count_documents({"session_id": ann.session["sessionId"]}) == 2
        assert (await refreshed(ann, successors.pop()))["__typename"] == "SignedIn"

    async def test_who_lost_the_answer_is_given_the_same(self, ann: Person) -> None:
        first = ann.session["refreshToken"]
        assert (await refreshed(ann, first))["refreshToken"] == (await refreshed(ann, first))["refreshToken"]

    async def test_a_logout_at_the_same_time_wins(self, ann: Person) -> None:
        first = ann.session["refreshToken"]
        done = await asyncio.gather(
            ann.answer(LOGOUT), *(ann.elsewhere(token="").answer(REFRESH, token=first) for _ in range(10))
        )
        assert code_of(done[0]) == ""
        later = [answer["data"]["refreshSession"].get("refreshToken") for answer in done[1:]]
        for token in {first, *later} - {None}:
            assert await refusal(ann, str(token)) == "SESSION_OVER"


class TestReuse:
    async def test_after_the_grace_ends_the_session(self, scene: Scene, ann: Person) -> None:
        first = ann.session["refreshToken"]
        second = (await refreshed(ann, first))["refreshToken"]
        await set_back(scene, first)
        assert await refusal(ann, first) == "SESSION_OVER"
        assert await refusal(ann, second) == "SESSION_OVER"
        await over(ann)
        rows = await scene.rows("session.revoked", resource=ann.session["sessionId"])
        assert [row["reason"] for row in rows] == ["refresh token replayed"]

    async def test_of_an_older_generation_ends_it_at_once(self, ann: Person) -> None:
        """The thief went on, so that the owner is one behind; or the other way round."""
        first = ann.session["refreshToken"]
        second = (await refreshed(ann, first))["refreshToken"]
        third = (await refreshed(ann, second))["refreshToken"]
        assert await refusal(ann, first) == "SESSION_OVER"
        assert await refusal(ann, third) == "SESSION_OVER"
        await over(ann)

    async def test_leaves_other_sessions_alone(self, scene: Scene, ann: Person) -> None:
        other = (await ann.login(ann.email))["data"]["login"]
        first = ann.session["refreshToken"]
        await refreshed(ann, first)
        await set_back(scene, first)
        await refusal(ann, first)
        assert await refusal(ann, other["refreshToken"]) == ""


class TestTokens:
    @pytest.mark.parametrize("token", ["", "x", "x" * 128, "x" * 129, "x" * 100_000, "$ne", '{"$ne": ""}', "\x00", "é"])
    async def test_made_up(self, ann: Person, token: str) -> None:
        assert await refusal(ann, token) == "SESSION_OVER"

    async def test_of_the_kind_of_another(self, ann: Person) -> None:
        for token in (ann.token, ann.session["deviceToken"], ann.session["sessionId"]):
            assert await refusal(ann, token) == "SESSION_OVER"
        assert await ann.elsewhere(token=ann.session["refreshToken"]).refused(ME) == "UNAUTHENTICATED"

    async def test_at_another_tenant(self, ann: Person) -> None:
        """Refused, and not taken for used."""
        first = ann.session["refreshToken"]
        abroad = ann.elsewhere(token="", tenant="other")
        assert await abroad.refused(REFRESH, token=first) == "SESSION_OVER"
        assert (await refreshed(ann, first))["__typename"] == "SignedIn"

    async def test_are_not_stored(self, scene: Scene, ann: Person) -> None:
        token = ann.session["refreshToken"]
        second = (await refreshed(ann, token))["refreshToken"]
        async with scene.mongo() as mongo:
            for name in await mongo.db.list_collection_names():
                stored = str(await mongo.db[name].find().to_list())
                assert token not in stored, name
                assert second not in stored, name


class TestLifetime:
    @pytest.mark.parametrize("end", ["idle_until", "expires_at"])
    async def test_it_is_over(self, scene: Scene, ann: Person, end: str) -> None:
        async with scene.mongo() as mongo:
            before = {end: datetime.now(UTC) - timedelta(seconds=1)}
            await mongo.db["sessions"].update_one({"_id": ann.session["sessionId"]}, {"$set": before})
        assert await refusal(ann, ann.session["refreshToken"]) == "SESSION_OVER"

    async def test_use_puts_off_the_idle_end_and_never_the_absolute_one(self, scene: Scene, ann: Person) -> None:
        async with scene.mongo() as mongo:
            before = await mongo.db["sessions"].find_one({"_id": ann.session["sessionId"]})
            await refreshed(ann, ann.session["refreshToken"])
            after = await mongo.db["sessions"].find_one({"_id": ann.session["sessionId"]})
        assert before
        assert after
        assert (after["idle_until"] > before["idle_until"], after["expires_at"]) == (True, before["expires_at"])

    async def test_no_access_token_outlives_its_session(self, scene: Scene, ann: Person) -> None:
        ends = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=40)
        async with scene.mongo() as mongo:
            await mongo.db["sessions"].update_one({"_id": ann.session["sessionId"]}, {"$set": {"expires_at": ends}})
        token = (await refreshed(ann, ann.session["refreshToken"]))["accessToken"]
        claims = jwt.decode(token, options={"verify_signature": False})
        assert claims["exp"] <= ends.timestamp()

    async def test_of_a_user_who_was_suspended_meanwhile(self, scene: Scene, ann: Person) -> None:
        async with scene.mongo() as mongo:
            await mongo.db["users"].update_one({"id": ann.id}, {"$set": {"status": "suspended"}})
        assert await refusal(ann, ann.session["refreshToken"]) == "SESSION_OVER"
