"""Second factors as a client meets them: GraphQL over HTTP, with a real clock."""

from base64 import b64decode
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

import httpx
import pyotp
import pytest
from argon2 import PasswordHasher

from libs.core.ids import new_id
from libs.core.mongo import Mongo
from services.auth.domain.users import User
from services.auth.store import users
from tests.auth.authenticator import Authenticator
from tests.live import Api, LiveAuth, auth_process, shared_namespace
from tests.web import web

PASSWORD = "several plain words"

LOGIN = """mutation ($input: LoginInput!) { login(input: $input) {
    ... on SignedIn { accessToken deviceToken user { secondFactors } }
    ... on SecondFactorRequired { flowId methods passkeyOptions }
    ... on Problem { code } } }"""
COMPLETE = """mutation ($input: CompleteSecondFactorInput!) { completeSecondFactor(input: $input) {
    ... on SignedIn { accessToken deviceToken } ... on Problem { code rule } } }"""
START_TOTP = """mutation { startTotp { ... on TotpSetup { flowId secret uri qrSvg qrPng expiresAt }
    ... on Problem { code } } }"""
FACTORS = """{ totp { confirmedAt } recoveryCodes { left low madeAt }
    passkeys { id name synced backedUp createdAt lastUsedAt } }"""
CONFIRM = f"""mutation ($input: ConfirmTotpInput!) {{ confirmTotp(input: $input) {{
    ... on FactorsChanged {{ newRecoveryCodes factors {FACTORS} }} ... on Problem {{ code }} }} }}"""
REMOVE_TOTP = (
    "mutation { removeTotp { ... on FactorsChanged { factors { totp { confirmedAt } } } ... on Problem { code } } }"
)
REGENERATE = "mutation { regenerateRecoveryCodes { ... on NewRecoveryCodes { codes } ... on Problem { code } } }"
MY_FACTORS = f"{{ myFactors {FACTORS} }}"
START_PASSKEY = """mutation { startPasskeyRegistration {
    ... on PasskeyCeremony { flowId options } ... on Problem { code } } }"""
FINISH_PASSKEY = """mutation ($input: FinishPasskeyRegistrationInput!) { finishPasskeyRegistration(input: $input) {
    ... on PasskeyRegistered { newRecoveryCodes passkey { id name } } ... on Problem { code } } }"""
START_LOGIN = "mutation { startPasskeyLogin { flowId options } }"
FINISH_LOGIN = """mutation ($input: FinishPasskeyLoginInput!) { finishPasskeyLogin(input: $input) {
    ... on SignedIn { accessToken user { id secondFactors } } ... on Problem { code } } }"""
RENAME = """mutation ($input: RenamePasskeyInput!) { renamePasskey(input: $input) {
    ... on Passkey { name } ... on Problem { code } } }"""
REMOVE = """mutation ($id: ID!) { removePasskey(id: $id) {
    ... on FactorsChanged { factors { passkeys { id } } } ... on Problem { code } } }"""
TRUSTED = "{ trustedDevices { edges { node { id name agent trustedUntil } } } }"
REMOVE_TRUSTED = "mutation ($id: ID!) { removeTrustedDevice(id: $id) }"
ME = "{ me { id secondFactors } }"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, mongo_url: str, redis_url: str) -> Iterator[LiveAuth]:
    with (
        shared_namespace(mongo_url, redis_url) as namespace,
        auth_process(tmp_path_factory.mktemp("auth"), mongo_url, redis_url, namespace) as live,
    ):
        yield live


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with web(timeout=30) as client:
        yield client


@pytest.fixture
def nobody(live: LiveAuth, client: httpx.AsyncClient) -> Api:
    return Api(live.server.url, "", client)


@pytest.fixture
async def name(live: LiveAuth, nobody: Api) -> str:
    """Of somebody with a password."""
    name = f"u{new_id()[-12:]}"
    hashed = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    user = User("demo", new_id(), datetime.now(UTC), roles=("player",), username=name, password=hashed)
    mongo = Mongo.connect(live.environment["MONGO_URL"], service="auth", namespace=live.environment["NAMESPACE"])
    await mongo.transaction(lambda session: users.insert(mongo.db, session, user))
    await mongo.close()
    return name


async def log_in(nobody: Api, name: str, device: str = "") -> Any:
    given = {"identifier": name, "password": PASSWORD, "device": {"token": device, "name": "Laptop"}}
    return await nobody.ask(LOGIN, input=given)


async def signed_in(nobody: Api, name: str) -> Api:
    return as_token(nobody, (await log_in(nobody, name))["accessToken"])


def as_token(nobody: Api, token: str) -> Api:
    return Api(nobody.url, token, nobody.client)


def code_of(secret: str, *, steps: int = 0) -> str:
    return pyotp.TOTP(secret).at(datetime.now(UTC) + timedelta(seconds=30 * steps))


class TestTotp:
    async def test_from_the_qr_code_to_a_login_and_back(self, nobody: Api, name: str) -> None:
        ann = await signed_in(nobody, name)
        assert (await ann.ask(ME))["secondFactors"] == []
        setup = await ann.ask(START_TOTP)
        assert "<svg" in unquote(setup["qrSvg"].removeprefix("data:image/svg+xml;charset=utf-8,"))
        assert b64decode(setup["qrPng"].removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
        confirmed = await ann.ask(CONFIRM, input={"flowId": setup["flowId"], "code": code_of(setup["secret"])})
        assert len(confirmed["newRecoveryCodes"]) == confirmed["factors"]["recoveryCodes"]["left"] == 10
        assert (await ann.ask(ME))["secondFactors"] == ["totp"]
        assert (await ann.ask(REMOVE_TOTP))["code"] == "REAUTHENTICATION_REQUIRED"

        challenge = await log_in(nobody, name)
        assert (challenge["methods"], challenge["passkeyOptions"]) == (["totp", "recovery_code"], None)
        shown = {"flowId": challenge["flowId"], "code": code_of(setup["secret"], steps=1)}
        complete = await nobody.ask(COMPLETE, input=shown)
        ann = as_token(nobody, complete["accessToken"])
        assert (await nobody.ask(COMPLETE, input=shown))["code"] == "FLOW_OVER"
        assert len((await ann.ask(REGENERATE))["codes"]) == 10
        assert (await ann.ask(REMOVE_TOTP))["factors"] == {"totp": None}
        assert (await log_in(nobody, name))["user"] == {"secondFactors": []}

    async def test_needs_a_token(self, nobody: Api) -> None:
        for query in (START_TOTP, REMOVE_TOTP, MY_FACTORS, REGENERATE, START_PASSKEY, TRUSTED):
            assert await nobody.refused(query) == "UNAUTHENTICATED"

    @pytest.mark.parametrize("more", [{}, {"code": "123456", "recoveryCode": "x"}, {"code": ""}])
    async def test_one_proof_at_a_time(self, nobody: Api, more: dict[str, str]) -> None:
        assert await nobody.refused(COMPLETE, input={"flowId": "x", **more}) == "BAD_USER_INPUT"

    async def test_aliases_do_not_multiply_tries(self, nobody: Api, name: str) -> None:
        """Ten guesses in one request are ten tries."""
        ann = await signed_in(nobody, name)
        setup = await ann.ask(START_TOTP)
        near = {code_of(setup["secret"], steps=n) for n in range(-2, 4)}
        wrong = [code for code in (f"{n:06}" for n in range(20)) if code not in near][:9]
        tries = " ".join(
            f'a{n}: confirmTotp(input: {{flowId: "{setup["flowId"]}", code: "{code}"}}) {{ ... on Problem {{ code }} }}'
            for n, code in enumerate([*wrong, code_of(setup["secret"])])
        )
        answers = [answer["code"] for answer in (await ann.ask(f"mutation {{ {tries} }}")).values()]
        assert answers == ["CODE_WRONG"] * 5 + ["FLOW_OVER"] * 5


class TestPasskeys:
    async def test_from_its_making_to_a_login_and_back(self, live: LiveAuth, nobody: Api, name: str) -> None:
        device = Authenticator(origin=live.environment["PUBLIC_URL"].replace("127.0.0.1", "localhost"))
        ann = await signed_in(nobody, name)
        started = await ann.ask(START_PASSKEY)
        finish = {"flowId": started["flowId"], "credential": device.create(started["options"]), "name": "Phone"}
        made = await ann.ask(FINISH_PASSKEY, input=finish)
        assert (made["passkey"]["name"], len(made["newRecoveryCodes"])) == ("Phone", 10)

        start = await nobody.ask(START_LOGIN)
        answer = {"flowId": start["flowId"], "credential": device.get(start["options"])}
        logged_in = await nobody.ask(FINISH_LOGIN, input=answer)
        assert logged_in["user"]["secondFactors"] == ["passkey"]
        assert (await nobody.ask(FINISH_LOGIN, input=answer))["code"] == "FLOW_OVER"
        ann = as_token(nobody, logged_in["accessToken"])

        [passkey] = (await ann.ask(MY_FACTORS))["passkeys"]
        assert passkey["lastUsedAt"]
        assert (await ann.ask(RENAME, input={"id": passkey["id"], "name": "Old phone"})) == {"name": "Old phone"}
        assert (await ann.ask(REMOVE, id=passkey["id"]))["factors"] == {"passkeys": []}

    async def test_as_second_factor(self, live: LiveAuth, nobody: Api, name: str) -> None:
        origin = live.environment["PUBLIC_URL"].replace("127.0.0.1", "localhost")
        device = Authenticator(origin=origin, verifies=False)
        ann = await signed_in(nobody, name)
        started = await ann.ask(START_PASSKEY)
        finish = {"flowId": started["flowId"], "credential": device.create(started["options"]), "name": "Key"}
        await ann.ask(FINISH_PASSKEY, input=finish)

        challenge = await log_in(nobody, name)
        assert challenge["methods"] == ["passkey", "recovery_code"]
        shown = {"flowId": challenge["flowId"], "passkey": device.get(challenge["passkeyOptions"])}
        assert (await nobody.ask(COMPLETE, input=shown))["accessToken"]

        start = await nobody.ask(START_LOGIN)
        alone = {"flowId": start["flowId"], "credential": device.get(start["options"])}
        assert (await nobody.ask(FINISH_LOGIN, input=alone))["code"] == "PASSKEY_REFUSED"

    @pytest.mark.parametrize("credential", ["text", 7, [], {"rawId": {"$ne": ""}}, None])
    async def test_what_is_no_credential(self, nobody: Api, credential: Any) -> None:
        start = await nobody.ask(START_LOGIN)
        answer = {"flowId": start["flowId"], "credential": credential}
        if credential is None:
            assert await nobody.refused(FINISH_LOGIN, input=answer) == "BAD_USER_INPUT"
        else:
            assert (await nobody.ask(FINISH_LOGIN, input=answer))["code"] == "PASSKEY_REFUSED"


class TestTrustedDevices:
    async def test_trusted_listed_removed(self, nobody: Api, name: str) -> None:
        ann = await signed_in(nobody, name)
        setup = await ann.ask(START_TOTP)
        given = {"flowId": setup["flowId"], "code": code_of(setup["secret"])}
        codes = (await ann.ask(CONFIRM, input=given))["newRecoveryCodes"]
        challenge = await log_in(nobody, name)
        shown = {"flowId": challenge["flowId"], "recoveryCode": codes[0], "trustDevice": True}
        trusted = await nobody.ask(COMPLETE, input=shown | {"device": {"name": "Laptop"}})

        again = await log_in(nobody, name, trusted["deviceToken"])
        ann = as_token(nobody, again["accessToken"])
        [edge] = (await ann.ask(TRUSTED))["edges"]
        assert edge["node"]["name"] == "Laptop"
        assert (await ann.ask(START_TOTP))["code"] == "REAUTHENTICATION_REQUIRED"
        assert await ann.ask(REMOVE_TRUSTED, id=edge["node"]["id"]) is True
        assert await ann.ask(REMOVE_TRUSTED, id=edge["node"]["id"]) is False
        assert "methods" in await log_in(nobody, name, trusted["deviceToken"])
