"""What people log in by: an e-mail address, a phone number or a username, each in one spelling.

What is told apart here is the text alone, so that it reads the same whether such an account exists or not: with an `@`
it is an e-mail address, without any letter a phone number, and else a username, which therefore has a letter.
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

import idna
import phonenumbers
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from libs.core.errors import InvalidInput
from services.auth.domain.messages import Channel

IdentifierKind = Literal["email", "phone", "username"]

# RFC 5321 section 4.5.3.1, in octets: what a path and a local part may have at most.
_EMAIL_BYTES = 254
_LOCAL_BYTES = 64
_PHONE_CHARS = 32

_DOT_ATOM = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*", re.ASCII)
_DOMAIN = re.compile(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])", re.ASCII)
_PHONE = re.compile(r"\+[0-9 ()./-]+", re.ASCII)
# No separator twice, first or last: what can hardly be told apart is hardly a name.
_USERNAME = re.compile(r"(?=.{3,32}\Z)(?=.*[a-z])[a-z0-9]+([._-][a-z0-9]+)*", re.ASCII)

# Messages to these cost whoever sends or receives them, and reach no person: a way to earn money with our SMS.
_NOT_FOR_MESSAGES = frozenset(
    {
        PhoneNumberType.PREMIUM_RATE,
        PhoneNumberType.SHARED_COST,
        PhoneNumberType.TOLL_FREE,
        PhoneNumberType.UAN,
        PhoneNumberType.VOICEMAIL,
        PhoneNumberType.PAGER,
    }
)

# Providers under several names for the same mailboxes, and what they ignore in a local part.
_SAME_MAILBOXES = {
    "googlemail.com": "gmail.com",
    "protonmail.com": "proton.me",
    "protonmail.ch": "proton.me",
    "pm.me": "proton.me",
    "me.com": "icloud.com",
    "mac.com": "icloud.com",
}
_IGNORED = {"gmail.com": ".", "proton.me": "._-"}
_TAGS = {"yahoo.com": "-", "ymail.com": "-"}


@dataclass(frozen=True, slots=True)
class Identifier:
    """`value` is the one spelling that is stored, looked up and sent to.

    `limit_key` is for counting alone: the many addresses of one mailbox share it. It is not an address.
    """

    kind: IdentifierKind
    value: str
    limit_key: str

    @property
    def channel(self) -> Channel:
        """How a code gets there, which is also how whoever enters it has proven who they are."""
        return "sms" if self.kind == "phone" else "email"


def parse_identifier(text: str, field: str) -> Identifier:
    """`InvalidInput` names `field`, here and below, and never repeats what was written."""
    if "@" in text or "＠" in text:
        return parse_email(text, field)
    if any(character.isalpha() for character in text):
        return parse_username(text, field)
    return parse_phone(text, field)


def parse_email(text: str, field: str) -> Identifier:
    """The domain in its ASCII form (IDNA 2008 over UTS 46), all in lower case.

    By the standard a local part's case is its host's to interpret; no host of importance tells cases apart, and two
    accounts that do are one person twice, or one who passes for another.
    """
    local, at, domain = text.strip().rpartition("@")
    local = _lowered_local(local)
    domain = _ascii_domain(domain)
    if not (at and local and domain) or len(f"{local}@{domain}".encode()) > _EMAIL_BYTES:
        raise InvalidInput(f"{field} must be an e-mail address, such as anna@example.com", field=field)
    return Identifier("email", f"{local}@{domain}", f"email:{_mailbox(local, domain)}")


def parse_phone(text: str, field: str) -> Identifier:
    """In E.164: `+` and up to 15 digits. Only what can be sent to: no premium rates, no services."""
    written = text.strip()
    try:
        if len(written) > _PHONE_CHARS or not _PHONE.fullmatch(written):
            raise ValueError
        number = phonenumbers.parse(written)
    except (ValueError, phonenumbers.NumberParseException):
        raise _no_phone(field) from None
    if not phonenumbers.is_valid_number(number) or phonenumbers.number_type(number) in _NOT_FOR_MESSAGES:
        raise _no_phone(field)
    value = phonenumbers.format_number(number, PhoneNumberFormat.E164)
    return Identifier("phone", value, f"phone:{value}")


def parse_username(text: str, field: str) -> Identifier:
    """ASCII alone: there is no second character that looks like one of its own."""
    name = text.strip()
    folded = name.lower() if name.isascii() else ""
    if not _USERNAME.fullmatch(folded):
        raise InvalidInput(
            f"{field} must be 3 to 32 letters (a to z) and digits, at least one of them a letter, with single "
            "'.', '_' or '-' between them",
            field=field,
        )
    return Identifier("username", folded, f"username:{folded}")


def _no_phone(field: str) -> InvalidInput:
    return InvalidInput(
        f"{field} must be a phone number that gets messages, with its country: + and up to 15 digits", field=field
    )


def _lowered_local(local: str) -> str:
    """Empty if it is none. Quoted ones are none: nobody has one, and they hold spaces and line breaks."""
    if len(local) > _LOCAL_BYTES:
        return ""
    lowered = unicodedata.normalize("NFC", unicodedata.normalize("NFC", local).lower())
    plain = "".join(character if character.isascii() else "x" for character in lowered)
    fits = len(lowered.encode(errors="replace")) <= _LOCAL_BYTES and _DOT_ATOM.fullmatch(plain)
    return lowered if fits and all(map(_is_letter_of_its_own, set(local) | set(lowered))) else ""


def _is_letter_of_its_own(character: str) -> bool:
    """Any of ASCII, which the pattern judges; beyond it letters, marks and digits that do not stand for ASCII ones.

    `ﬁ`, `ａ` and the Kelvin sign become ASCII on the way through some mail system: then it is another's address.
    """
    if character.isascii():
        return True
    becomes = unicodedata.normalize("NFKC", character).lower()
    return unicodedata.category(character)[0] in "LMN" and not any(other.isascii() for other in becomes)


def _ascii_domain(domain: str) -> str:
    """Empty if it is none that mail is sent to over the Internet."""
    if len(domain) > _EMAIL_BYTES:
        return ""
    try:
        name = idna.encode(domain, uts46=True, std3_rules=True).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError):
        return ""
    return name if _DOMAIN.fullmatch(name) else ""


def _mailbox(local: str, domain: str) -> str:
    domain = _SAME_MAILBOXES.get(domain, domain)
    before, *_ = re.split(rf"[+{re.escape(_TAGS.get(domain, ''))}]", local)
    name = "".join(character for character in before or local if character not in _IGNORED.get(domain, ""))
    return f"{name or local}@{domain}"
