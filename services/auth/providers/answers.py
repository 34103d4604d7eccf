"""What goes to a provider with the browser, what comes back with it, and how an answer is refused."""

from dataclasses import dataclass

from libs.core.errors import Refusal


@dataclass(frozen=True, slots=True)
class Question:
    """`state` finds the way back, `nonce` comes back in the ID token, `verifier` is shown when the code is redeemed."""

    state: str
    nonce: str
    verifier: str
    redirect_uri: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The parameters of the authorization response. `user` is Apple's: a name, the first time and never again."""

    code: str = ""
    error: str = ""
    iss: str = ""
    user: str = ""


def invalid(rule: str) -> Refusal:
    """`rule` says for a developer what was wrong. A person can only try again, or another provider."""
    return Refusal("PROVIDER_ANSWER_INVALID", "what the identity provider answered is not accepted", rule=rule)


def unavailable() -> Refusal:
    return Refusal("PROVIDER_UNAVAILABLE", "the identity provider cannot be reached now", rule="oauth.provider")
