"""Signatures, against an independent implementation and the specification's own example."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest

from libs.core.errors import Unauthenticated
from libs.core.webhooks import verify
from libs.core.webhooks.signing import new_secret, signed_headers
from tests.core.webhooks.receiver import Received

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SECRET, OTHER = new_secret(), new_secret()
BODY = b'{"a":1}'


def headers(*secrets: str) -> dict[str, str]:
    return signed_headers(secrets or (SECRET,), "msg_1", AT, BODY)


class TestSign:
    def test_as_the_specification_computes_it(self) -> None:
        secret, at = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", datetime.fromtimestamp(1614265330, UTC)
        signed = signed_headers([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", at, b'{"test": 2432232314}')
        assert signed["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

    def test_with_every_secret(self) -> None:
        received = Received(headers(SECRET, OTHER), BODY)
        assert received.signed_with(SECRET)
        assert received.signed_with(OTHER)

    def test_secrets_are_long_and_never_the_same(self) -> None:
        assert len({new_secret() for _ in range(100)}) == 100
        assert len(SECRET) == len("whsec_") + 44


class TestVerify:
    def test_answers_the_id(self) -> None:
        assert verify(SECRET, headers(), BODY, now=AT) == "msg_1"

    def test_one_of_several_signatures_is_enough(self) -> None:
        assert verify(OTHER, headers(SECRET, OTHER), BODY, now=AT) == "msg_1"

    @pytest.mark.parametrize(
        ("changes", "body"),
        [
            pytest.param({}, BODY + b" ", id="another body"),
            pytest.param({"webhook-id": "msg_2"}, BODY, id="another id"),
            pytest.param({"webhook-id": ""}, BODY, id="no id"),
            pytest.param({"webhook-timestamp": str(int(AT.timestamp()) + 1)}, BODY, id="another time"),
            pytest.param({"webhook-timestamp": "soon"}, BODY, id="no time"),
            pytest.param({"webhook-signature": ""}, BODY, id="no signature"),
            pytest.param({"webhook-signature": "v1,"}, BODY, id="an empty one"),
            pytest.param({"webhook-signature": "v0,é 💥"}, BODY, id="nonsense"),
            # Where a dot separates, moving it must not make the same text: the id's end cannot become the time's start.
            pytest.param({"webhook-id": "msg_1.1772366400", "webhook-timestamp": ""}, BODY, id="the dot moved"),
        ],
    )
    def test_refuses(self, changes: dict[str, str], body: bytes) -> None:
        with pytest.raises(Unauthenticated):
            verify(SECRET, headers() | changes, body, now=AT)

    def test_another_secret(self) -> None:
        with pytest.raises(Unauthenticated):
            verify(OTHER, headers(), BODY, now=AT)

    @pytest.mark.parametrize(
        ("late_s", "accepted"), [(0, True), (300, True), (301, False), (-300, True), (-301, False)]
    )
    def test_an_old_message_sent_once_more(self, late_s: int, accepted: bool) -> None:
        now = AT + timedelta(seconds=late_s)
        if accepted:
            assert verify(SECRET, headers(), BODY, now=now)
        else:
            with pytest.raises(Unauthenticated, match="too long ago"):
                verify(SECRET, headers(), BODY, now=now)

    @pytest.mark.parametrize("timestamp", ["١٧٧٢", "1e9", "-1", "", "9" * 500])
    def test_a_signed_timestamp_that_is_none(self, timestamp: str) -> None:
        """Whoever knows the secret may still write nonsense: it is refused, and does not crash."""
        key = base64.b64decode(SECRET.removeprefix("whsec_"))
        mac = hmac.digest(key, f"m.{timestamp}.".encode() + BODY, hashlib.sha256)
        given = {"webhook-id": "m", "webhook-timestamp": timestamp}
        given["webhook-signature"] = "v1," + base64.b64encode(mac).decode()
        with pytest.raises(Unauthenticated):
            verify(SECRET, given, BODY, now=AT)
