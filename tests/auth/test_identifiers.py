import re

import phonenumbers
import pytest
from hypothesis import given, strategies as st

from libs.core.errors import InvalidInput
from services.auth.domain.identifiers import (
    Identifier,
    parse_email,
    parse_identifier,
    parse_phone,
    parse_username,
)

ATEXT = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+/=?^_`{|}~-"
locals_ = st.lists(st.text(ATEXT, min_size=1, max_size=10), min_size=1, max_size=4).map(".".join)
domains = st.lists(st.text("abcxyzABC019", min_size=1, max_size=12), min_size=1, max_size=3).map(
    lambda labels: ".".join([*labels, "example"])
)
usernames = st.from_regex(r"[A-Za-z][a-z0-9]{0,4}([._-][A-Za-z0-9]{2,5}){1,4}", fullmatch=True)
mobiles = [
    phonenumbers.example_number_for_type(region, phonenumbers.PhoneNumberType.MOBILE)
    for region in sorted(phonenumbers.SUPPORTED_REGIONS)
]
numbers = st.sampled_from([number for number in mobiles if number])


def limit_key(text: str) -> str:
    return parse_identifier(text, "login").limit_key


class TestIdentifier:
    @given(st.one_of(st.builds("{}@{}".format, locals_, domains), usernames, st.text()))
    def test_what_is_parsed_parses_to_itself(self, text: str) -> None:
        try:
            once = parse_identifier(text, "login")
        except InvalidInput:
            return
        assert parse_identifier(once.value, "login") == once
        assert parse_identifier(f" {text.strip()}\n", "login") == once

    @given(st.one_of(st.builds("{}@{}".format, locals_, domains), usernames))
    def test_case_never_matters(self, text: str) -> None:
        assert parse_identifier(text.upper(), "login") == parse_identifier(text.lower(), "login")

    @given(st.text())
    def test_kinds_never_meet(self, text: str) -> None:
        parsed = []
        for parse in (parse_email, parse_phone, parse_username):
            try:
                parsed.append(parse(text, "login"))
            except InvalidInput:
                continue
        assert len(parsed) <= 1
        assert not parsed or parsed[0] == parse_identifier(text, "login")

    def test_the_message_does_not_repeat_what_was_written(self) -> None:
        with pytest.raises(InvalidInput) as refused:
            parse_identifier("hunter2@", "input.login")
        assert "hunter2" not in refused.value.message + str(refused.value.details)


class TestEmail:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("Anna.Smith+Work@Example.COM", "anna.smith+work@example.com"),
            ("anna@bücher.example", "anna@xn--bcher-kva.example"),
            ("anna@BU\u0308CHER.example", "anna@xn--bcher-kva.example"),
            ("anna@faß.example", "anna@xn--fa-hia.example"),
            ("ANNÉ@example.com", "anné@example.com"),
            ("anne\u0301@example.com", "anné@example.com"),
            ("anna@example。com", "anna@example.com"),
        ],
    )
    def test_one_spelling(self, text: str, value: str) -> None:
        assert parse_email(text, "email").value == value

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("", "nothing"),
            ("anna", "no @"),
            ("@example.com", "no local part"),
            ("anna@", "no domain"),
            ("anna@localhost", "not a name of the Internet"),
            ("anna@[127.0.0.1]", "an address of a machine"),
            ("anna@127.0.0.1", "the same"),
            ("anna@exa_mple.com", "no host's name"),
            ("anna@-example.com", "a label begins with a letter or digit"),
            ("anna@xn--a.com", "not what punycode makes of any name"),
            ("anna..b@example.com", "no dot twice"),
            (".anna@example.com", "no dot first"),
            ('"anna smith"@example.com', "quoted"),
            ("anna smith@example.com", "a space"),
            ("anna@evil.com\nBcc: all@example.com", "another header"),
            ("a\x00nna@example.com", "NUL"),
            ("anna@exam\x00ple.com", "NUL"),
            ("eve@evil.com@example.com", "two"),
            ("anna@example.com,eve@evil.com", "two"),
            ("\u212aate@example.com", "the Kelvin sign lowers to k: another's address"),
            ("\uff41nna@example.com", "a wide a"),
            ("o\ufb01ce@example.com", "a ligature"),
            ("an\u200bna@example.com", "nothing to see"),
            ("an\u202ena@example.com", "turns the direction"),
            ("an\ud800na@example.com", "half a character"),
            ("anna@\ud800.com", "half a character"),
            ("a" * 65 + "@example.com", "a local part of 65"),
            ("é" * 33 + "@example.com", "66 bytes"),
            ("a@" + ".".join(["b" * 60] * 5) + ".com", "over 254"),
        ],
    )
    def test_none(self, text: str, why: str) -> None:
        with pytest.raises(InvalidInput):
            parse_email(text, "email")

    def test_dotless_i_is_another_letter(self) -> None:
        """Upper and lower case meet in `I`: those who compare by upper case reset the password of another."""
        assert parse_email("mıke@example.com", "email").value != parse_email("mike@example.com", "email").value


class TestPhone:
    @given(numbers)
    def test_however_it_is_written(self, number: phonenumbers.PhoneNumber) -> None:
        formats = phonenumbers.PhoneNumberFormat
        e164 = phonenumbers.format_number(number, formats.E164)
        assert parse_phone(phonenumbers.format_number(number, formats.INTERNATIONAL), "phone").value == e164
        assert parse_phone(e164, "phone").value == e164

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("0170 1234567", "of which country"),
            ("+49", "too short"),
            ("+49 170 12345678901234567890", "too long"),
            ("+1 800 FLOWERS", "letters"),
            ("+49 170 1234567 ext. 5", "an extension"),
            ("+４９１７０１２３４５６７", "wide digits"),
            ("+44 9098790000", "a premium rate"),
            ("+49 180 5 123456", "shared costs"),
            ("+1 555 0100", "nobody's"),
            ("+" * 20, "nothing"),
        ],
    )
    def test_none(self, text: str, why: str) -> None:
        with pytest.raises(InvalidInput):
            parse_phone(text, "phone")


class TestUsername:
    @given(usernames)
    def test_letters_and_digits_with_separators(self, name: str) -> None:
        if len(name) <= 32:
            assert re.fullmatch(r"[a-z0-9._-]{3,32}", parse_username(name, "username").value)

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("ab", "short"),
            ("a" * 33, "long"),
            ("491701234567", "could be a phone number"),
            ("anna..b", "two separators"),
            ("_anna", "a separator first"),
            ("anna-", "a separator last"),
            ("аnna", "a Cyrillic a"),
            ("anna\u0301", "an accent"),
            ("an na", "a space"),
            ("anna\x00", "NUL"),
            ("\u212aate", "the Kelvin sign lowers to k"),
            ("__proto__", "neither"),
            ("$where", "nor this"),
        ],
    )
    def test_none(self, text: str, why: str) -> None:
        with pytest.raises(InvalidInput):
            parse_username(text, "username")


class TestLimitKey:
    @pytest.mark.parametrize(
        "text",
        [
            "annasmith@gmail.com",
            "a.n.n.a.smith@gmail.com",
            "Anna.Smith+casino@GoogleMail.com",
            "annasmith+@gmail.com",
        ],
    )
    def test_one_mailbox_under_many_names(self, text: str) -> None:
        assert limit_key(text) == "email:annasmith@gmail.com"

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("anna+1@example.com", "anna+2@example.com"),
            ("anna-1@yahoo.com", "anna@yahoo.com"),
            ("a_n-n.a@pm.me", "anna@protonmail.com"),
            ("anna@me.com", "anna@icloud.com"),
            ("Anna_B", "anna_b"),
        ],
    )
    def test_the_same(self, one: str, other: str) -> None:
        assert limit_key(one) == limit_key(other)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("anna.b@example.com", "annab@example.com"),
            ("anna-b@gmail.com", "annab@gmail.com"),
            ("+anna@example.com", "+bob@example.com"),
            ("anna@gmail.com", "anna@gmail.example"),
        ],
    )
    def test_others(self, one: str, other: str) -> None:
        assert limit_key(one) != limit_key(other)

    @given(st.builds("{}@{}".format, locals_, domains))
    def test_is_never_empty(self, text: str) -> None:
        found: Identifier = parse_email(text, "email")
        assert re.fullmatch(r"email:.+@.+\.example", found.limit_key)
