"""`make admin`: the first administrator, and another."""

import io
import sys
from collections.abc import AsyncIterator

import pytest

from libs.core.audit import INDEXES as AUDIT_INDEXES, AuditLog
from libs.core.errors import Refusal
from libs.core.events.outbox import OUTBOX_INDEXES
from libs.core.migrations import migrate
from libs.core.mongo import Mongo
from libs.core.testing import scratch_mongo
from scripts.create_admin import create
from scripts.process import Failure
from services.auth import store
from services.auth.domain.identifiers import parse_email
from services.auth.domain.users import User
from services.auth.passwords import Hasher
from services.auth.store import users

ANNA = parse_email("anna@example.com", "EMAIL")


@pytest.fixture
async def auth(mongo_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Mongo]:
    monkeypatch.setenv("NAMESPACE", namespace)
    async with scratch_mongo(mongo_url, service="auth", namespace=namespace) as mongo:
        await migrate(mongo.db, (*store.INDEXES, *AUDIT_INDEXES, *OUTBOX_INDEXES))
        await mongo.core["tenants"].insert_one({"_id": "acme", "name": "Roulette House"})
        yield mongo


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


async def anna(mongo: Mongo) -> User:
    found = await users.by_identifier(mongo.db, None, "acme", ANNA)
    assert found is not None
    return found


class TestCreate:
    async def test_with_a_password(self, auth: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
        typed(monkeypatch, "several plain words\n")
        assert await create(ANNA, "acme") == "anna@example.com is an administrator of acme"
        made = await anna(auth)
        assert (made.roles, made.email) == (("admin",), "anna@example.com")
        async with Hasher() as hasher:
            assert (await hasher.verify(made.password, "several plain words")).ok

    async def test_is_in_the_security_log_and_told(self, auth: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
        typed(monkeypatch, "")
        await create(ANNA, "acme")
        [row] = await AuditLog(auth.db, "auth.acme").read()
        assert (row.actor, row.action, row.on_behalf_of) == ("make admin", "user.registered", (await anna(auth)).id)
        assert await AuditLog(auth.db, "auth.acme").verify() is None
        assert await auth.db["outbox"].count_documents({}) > 0

    async def test_one_who_is_a_user_already(self, auth: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
        typed(monkeypatch, "")
        await create(ANNA, "acme")
        before = await anna(auth)
        await auth.db["users"].update_one({"_id": before.key}, {"$set": {"roles": ["player"]}})
        assert "from their next token on" in await create(ANNA, "acme")
        assert "already" in await create(ANNA, "acme")
        assert (await anna(auth)).roles == ("player", "admin")

    @pytest.mark.parametrize("password", ["password", "acmeacme12", "Roulette House 1"])
    async def test_a_weak_password(self, auth: Mongo, monkeypatch: pytest.MonkeyPatch, password: str) -> None:
        typed(monkeypatch, f"{password}\n")
        with pytest.raises(Refusal):
            await create(ANNA, "acme")
        assert await auth.db["users"].count_documents({}) == 0

    async def test_of_a_tenant_that_there_is_not(self, auth: Mongo) -> None:
        with pytest.raises(Failure):
            await create(ANNA, "nowhere")
