"""Auth over HTTP that is not GraphQL."""

from services.auth.routes import keys, oauth

ROUTERS = (keys.router, oauth.router)
