"""Identity providers, as a tenant configures them, and where their answers may lead a browser."""

import re
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

ProviderPreset = Literal["oidc", "google", "github", "apple"]

_TEXT = r"^[\x21-\x7e]{1,512}$"
# What `SecretBox` makes; so a secret that somebody pastes as it is gets no further than here.
_SEALED = r"^(gAAAA[A-Za-z0-9_=-]{60,8000})?$"
_URL = re.compile(r"(?P<scheme>https?)://(?P<host>[a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?(/[\x21-\x7e]*)?", re.ASCII)
_LOOPBACK = frozenset({"127.0.0.1", "[::1]", "localhost"})
# RFC 8252 section 7.1: an app's own scheme is a domain name of its maker, backwards. So it is never javascript or data.
_APP = re.compile(r"[a-z][a-z0-9+-]*(\.[a-z0-9+-]+)+:/[\x21-\x7e]*", re.ASCII)
_RETURN_CHARS = 500


@dataclass(frozen=True, slots=True)
class Preset:
    label: str
    issuer: str
    scopes: tuple[str, ...]


PRESETS: dict[ProviderPreset, Preset] = {
    "oidc": Preset("", "", ("openid", "email", "profile")),
    "google": Preset("Google", "https://accounts.google.com", ("openid", "email", "profile")),
    "github": Preset("GitHub", "https://github.com", ("read:user", "user:email")),
    "apple": Preset("Apple", "https://appleid.apple.com", ("openid", "email", "name")),
}


def _issuer(text: str) -> str:
    """As in OpenID Connect Discovery: no query, no fragment. The scheme is judged where it is asked."""
    if text and (not _URL.fullmatch(text) or {"?", "#", "@"} & set(text)):
        raise ValueError("an issuer is a URL without user, query and fragment, with its host in lower case")
    return text


def check_return_url(text: str) -> str:
    """`ValueError` unless a browser may be sent there with a code: https, an app's own scheme, or this very machine."""
    url = _URL.fullmatch(text)
    web = url and (url["scheme"] == "https" or url["host"] in _LOOPBACK)
    if len(text) > _RETURN_CHARS or "#" in text or "@" in text or "\\" in text or not (web or _APP.fullmatch(text)):
        raise ValueError("a return URL begins with https:// (or an app's com.example.app:/), without user and fragment")
    return text


ReturnUrl = Annotated[str, AfterValidator(check_return_url)]


class IdentityProvider(BaseModel):
    """What a preset knows may be left out. `client_secret` is sealed for this client of this issuer (`make
    provider-secret`): whoever may change the configuration can neither read it nor have it sent to somebody else.

    For Apple it is the private key (.p8) that secrets are made with, and `team_id` and `key_id` go with it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
    preset: ProviderPreset = "oidc"
    label: Annotated[str, Field(max_length=60)] = ""
    issuer: Annotated[str, Field(max_length=300), AfterValidator(_issuer)] = ""
    client_id: Annotated[str, Field(pattern=_TEXT)]
    client_secret: Annotated[str, Field(pattern=_SEALED)] = ""
    scopes: tuple[Annotated[str, Field(pattern=_TEXT)], ...] = ()
    response_mode: Literal["query", "form_post"] = "query"
    team_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9]{0,64}$")] = ""
    key_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9]{0,64}$")] = ""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.id == "callback":
            raise ValueError("no provider's id is callback: its addresses would be another's")
        if not self.at:
            raise ValueError("issuer is needed")
        if self.preset != "oidc" and not self.client_secret:
            raise ValueError("client_secret is needed")
        if self.preset == "apple" and not (self.team_id and self.key_id):
            raise ValueError("team_id and key_id are needed")
        if self.preset != "github" and "openid" not in self.asks_for:
            raise ValueError("scopes must have openid among them")
        return self

    @property
    def at(self) -> str:
        """The issuer, one's own or the preset's."""
        return self.issuer or PRESETS[self.preset].issuer

    @property
    def shown_as(self) -> str:
        return self.label or PRESETS[self.preset].label or self.id

    @property
    def asks_for(self) -> tuple[str, ...]:
        return self.scopes or PRESETS[self.preset].scopes

    @property
    def answers_by_post(self) -> bool:
        """Apple does whenever it is asked for a name or an address."""
        return self.response_mode == "form_post" or self.preset == "apple"

    @property
    def secret_owner(self) -> str:
        return secret_owner(self.at, self.client_id)


def secret_owner(issuer: str, client_id: str) -> str:
    """What a client secret is sealed for."""
    return f"identity provider {issuer} {client_id}"
