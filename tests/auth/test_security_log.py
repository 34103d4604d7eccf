"""The security log: who may read it, what it shows of whom, whether it is what was written, and as a file."""

import csv
import hashlib
import json
from datetime import timedelta
from io import StringIO
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from libs.core.app import request_context
from libs.core.audit import BEGINNING, Divergence, Head
from libs.core.context import Context
from libs.core.errors import Forbidden, InvalidInput, NotFound, Refusal, Unauthenticated
from libs.core.pagination import PageArgs
from services.auth.commands import administration, security_log, signing_keys
from services.auth.commands.auth import record
from services.auth.commands.devices import Device
from services.auth.commands.login import login
from services.auth.commands.tokens import SignedIn
from services.auth.domain.identifiers import parse_identifier
from services.auth.domain.users import User
from services.auth.routes.security_log import router
from services.auth.schema import schema
from services.auth.store import security_log as stored
from services.auth.store.security_log import LogFilter
from tests.auth.conftest import PASSWORD, House


async def admin(house: House, who: str = "root", **fields: Any) -> Context:
    return house.context(await house.user(who, roles=("admin",), password="", **fields))


async def note(house: House, context: Context, action: str, user_id: str, **more: Any) -> None:
    await house.auth.transaction(
        context.tenant_id, lambda session: record(house.auth, session, context, action, user_id=user_id, **more)
    )
    house.clock.advance(minutes=1)


async def read(house: House, context: Context, wanted: LogFilter | None = None, **args: Any) -> list[str]:
    page = await security_log.page(house.auth, context, wanted or LogFilter(), PageArgs(**args))
    return [row.action for row in page.items]


class TestPage:
    @pytest.fixture
    async def by(self, house: House) -> Context:
        """Ann is seen to, ben does something, and something happens elsewhere."""
        by, ann, ben = await admin(house), await house.user(password=""), await house.user("ben", password="")
        await note(house, by, "user.suspended", ann.id)
        await note(house, house.context(ben), "login.succeeded", ben.id)
        await note(house, house.context(), "login.failed", ann.id)
        await note(house, house.context(tenant="other"), "login.failed", "ann-id")
        return by

    async def test_the_newest_first_and_of_ones_tenant_alone(self, house: House, by: Context) -> None:
        assert await read(house, by) == ["login.failed", "login.succeeded", "user.suspended"]

    async def test_filters(self, house: House, by: Context) -> None:
        now = house.clock.now()
        for wanted, found in (
            (LogFilter(user_id="ann-id"), ["login.failed", "user.suspended"]),
            (LogFilter(user_id="root-id"), ["user.suspended"]),
            (LogFilter(user_id="ben-id", action="login.succeeded"), ["login.succeeded"]),
            (LogFilter(action="login.failed"), ["login.failed"]),
            (LogFilter(since=now - timedelta(minutes=2)), ["login.failed"]),
            (LogFilter(until=now - timedelta(minutes=3), user_id="ann-id"), ["user.suspended"]),
        ):
            assert await read(house, by, wanted) == found, wanted

    async def test_page_by_page_of_a_user(self, house: House, by: Context) -> None:
        wanted = LogFilter(user_id="ann-id")
        first = await security_log.page(house.auth, by, wanted, PageArgs(first=1))
        assert first.has_next
        rest = await security_log.page(house.auth, by, wanted, PageArgs(first=1, after=first.cursors[0]))
        assert [row.action for row in (*first.items, *rest.items)] == ["login.failed", "user.suspended"]

    async def test_one_who_may_read_their_own_reads_no_log(self, house: House, by: Context) -> None:
        ann = await house.user("anna", password="")
        await house.auth.platform.access.grant(by.caller, ann.id, "audit:read:own", reason="test")
        for act in (read(house, house.context(ann)), security_log.verify(house.auth, house.context(ann), BEGINNING)):
            with pytest.raises(Forbidden):
                await act
        with pytest.raises(Forbidden):
            await security_log.open_export(house.auth, house.context(ann), None, None)

    @pytest.mark.parametrize(
        "wanted", [{}, {"actor": "u1"}, {"action": "a.b"}, {"$or": [{"actor": "u1"}, {"on_behalf_of": "u1"}]}]
    )
    async def test_a_page_is_a_range_of_an_index(self, house: House, wanted: dict[str, Any]) -> None:
        now = house.clock.now()
        rows = [
            {"log": "auth.demo", "sequence": n, "at": now + timedelta(seconds=n), "actor": f"u{n % 2}",
             "on_behalf_of": f"u{n % 3}", "resource": "r", "action": "a.b"}
            for n in range(600)
        ]  # fmt: skip
        await house.auth.database["audit_log"].insert_many(rows)
        cursor = {"at": {"$lte": now + timedelta(seconds=300)}}
        command = {
            "find": "audit_log",
            "filter": {"$and": [{"log": "auth.demo", **wanted}, cursor]},
            "sort": {"at": -1, "sequence": -1},
            "limit": 21,
        }
        stats = (await house.auth.database.command("explain", command, verbosity="executionStats"))["executionStats"]
        assert stats["totalDocsExamined"] <= 2 * 21  # two ranges, merged
        assert stats["totalKeysExamined"] <= 2 * 22


class TestMyActivity:
    async def test_less_detail_of_what_others_did(self, house: House) -> None:
        ann, by = await house.user(), await admin(house)
        signed_in = await login(
            house.auth, house.context(), parse_identifier(ann.email, "email"), PASSWORD, device=Device()
        )
        assert isinstance(signed_in, SignedIn)
        await administration.suspend(house.auth, by, ann.id, "an accusation by ben")
        answer = await schema.execute(
            "{ myActivity { edges { node { action byYou address } } } }", context_value=house.context(ann)
        )
        assert answer.data
        shown = {edge["node"]["action"]: edge["node"] for edge in answer.data["myActivity"]["edges"]}
        assert shown["user.suspended"] == {"action": "user.suspended", "byYou": False, "address": None}
        assert shown["login.succeeded"] == {"action": "login.succeeded", "byYou": True, "address": "192.0.2.1"}
        assert "ben" not in str(answer.data)

    async def test_ones_own_alone(self, house: House) -> None:
        ann, ben = await house.user(password=""), await house.user("ben", password="")
        await note(house, house.context(ben), "login.succeeded", ben.id)
        page = await security_log.page_of_oneself(house.auth, house.context(ann), PageArgs())
        assert page.items == []


class TestVerify:
    async def test_from_the_beginning_and_from_a_head(self, house: House) -> None:
        by = await admin(house)
        for _ in range(3):
            await note(house, by, "user.suspended", "ann-id")
        checked = await security_log.verify(house.auth, by, BEGINNING)
        assert (checked.head.sequence, checked.divergence, checked.complete) == (3, None, True)
        await note(house, by, "user.resumed", "ann-id")
        assert (await security_log.verify(house.auth, by, checked.head)).head.sequence == 4

    async def test_what_was_edited_is_found(self, house: House) -> None:
        by = await admin(house)
        for _ in range(3):
            await note(house, by, "user.suspended", "ann-id")
        await house.auth.database["audit_log"].update_one({"sequence": 2}, {"$set": {"actor": "eve"}})
        checked = await security_log.verify(house.auth, by, BEGINNING)
        assert (checked.head.sequence, checked.divergence) == (1, Divergence(2, "edited"))

    async def test_over_the_schema(self, house: House) -> None:
        by = await admin(house)
        await note(house, by, "user.suspended", "ann-id")
        query = """query ($since: LogHeadInput) {
            verifySecurityLog(since: $since) { head { sequence hash } divergence { problem } complete } }"""
        first = (await schema.execute(query, context_value=by)).data
        assert first
        head = first["verifySecurityLog"]["head"]
        again = await schema.execute(query, variable_values={"since": head}, context_value=by)
        assert again.data == first
        forged = await schema.execute(query, variable_values={"since": head | {"hash": "0" * 64}}, context_value=by)
        assert forged.data
        assert forged.data["verifySecurityLog"]["divergence"] == {"problem": "rewritten"}
        wrong = await schema.execute(query, variable_values={"since": head | {"hash": "x"}}, context_value=by)
        assert wrong.errors
        assert isinstance(wrong.errors[0].original_error, InvalidInput)


class TestHeads:
    async def test_are_told_when_they_have_moved(self, house: House) -> None:
        by = await admin(house)
        await note(house, by, "user.suspended", "ann-id")
        for _ in range(2):
            await security_log.publish_heads(house.auth)
        [event] = await house.events("security_log.head")
        assert event.data["sequence"] == 1
        head = Head(event.data["sequence"], event.data["hash"])
        assert (await security_log.verify(house.auth, by, head)).divergence is None
        assert await stored.published_head(house.auth.database, "demo") == head

    async def test_none_of_a_log_that_is_not_what_was_written(self, house: House) -> None:
        by = await admin(house)
        await note(house, by, "user.suspended", "ann-id")
        await security_log.publish_heads(house.auth)
        await note(house, by, "user.resumed", "ann-id")
        await house.auth.database["audit_log"].delete_one({"sequence": 2})
        await security_log.publish_heads(house.auth)
        assert len(await house.events("security_log.head")) == 1
        [event] = await house.events("security_log.diverged")
        assert (event.tenant_id, event.data) == ("demo", {"sequence": 2, "problem": "cut"})


async def export(context: Context, **params: str) -> httpx.Response:
    app = FastAPI()
    app.include_router(router)
    app.dependency_overrides[request_context] = lambda: context
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://auth") as client:
        return await client.get("/security-log/export", params=params)


class TestExport:
    async def test_piece_by_piece_none_is_lost_nor_twice(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(security_log, "_BATCH", 2)
        by = await admin(house)
        for n in range(7):
            await house.auth.transaction(
                "demo", lambda session: record(house.auth, session, by, "user.suspended", user_id="ann-id")
            )
            if n % 3 == 0:  # several in one instant
                house.clock.advance(minutes=1)
        *rows, end = [json.loads(line) for line in (await export(by, format="jsonl")).text.splitlines()]
        assert [row["sequence"] for row in rows] == list(range(1, end["rows"] + 1))

    async def test_what_may_still_be_written_waits(self, house: House) -> None:
        by = await admin(house)
        await note(house, by, "user.suspended", "ann-id")
        await house.auth.transaction(
            "demo", lambda session: record(house.auth, session, by, "user.resumed", user_id="ann-id")
        )
        assert "user.resumed" not in (await export(by)).text
        house.clock.advance(seconds=11)
        assert "user.resumed" in (await export(by)).text

    async def test_as_json_lines_whose_chain_can_be_followed(self, house: House) -> None:
        by = await admin(house)
        for reason in ("one", "two"):
            await note(house, by, "user.suspended", "ann-id", reason=reason, after={"n": 1})
        *rows, end = [json.loads(line) for line in (await export(by, format="jsonl")).text.splitlines()]
        assert end == {"complete": True, "rows": 2}
        previous = ""
        for row in rows:
            told = {name: value for name, value in row.items() if name != "hash"}
            text = json.dumps(told, sort_keys=True, separators=(",", ":"))
            assert hashlib.sha256(text.encode()).hexdigest() == row["hash"]
            assert row["previous"] == previous
            previous = row["hash"]

    async def test_as_csv_that_runs_nothing(self, house: House) -> None:
        by = await admin(house)
        await note(house, by, "user.suspended", "ann-id", reason="=cmd|'/c calc'!A0")
        answer = await export(by)
        assert answer.headers["content-disposition"] == 'attachment; filename="security-log-demo.csv"'
        *rows, end = list(csv.DictReader(StringIO(answer.text)))
        assert [row["reason"] for row in rows] == ["'=cmd|'/c calc'!A0"]
        assert (end["record"], end["rows"]) == ("end", "1")

    async def test_of_a_time_and_a_tenant(self, house: House) -> None:
        by = await admin(house)
        await note(house, by, "user.suspended", "ann-id")
        since = house.clock.now()
        await note(house, by, "user.resumed", "ann-id")
        await note(house, house.context(tenant="other"), "login.failed", "eve-id")
        until = since + timedelta(minutes=1)
        answer = await export(by, **{"from": since.isoformat(), "until": until.isoformat()})
        assert [row["action"] for row in csv.DictReader(StringIO(answer.text)) if row["action"]] == ["user.resumed"]

    async def test_is_in_the_log_itself(self, house: House) -> None:
        await export(await admin(house), format="jsonl")
        [row] = await house.rows("security_log.exported")
        assert row["actor"] == "root-id"

    @pytest.mark.parametrize("params", [{"format": "xml"}, {"from": "yesterday"}, {"from": "2999-01-01"}])
    async def test_what_is_not_to_be_had(self, house: House, params: dict[str, str]) -> None:
        with pytest.raises(InvalidInput):
            await export(await admin(house), **params)

    async def test_not_for_a_player_nor_without_a_token(self, house: House) -> None:
        with pytest.raises(Forbidden):
            await export(house.context(await house.user(password="")))
        with pytest.raises(Unauthenticated):
            await export(house.context())


class TestSigningKeys:
    async def test_withdrawn_nothing_that_it_signed_is_good(self, house: House, new_house: Any) -> None:
        ann, by = await house.user(), await admin(house)
        signed_in = await self.sign_in(house, ann)
        [before] = signing_keys.known(house.auth, by)
        withdrawn = await signing_keys.withdraw(house.auth, by, before.kid, "a laptop was lost")
        assert (withdrawn.kid, withdrawn.withdrawn_at) == (before.kid, house.clock.now())
        await house.auth.platform.revocations.reload()
        with pytest.raises(Unauthenticated):
            await house.of_token(signed_in)
        assert (await house.of_token(await self.sign_in(house, ann))).caller.subject == ann.id
        [event] = await house.events("signing_key.withdrawn")
        assert event.data == {"kid": before.kid, "reason": "a laptop was lost"}

    async def test_not_by_another_tenants_administrator(self, house: House) -> None:
        by = await admin(house, "eve", tenant="other")
        [key] = house.auth.keys.all
        with pytest.raises(Forbidden):
            signing_keys.known(house.auth, by)
        with pytest.raises(Forbidden):
            await signing_keys.withdraw(house.auth, by, key.kid, "havoc")

    async def test_twice_and_one_that_there_is_not(self, house: House) -> None:
        by = await admin(house)
        [key] = house.auth.keys.all
        await signing_keys.withdraw(house.auth, by, key.kid, "lost")
        for kid in (key.kid, "nothing"):
            with pytest.raises(NotFound):
                await signing_keys.withdraw(house.auth, by, kid, "lost")

    async def test_needs_that_it_was_shown_lately_who_it_is(self, house: House) -> None:
        by = await admin(house)
        house.clock.advance(minutes=10)
        with pytest.raises(Refusal):
            await signing_keys.withdraw(house.auth, by, house.auth.keys.all[0].kid, "lost")

    @staticmethod
    async def sign_in(house: House, user: User) -> SignedIn:
        identifier = parse_identifier(user.email, "email")
        result = await login(house.auth, house.context(), identifier, PASSWORD, device=Device())
        assert isinstance(result, SignedIn)
        return result
