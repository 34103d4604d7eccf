"""What browsers carry for us on the way to an identity provider and back, and what they show if the way is lost."""

from html import escape

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from libs.core.errors import CoreError

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Sign-in did not work</title>
<h1>Sign-in did not work</h1>
<p>{message}.</p>
<p>Go back to where you came from, and try again. <small>{code}</small></p>
"""


class Cookies:
    """One for all trips of a browser, so that tabs do not push each other out.

    `SameSite=Lax` goes along where a provider sends the browser back, but not with a form that it posts: for those
    there is another, `None`. `__Host-` keeps other hosts of the same domain from setting it. In development, over
    http, a browser would refuse all that; what is posted from one port of this machine to another is the same site.
    """

    def __init__(self, *, development: bool) -> None:
        self._development = development

    def read(self, request: Request, *, by_post: bool) -> str:
        return request.cookies.get(self._name(by_post), "")

    def write(self, response: Response, value: str, *, by_post: bool, lives_s: int) -> None:
        response.set_cookie(
            self._name(by_post),
            value,
            max_age=lives_s,
            path="/",
            secure=not self._development,
            httponly=True,
            samesite="none" if by_post and not self._development else "lax",
        )

    def _name(self, by_post: bool) -> str:
        return f"{'' if self._development else '__Host-'}oauth{'-post' if by_post else ''}"


def sent_on(url: str) -> Response:
    """303: whatever the browser did to come here, it goes there with a GET, and posts nothing again (RFC 9700)."""
    response = RedirectResponse(url, status_code=303)
    response.headers["cache-control"] = "no-store"
    response.headers["referrer-policy"] = "no-referrer"
    return response


def lost(error: CoreError) -> Response:
    """Where there is no client to go back to, or none that is known to be one."""
    page = _PAGE.format(message=escape(error.message[:1].upper() + error.message[1:]), code=escape(error.code))
    status = error.status if error.status >= 400 else 400
    return HTMLResponse(page, status_code=status, headers={"cache-control": "no-store"})
