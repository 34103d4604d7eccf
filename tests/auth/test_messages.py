"""Messages on their way: sealed, in the transaction of what they tell of, in order for whoever gets them."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from libs.core.clock import SystemClock
from libs.core.errors import Misconfigured
from libs.core.events import OUTBOX_INDEXES, SUBSCRIBER_INDEXES, Event, Outbox, Relay
from libs.core.migrations import migrate
from libs.core.mongo import Mongo, Session
from libs.core.redis import Redis
from libs.core.testing import eventually
from services.auth import subscribers
from services.auth.messages import Messages
from services.auth.settings import AuthSettings
from services.auth.store.messages import DEVELOPMENT_INDEXES, keep, latest
from tests.auth.conftest import House

KEY, NEWER = "the-key-of-the-message-tests-0001", "the-key-of-the-message-tests-0002"
ANNA = "anna@example.com"
SECRET = SecretStr("a secret that is long enough for it")
PRODUCTION = AuthSettings(mode="production", auth_key=SECRET, message_key=SECRET, cursor_secret=SECRET)
CODE: dict[str, Any] = {"code": "482913", "link": "https://example.com/#code=482913", "locale": "pt"}


@pytest.fixture
async def messages(mongo: Mongo) -> Messages:
    await migrate(mongo.db, OUTBOX_INDEXES)
    return made(mongo)


def made(mongo: Mongo, keys: str = KEY) -> Messages:
    return Messages(Outbox(mongo.db), SystemClock(), keys)


async def queue(mongo: Mongo, messages: Messages, recipient: str = ANNA, tenant: str = "demo", **params: Any) -> None:
    until = SystemClock().now() + timedelta(minutes=10)

    async def work(session: Session) -> None:
        await messages.queue(session, tenant, "email", recipient, "login_code", params or CODE, until)

    await mongo.transaction(work)


async def events(mongo: Mongo) -> list[Event]:
    texts = [row["events"] async for row in mongo.db.outbox.find({}).sort("at", 1)]
    return [Event.from_json(line) for text in texts for line in text.splitlines()[1::2]]


class TestQueue:
    async def test_opens_to_what_was_asked_for(self, mongo: Mongo, messages: Messages) -> None:
        await queue(mongo, messages)
        (event,) = await events(mongo)
        message = messages.opened(event)
        assert (message.recipient, message.params, message.template) == (ANNA, CODE, "login_code")
        assert (message.tenant_id, message.channel, message.id) == ("demo", "email", event.subject)
        assert messages.queued == 1

    async def test_nothing_of_it_is_in_the_clear(self, mongo: Mongo, messages: Messages) -> None:
        await queue(mongo, messages)
        for name in await mongo.db.list_collection_names():
            rows = str(await mongo.db[name].find({}).to_list())
            assert not any(secret in rows for secret in ("anna", "482913", "example.com"))

    async def test_a_transaction_that_fails_sends_nothing(self, mongo: Mongo, messages: Messages) -> None:
        async def work(session: Session) -> None:
            await messages.queue(session, "demo", "sms", "+351910000000", "login_code", CODE, SystemClock().now())
            raise LookupError

        with pytest.raises(LookupError):
            await mongo.transaction(work)
        assert await events(mongo) == []

    async def test_what_there_is_no_template_for(self, mongo: Mongo, messages: Messages) -> None:
        async def work(session: Session) -> None:
            await messages.queue(session, "demo", "email", ANNA, "congratulations", {}, SystemClock().now())

        with pytest.raises(ValueError, match="no message 'congratulations'"):
            await mongo.transaction(work)

    async def test_one_recipients_are_in_order_and_nobody_elses_wait(self, mongo: Mongo, messages: Messages) -> None:
        await queue(mongo, messages)
        await queue(mongo, messages)
        await queue(mongo, messages, "bob@example.com")
        await queue(mongo, messages, tenant="other")
        numbered = [(event.partition_key, event.sequence) for event in await events(mongo)]
        assert [sequence for _, sequence in numbered] == [1, 2, 1, 1]
        assert len({key for key, _ in numbered}) == 3

    async def test_many_at_once(self, mongo: Mongo, messages: Messages) -> None:
        await asyncio.gather(*(queue(mongo, messages, f"user{n % 3}@example.com") for n in range(30)))
        assert len(await events(mongo)) == 30


class TestOpened:
    async def test_with_another_key(self, mongo: Mongo, messages: Messages) -> None:
        await queue(mongo, messages)
        (event,) = await events(mongo)
        assert made(mongo, f"{NEWER},{KEY}").opened(event).recipient == ANNA
        with pytest.raises(Misconfigured):
            made(mongo, NEWER).opened(event)

    @pytest.mark.parametrize("change", [{"tenant_id": "other"}, {"data": {"message_id": "another"}}])
    async def test_put_into_anothers_envelope(self, mongo: Mongo, messages: Messages, change: dict[str, Any]) -> None:
        await queue(mongo, messages)
        (event,) = await events(mongo)
        moved = replace(event, **{**change, "data": {**event.data, **change.get("data", {})}})
        with pytest.raises(Misconfigured, match="sealed for another owner"):
            messages.opened(moved)


class TestSubscriber:
    async def test_in_development_they_are_kept(self, house: House, mongo: Mongo, redis: Redis) -> None:
        """By way of outbox, relay and Redis, as everybody's messages go."""
        platform = replace(house.auth.platform, mongo=mongo, redis=redis, outbox=Outbox(mongo.db))
        await migrate(mongo.db, (*OUTBOX_INDEXES, *SUBSCRIBER_INDEXES, *DEVELOPMENT_INDEXES))
        auth = replace(house.auth, platform=platform, messages=made(mongo))
        (subscriber,) = subscribers.of_auth(platform, auth)
        async with Relay(mongo, redis, platform.outbox, source="auth"), subscriber:
            await queue(mongo, auth.messages)
            platform.outbox.kick()
            (message,) = await eventually(lambda: latest(mongo.db, "demo", ANNA, 9))
        assert (message.template, message.params) == ("login_code", CODE)

    async def test_in_production_nobody_here_opens_them(self, house: House) -> None:
        platform = replace(house.auth.platform, settings=PRODUCTION)
        assert list(subscribers.of_auth(platform, house.auth)) == []


class TestKept:
    async def test_the_newest_first_and_each_tenants_own(self, mongo: Mongo, messages: Messages) -> None:
        await migrate(mongo.db, DEVELOPMENT_INDEXES)
        for code in "123":
            await queue(mongo, messages, code=code)
        await queue(mongo, messages, "bob@example.com", code="4")
        await queue(mongo, messages, tenant="other", code="5")
        opened = [messages.opened(event) for event in await events(mongo)]

        async def work(session: Session) -> None:
            await keep(mongo.db, session, opened)

        await mongo.transaction(work)
        found = await latest(mongo.db, "demo", ANNA, 2)
        assert [message.params["code"] for message in found] == ["3", "2"]
        assert [message.params["code"] for message in await latest(mongo.db, "demo", None, 9)] == ["4", "3", "2", "1"]
