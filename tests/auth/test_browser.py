"""What browsers carry on the way to a provider, as production has it: the live tests are on plain http."""

from http.cookies import SimpleCookie

import pytest
from starlette.requests import Request
from starlette.responses import Response

from libs.core.errors import InvalidInput, NotFound
from services.auth.browser import Cookies, lost, sent_on


def written(*, by_post: bool, development: bool = False) -> SimpleCookie:
    response = Response()
    Cookies(development=development).write(response, "secret", by_post=by_post, lives_s=900)
    return SimpleCookie(response.headers["set-cookie"])


@pytest.mark.parametrize(
    ("by_post", "name", "same_site"),
    [(False, "__Host-oauth", "lax"), (True, "__Host-oauth-post", "none")],
)
def test_in_production(by_post: bool, name: str, same_site: str) -> None:
    cookie = written(by_post=by_post)[name]
    assert (cookie["samesite"], cookie["secure"], cookie["httponly"], cookie["path"]) == (same_site, True, True, "/")
    assert (cookie["domain"], cookie["max-age"]) == ("", "900")  # a domain would take __Host- its meaning


def test_in_development_without_tls() -> None:
    cookie = written(by_post=True, development=True)["oauth-post"]
    assert (cookie["samesite"], cookie["secure"]) == ("lax", "")


def test_only_the_one_of_the_way_is_read() -> None:
    request = Request({"type": "http", "headers": [(b"cookie", b"__Host-oauth=lax; oauth=set by another host")]})
    cookies = Cookies(development=False)
    assert (cookies.read(request, by_post=False), cookies.read(request, by_post=True)) == ("lax", "")


def test_on_the_way_nothing_is_kept_or_told() -> None:
    response = sent_on("https://app.example/?code=x")
    assert (response.status_code, response.headers["location"]) == (303, "https://app.example/?code=x")
    assert (response.headers["cache-control"], response.headers["referrer-policy"]) == ("no-store", "no-referrer")


def test_a_page_for_whoever_is_lost() -> None:
    response = lost(InvalidInput('<script>"x"</script>'))
    assert (response.status_code, b"<script>" in bytes(response.body)) == (400, False)
    assert lost(NotFound("no tenant")).status_code == 404
