"""How often may be tried, and how much may be sent: for an account, a device, an address.

Tries at a password are counted when they begin, so that twenty at once are twenty, and before anybody knows whether
there is such an account, so that it makes no difference. For each account there are two counts (after OWASP's "device
cookies"): devices that it was signed in on have one each, and all others share one. Whoever guesses from elsewhere
slows down everybody but the owner at a device of theirs.

An address has two limits more, which devices that are known to the account are spared: its failures slow it down, and
it may try so many accounts alone (a list of stolen passwords is one try for each of many).
"""

from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from prometheus_client import Counter

from libs.core.config import Config
from libs.core.errors import RateLimited, Unavailable
from libs.core.ratelimit import Backoff, Distinct, Limiter, Rate, Rates, Take
from libs.core.redis import Redis
from services.auth.domain.identifiers import Identifier
from services.auth.settings import AuthConfig, SendLimit

# Who shares an IPv6 network of 64 bits is one subscriber: they have as many addresses as they like.
_IPV6_SUBSCRIBER_BITS = 64

# The alarm: `admitted` without `succeeded` are failures, whose rate jumps when lists of stolen passwords are tried.
_TRIES = Counter("auth_login_tries", "Tries at passwords, by what became of them", ["tenant", "outcome"])
_SENDS = Counter("auth_message_limits", "Messages asked for, by whether the limits let them", ["tenant", "outcome"])


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try that was let begin: what is cleared when it succeeds, and what is only given back."""

    tenant_id: str
    cleared: tuple[Take, ...]
    given_back: tuple[Take, ...] = ()


class Throttle:
    def __init__(self, redis: Redis, config: Config) -> None:
        self._limiter = Limiter(redis, "auth")
        self._config = config

    async def admit(self, tenant_id: str, account: Identifier, address: str, device: str | None) -> Attempt:
        """Counts a try. `RateLimited` if it comes too early, `Unavailable` if nobody can tell.

        `device`: the key of one that is known to be the account's; None for any other, and without an account.
        """
        config = self._config.get(AuthConfig, tenant_id)
        who = f"{tenant_id}:{account.limit_key}"
        if device:
            takes = {"device": Take(f"device:{who}:{device}", _account(config))}
            return await self._begin(tenant_id, takes)
        where = f"{tenant_id}:{network(address)}"
        takes = {
            "account": Take(f"account:{who}", _account(config)),
            "address": Take(f"address:{where}", _address(config)),
            "accounts": Take(f"accounts:{where}", Distinct(who, config.address_accounts, config.address_accounts_s)),
        }
        return await self._begin(tenant_id, takes)

    async def admit_known(self, tenant_id: str, user_id: str) -> Attempt:
        """A try of somebody who is signed in, at their own password: a stolen session is no way to guess it."""
        rule = _account(self._config.get(AuthConfig, tenant_id))
        return await self._begin(tenant_id, {"account": Take(f"user:{tenant_id}:{user_id}", rule)})

    async def admit_factor(self, tenant_id: str, user_id: str, device: str | None) -> Attempt:
        """A try at the second factor of somebody whose first was right, over all flows: a code has six digits only.

        `device` as for `admit`: whoever knows the password alone slows down everybody but its owner.
        """
        rule, who = _account(self._config.get(AuthConfig, tenant_id)), f"{tenant_id}:{user_id}"
        if device:
            return await self._begin(tenant_id, {"device": Take(f"factor-device:{who}:{device}", rule)})
        return await self._begin(tenant_id, {"account": Take(f"factor:{who}", rule)})

    async def admit_key(self, tenant_id: str, address: str) -> Attempt:
        """A try at an API key. None that is right counts: an honest client shows its key every few minutes."""
        rule = _address(self._config.get(AuthConfig, tenant_id))
        take = Take(f"api-keys:{tenant_id}:{network(address)}", rule)
        return await self._begin(tenant_id, {"address": take})

    async def succeeded(self, attempt: Attempt) -> None:
        """The account's count begins anew. The address loses this one try alone: whoever has an account of their own
        would else log in to it between any two guesses.

        It does not fail: what the try was right for may be done already, and what proved it used up. Without Redis the
        try goes on counting, until it is forgiven."""
        _TRIES.labels(attempt.tenant_id, "succeeded").inc()
        with suppress(Unavailable):
            if attempt.cleared:
                await self._limiter.clear(*attempt.cleared)
            if attempt.given_back:
                await self._limiter.give_back(*attempt.given_back)

    async def may_send(self, tenant_id: str, recipient: Identifier, address: str) -> None:
        """Counts a message. `RateLimited` if its recipient, under whatever name, got enough, or this address asked for
        enough."""
        config = self._config.get(AuthConfig, tenant_id)
        refused = await self._limiter.refused(
            Take(f"sends:{tenant_id}:{recipient.limit_key}", _rates(config.sends_per_recipient)),
            Take(f"sends-from:{tenant_id}:{network(address)}", _rates(config.sends_per_address)),
        )
        _SENDS.labels(tenant_id, "refused" if refused else "admitted").inc()
        if refused:
            raise RateLimited("too many messages: try again later", retry_after_s=refused.retry_after_s)

    async def may_set_out(self, tenant_id: str, address: str) -> None:
        """Counts a browser that leaves for an identity provider: each is a flow that is kept for a while."""
        most = self._config.get(AuthConfig, tenant_id).oauth_starts_per_h
        take = Take(f"oauth:{tenant_id}:{network(address)}", Rates((Rate(most, 3600.0),)))
        await self._limiter.take(take)

    async def may_begin_passkey_login(self, tenant_id: str, address: str) -> None:
        """Counts a login that somebody begins who has not said who they are: each is a flow, too."""
        most = self._config.get(AuthConfig, tenant_id).passkey_logins_per_h
        take = Take(f"passkeys:{tenant_id}:{network(address)}", Rates((Rate(most, 3600.0),)))
        await self._limiter.take(take)

    async def may_rename(self, tenant_id: str, user_id: str) -> None:
        """Counts a username that a user asks for: each answer says whether somebody has it."""
        most = self._config.get(AuthConfig, tenant_id).renames_per_day
        take = Take(f"renames:{tenant_id}:{user_id}", Rates((Rate(most, 24 * 3600.0),)))
        await self._limiter.take(take)

    async def _begin(self, tenant_id: str, takes: dict[str, Take]) -> Attempt:
        refused = await self._limiter.refused(*takes.values())
        if refused:
            by = next(name for name, take in takes.items() if take == refused.by)
            _TRIES.labels(tenant_id, f"refused_{by}").inc()
            raise RateLimited("too many tries: try again later", retry_after_s=refused.retry_after_s)
        _TRIES.labels(tenant_id, "admitted").inc()
        cleared = tuple(take for name, take in takes.items() if name in ("account", "device"))
        return Attempt(tenant_id, cleared, tuple(take for take in takes.values() if take not in cleared))


def network(address: str) -> str:
    """Whom an address stands for: an IPv4 address for itself, an IPv6 one for its subscriber."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if not isinstance(found, IPv6Address):
        return str(found)
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return str(IPv6Address(int(found) >> (128 - _IPV6_SUBSCRIBER_BITS) << (128 - _IPV6_SUBSCRIBER_BITS)))


def _account(config: AuthConfig) -> Backoff:
    return Backoff(config.account_free_tries, config.tries_delay_s, config.tries_delay_max_s, config.account_forgiven_s)


def _rates(limits: tuple[SendLimit, ...]) -> Rates:
    return Rates(tuple(Rate(limit.messages, limit.per_s) for limit in limits))


def _address(config: AuthConfig) -> Backoff:
    return Backoff(config.address_free_tries, config.tries_delay_s, config.tries_delay_max_s, config.address_forgiven_s)
