"""What the gateway adds to the environment and to the configuration."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from libs.core.config import ConfigModel
from libs.core.settings import Settings

# What the gateway calls the subgraph of its own fields.
OWN = "gateway"

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}", re.ASCII)
_MOST_SUBGRAPHS = 100


@dataclass(frozen=True, slots=True)
class Address:
    """Where a subgraph answers GraphQL: at `/graphql`, as ours do, unless its URL says a path."""

    name: str
    url: str

    @classmethod
    def of(cls, name: str, url: str) -> Self:
        """`ValueError` if it is no name, or no URL to ask over HTTP."""
        if not _NAME.fullmatch(name) or name == OWN:
            raise ValueError(f"{name!r:.70} is no name for a subgraph: lower case, and not {OWN}")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ValueError(f"the URL of {name} must read http://host:port or http://host:port/path")
        _ = parts.port  # ValueError for one that there cannot be
        path = parts.path.rstrip("/") or "/graphql"
        return cls(name, f"{parts.scheme}://{parts.netloc}{path}")

    @property
    def sdl_url(self) -> str:
        return f"{self.url}/sdl"

    @property
    def ready_url(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}/health/ready"


def addresses(urls: Mapping[str, str]) -> dict[str, Address]:
    """By name. `ValueError`."""
    if len(urls) > _MOST_SUBGRAPHS:
        raise ValueError(f"there can be {_MOST_SUBGRAPHS} subgraphs at most")
    return {name: Address.of(name, url) for name, url in urls.items()}


def _urls(text: str) -> dict[str, str]:
    named = [part.strip().partition("=") for part in text.split(",") if part.strip()]
    urls = {name.strip(): url.strip() for name, _, url in named}
    if len(urls) < len(named):
        raise ValueError("two subgraphs have the same name")
    return urls


class GatewaySettings(Settings):
    service: str = "gateway"
    port: int = 9999

    # Every subgraph's name and URL, with commas between them. Configuration may say otherwise, see below.
    subgraphs: str = "auth=http://127.0.0.1:9001,payment=http://127.0.0.1:9002"
    # A supergraph that is served as it is, and read again when it changes: nothing is composed then.
    supergraph_file: str = ""

    @field_validator("subgraphs")
    @classmethod
    def _check_subgraphs(cls, text: str) -> str:
        addresses(_urls(text))
        return text

    @property
    def addresses(self) -> dict[str, Address]:
        return addresses(_urls(self.subgraphs))


class GatewayConfig(ConfigModel, name="gateway"):
    # By name, their URLs: in place of SUBGRAPHS, all of them, if there is any here.
    subgraphs: Annotated[dict[str, str], Field(default_factory=dict)]
    # How long one request to a subgraph may take, by name, where that is less than the caller has.
    timeouts_s: Annotated[dict[str, Annotated[float, Field(gt=0, le=120)]], Field(default_factory=dict)]
    # How often each is asked whether its schema has changed.
    poll_s: Annotated[float, Field(ge=0.1, le=3600)] = 2.0

    @model_validator(mode="after")
    def _check_subgraphs(self) -> Self:
        addresses(self.subgraphs)
        return self

    def addresses(self, settings: GatewaySettings) -> dict[str, Address]:
        """Those in force."""
        return addresses(self.subgraphs) or settings.addresses
