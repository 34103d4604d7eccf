"""Identities: who somebody is to a provider, and which user that is here."""

from dataclasses import dataclass
from datetime import datetime

from services.auth.domain.users import User


@dataclass(frozen=True, slots=True)
class Proven:
    """What a provider vouched for. `email` is there if it says that it verified it; `name` and `locale` are a hint.

    Nothing but `issuer` and `subject` says who it is: addresses change hands, and names are chosen.
    """

    issuer: str
    subject: str
    email: str = ""
    name: str = ""
    locale: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """`label` tells several of one provider apart for their owner, who alone sees it: the address it had at first."""

    id: str
    tenant_id: str
    user_id: str
    issuer: str
    subject: str
    label: str
    linked_at: datetime
    last_used_at: datetime


def signs_in_without(user: User, others: int) -> bool:
    """Whether there is a way in besides one identity, of which the user has `others` more.

    A code or link can be had at a verified address; a username takes a password; a passkey takes nothing else.
    """
    by_name = bool(user.username and user.password)
    return bool(user.email or user.phone or by_name or "passkey" in user.second_factors or others)
