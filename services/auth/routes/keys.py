"""The public keys that tokens are verified with."""

import orjson
from fastapi import APIRouter, Request, Response

from services.auth.commands.auth import Auth

router = APIRouter(include_in_schema=False)


@router.get("/.well-known/jwks.json")
async def jwks(request: Request) -> Response:
    """For whoever verifies tokens; a key is shown for minutes before it signs, so that this may be cached for one."""
    auth: Auth = request.app.state.service
    headers = {"cache-control": "public, max-age=60"}
    return Response(orjson.dumps(auth.keys.jwks()), media_type="application/jwk-set+json", headers=headers)
