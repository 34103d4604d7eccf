"""What a browser opens on the way to an identity provider and back. It is answered with a way on, or with a page."""

from collections.abc import Mapping
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request, Response

from libs.core.app import context_of
from libs.core.context import Context
from libs.core.errors import CoreError, InvalidInput, Refusal
from services.auth.browser import Cookies, lost, sent_on
from services.auth.commands import identities, oauth
from services.auth.commands.auth import Auth
from services.auth.commands.oauth import Trip
from services.auth.providers import Answer

FORM_BYTES = 32 * 1024  # Apple's has an ID token in it, too
_FIELDS_MOST = 30
_FORM = "application/x-www-form-urlencoded"

router = APIRouter(include_in_schema=False)


@router.get("/oauth/callback/{provider_id}")
async def came_back(provider_id: str, request: Request) -> Response:
    return await _came_back(provider_id, request, request.url.query.encode(), by_post=False)


@router.post("/oauth/callback/{provider_id}")
async def came_back_by_post(provider_id: str, request: Request) -> Response:
    try:
        return await _came_back(provider_id, request, await _form(request), by_post=True)
    except InvalidInput as error:
        return lost(error)


@router.get("/oauth/{provider_id}/start")
async def start(provider_id: str, request: Request) -> Response:
    """With `return_url` and `challenge`, and whatever `state` the client wants back; or with `link`, of a link that was
    begun. `tenant` says whose, where the host does not."""
    try:
        given = _params(request.url.query.encode())
        context = await _context(request, given.get("tenant", ""))
        auth: Auth = context.service
        trip = await _trip(auth, context, provider_id, given)
        oauth.check_trip(auth, context, trip)
    except CoreError as error:
        return lost(error)  # without an address that is known to be a client's, there is nowhere to go
    cookies = Cookies(development=auth.settings.development)
    try:
        by_post = oauth.provider_of(auth, context, provider_id).answers_by_post
        departure = await oauth.set_out(auth, context, trip, cookies.read(request, by_post=by_post))
    except CoreError as error:
        return sent_on(oauth.address_with(trip, error=error.code))
    response = sent_on(departure.url)
    cookies.write(response, departure.browser, by_post=by_post, lives_s=departure.lives_s)
    return response


async def _came_back(provider_id: str, request: Request, encoded: bytes, *, by_post: bool) -> Response:
    try:
        given = _params(encoded)
        tenant_id, token = oauth.tenant_and_token(given.get("state", ""))
        if not tenant_id or not token:
            raise Refusal("STATE_MISSING", "the provider did not say what this is about", rule="oauth.state")
        context = await _context(request, tenant_id)
        auth: Auth = context.service
        browser = Cookies(development=auth.settings.development).read(request, by_post=by_post)
        answer = Answer(*(given.get(name, "") for name in ("code", "error", "iss", "user")))
        return sent_on(await oauth.come_back(auth, context, provider_id, token, answer, browser))
    except CoreError as error:
        return lost(error)


async def _trip(auth: Auth, context: Context, provider_id: str, given: Mapping[str, str]) -> Trip:
    if "link" in given:
        return await identities.link_trip(auth, context, provider_id, given["link"])
    return Trip(provider_id, given.get("return_url", ""), given.get("challenge", ""), given.get("state", ""))


async def _context(request: Request, tenant_id: str) -> Context:
    """A browser that opens an address sends no `x-tenant`."""
    return await context_of(request.scope, request.headers, {"x-tenant": tenant_id})


def _params(encoded: bytes) -> dict[str, str]:
    """`InvalidInput` if one is there twice (RFC 6749 section 3.1): which of them counts would be anybody's guess."""
    try:
        pairs = parse_qsl(encoded.decode("ascii"), keep_blank_values=True, max_num_fields=_FIELDS_MOST, errors="strict")
    except ValueError:
        raise InvalidInput("these parameters cannot be read") from None
    params = dict(pairs)
    if len(params) < len(pairs):
        raise InvalidInput("a parameter is there twice")
    return params


async def _form(request: Request) -> bytes:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise InvalidInput(f"what is posted here is {_FORM}")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > FORM_BYTES:
            raise InvalidInput(f"a form has at most {FORM_BYTES} bytes")
    return bytes(body)
