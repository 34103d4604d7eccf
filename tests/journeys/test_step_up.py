"""A payment above the tenant's amount: refused, confirmed with a code of an app, and done; that one and no other."""

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from libs.core.clock import SystemClock
from libs.core.crypto import SecretBox
from libs.core.ids import new_id
from libs.core.redis import Redis
from libs.core.settings import DEVELOPMENT_SECRET
from libs.core.stepup import SensitiveOperation
from libs.core.testing import eventually
from services.auth.keys import SigningKeys
from services.auth.settings import AuthSettings
from services.auth.store import sessions
from services.auth.tokens import step_up_token
from tests.journeys.house import PASSWORD, TRANSFER, Doors, House, Person, house
from tests.live import shared_namespace


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, mongo_url: str, redis_url: str) -> Iterator[House]:
    folder: Path = tmp_path_factory.mktemp("house")
    with (
        shared_namespace(mongo_url, redis_url) as namespace,
        house(folder, mongo_url, redis_url, namespace, step_up_above={"EUR": 100}) as live,
    ):
        yield live


@pytest.fixture
async def doors(live: House) -> AsyncIterator[Doors]:
    async with live.doors() as doors:
        yield doors


@pytest.fixture
async def ann(doors: Doors) -> Person:
    """With 1,000 in her wallet, and an authenticator app."""
    ann = await doors.person(real=1000)
    await ann.set_up_totp()
    return ann


@pytest.fixture
async def ben(doors: Doors) -> Person:
    return await doors.person(real=1000)


async def asked(person: Person, order: dict[str, Any]) -> dict[str, str]:
    """What payment wants to be confirmed."""
    problem = await person.pay(**order)
    assert problem["code"] == "STEP_UP_REQUIRED", problem
    operation: dict[str, str] = problem["details"]["operation"]
    return operation


async def test_refused_confirmed_and_done(ann: Person, ben: Person) -> None:
    order = {"id": new_id(), "destinationWalletId": ben.wallet, "amount": "500"}
    confirmed = await ann.step_up(await asked(ann, order), totp=ann.totp(ahead=1))
    done = await ann.pay(**order, stepUpToken=confirmed["stepUpToken"])
    assert (done["__typename"], done["amount"]) == ("Transfer", "500")
    assert await ann.pay(**order, stepUpToken=confirmed["stepUpToken"]) == done
    assert await ann.pay(**order) == done


async def test_the_token_is_for_that_payment_alone(ann: Person, ben: Person, doors: Doors) -> None:
    cara = await doors.person(real=1)
    order = {"id": new_id(), "destinationWalletId": ben.wallet, "amount": "500"}
    token = (await ann.step_up(await asked(ann, order), totp=ann.totp(ahead=1)))["stepUpToken"]
    for other in ({"amount": "501"}, {"id": new_id()}, {"destinationWalletId": cara.wallet}):
        assert (await ann.pay(**order | other, stepUpToken=token))["code"] == "STEP_UP_INVALID"


async def test_a_code_confirms_once(ann: Person, ben: Person) -> None:
    order = {"id": new_id(), "destinationWalletId": ben.wallet, "amount": "500"}
    operation, code = await asked(ann, order), ann.totp(ahead=1)
    assert (await ann.step_up(operation, totp=code))["__typename"] == "OperationConfirmed"
    assert (await ann.step_up(operation, totp=code))["code"] == "SECOND_FACTOR_WRONG"


async def test_another_users_token(ann: Person, ben: Person) -> None:
    """Ben may confirm what Ann wants to do, as far as he is concerned; payment does not take it from her."""
    order = {"id": new_id(), "destinationWalletId": ben.wallet, "amount": "500"}
    confirmed = await ben.step_up(await asked(ann, order), password=PASSWORD)
    assert (await ann.pay(**order, stepUpToken=confirmed["stepUpToken"]))["code"] == "STEP_UP_INVALID"


async def test_a_token_of_ones_other_session(ben: Person, ann: Person, doors: Doors) -> None:
    order = {"id": new_id(), "destinationWalletId": ann.wallet, "amount": "500"}
    elsewhere = await doors.sign_in(ben.name)
    confirmed = await elsewhere.step_up(await asked(ben, order), password=PASSWORD)
    assert (await ben.pay(**order, stepUpToken=confirmed["stepUpToken"]))["code"] == "STEP_UP_INVALID"


async def test_an_expired_token(ben: Person, ann: Person, doors: Doors, redis_url: str) -> None:
    """Made with auth's own key, as it would have been made five minutes ago."""
    order = {"id": new_id(), "destinationWalletId": ann.wallet, "amount": "500"}
    operation = SensitiveOperation.of(await asked(ben, order))
    environment = doors.house.auth.environment
    settings = AuthSettings(mode="development", token_issuer=environment["TOKEN_ISSUER"])
    opened = await sessions.load(doors.mongo.db, None, "demo", ben.session_id)
    assert opened
    redis = Redis.connect(redis_url, namespace=environment["NAMESPACE"])
    box = SecretBox(DEVELOPMENT_SECRET, purpose="auth secrets")
    async with SigningKeys(doors.mongo.db, redis, SystemClock(), box) as keys:
        for lives, outcome in ((timedelta(0), "STEP_UP_INVALID"), (timedelta(minutes=5), None)):
            token = step_up_token(keys, settings, opened, operation.digest, lives)
            assert (await ben.pay(**order, stepUpToken=token)).get("code") == outcome
    await redis.close()


async def test_a_revoked_session(ben: Person, ann: Person) -> None:
    order = {"id": new_id(), "destinationWalletId": ann.wallet, "amount": "500"}
    token = (await ben.step_up(await asked(ben, order), password=PASSWORD))["stepUpToken"]
    assert await ben.auth.ask("mutation { logout }")

    async def is_refused() -> bool:
        given = {"sourceWalletId": ben.wallet, "currency": "EUR", "stepUpToken": token, **order, "id": "never"}
        answer = (await ben.payment.post(TRANSFER, input=given)).json()
        return "errors" in answer and answer["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"

    await eventually(is_refused, within_s=2)


async def test_a_fresh_session_confirms_nothing(ben: Person, ann: Person) -> None:
    order = {"id": new_id(), "destinationWalletId": ann.wallet, "amount": "500"}
    await asked(ben, order)
    fresh = await ben.step_up(None, password=PASSWORD)
    ben.payment.token = fresh["accessToken"]
    assert (await ben.pay(**order))["code"] == "STEP_UP_REQUIRED"
    assert (await ben.pay(**order, stepUpToken=fresh["accessToken"]))["code"] == "STEP_UP_INVALID"
