"""An authenticator app: its codes, and setting it up and taking it away."""

from datetime import UTC, datetime, timedelta

import pyotp
import pytest

from services.auth.domain.totp import STEP_S, accepted_step, new_totp_secret, provisioning_uri, step_of

SECRET = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"  # RFC 6238's, "12345678901234567890"
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def code_at(at: datetime, secret: str = SECRET) -> str:
    return pyotp.TOTP(secret).at(at)


class TestAcceptedStep:
    @pytest.mark.parametrize(
        ("seconds", "code"),
        [
            (59, "287082"),
            (1111111109, "081804"),
            (1111111111, "050471"),
            (1234567890, "005924"),
            (2000000000, "279037"),
            (20000000000, "353130"),
        ],
    )
    def test_the_rfcs_own_examples(self, seconds: int, code: str) -> None:
        at = datetime.fromtimestamp(seconds, UTC)
        assert accepted_step(SECRET, code, at, last_step=0) == seconds // STEP_S

    @pytest.mark.parametrize(
        ("steps_off", "accepted"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)], ids=str
    )
    def test_a_clock_that_is_off(self, steps_off: int, accepted: bool) -> None:
        shown = code_at(NOW + timedelta(seconds=STEP_S * steps_off))
        found = accepted_step(SECRET, shown, NOW, last_step=0)
        assert found == (step_of(NOW) + steps_off if accepted else None)

    def test_a_step_that_was_used(self) -> None:
        assert accepted_step(SECRET, code_at(NOW), NOW, last_step=step_of(NOW)) is None

    def test_a_step_before_one_that_was_used(self) -> None:
        earlier = code_at(NOW - timedelta(seconds=STEP_S))
        assert accepted_step(SECRET, earlier, NOW, last_step=step_of(NOW)) is None

    def test_the_step_after_one_that_was_used(self) -> None:
        assert accepted_step(SECRET, code_at(NOW), NOW, last_step=step_of(NOW) - 1) == step_of(NOW)

    def test_as_apps_show_it_with_a_blank(self) -> None:
        code = code_at(NOW)
        assert accepted_step(SECRET, f"{code[:3]} {code[3:]}", NOW, last_step=0) == step_of(NOW)

    @pytest.mark.parametrize("code", ["", "12345", "1234567", "12345a", "１２３４５６", "123456\n", "null", "-12345"])
    def test_what_is_no_code(self, code: str) -> None:
        assert accepted_step(SECRET, code, NOW, last_step=0) is None

    def test_another_secrets_code(self) -> None:
        other = new_totp_secret()
        shown = {code_at(NOW + timedelta(seconds=STEP_S * n)) for n in (-1, 0, 1)}
        code = code_at(NOW, other)
        assert code in shown or accepted_step(SECRET, code, NOW, last_step=0) is None


class TestProvisioning:
    def test_an_app_reads_back_what_we_mean(self) -> None:
        read = pyotp.parse_uri(provisioning_uri(SECRET, issuer="Lucky: Casino & Co", account="ann+1@example.com"))
        assert isinstance(read, pyotp.TOTP)
        assert (read.secret, read.name, read.issuer) == (SECRET, "ann+1@example.com", "Lucky  Casino & Co")
        assert (read.digits, read.interval) == (6, STEP_S)

    def test_secrets_have_160_bits(self) -> None:
        assert len(pyotp.TOTP(new_totp_secret()).byte_secret()) == 20
        assert new_totp_secret() != new_totp_secret()
