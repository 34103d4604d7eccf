"""Auth over HTTP that is not GraphQL."""

from services.auth.routes import keys, messages, oauth

ROUTERS = (keys.router, oauth.router, messages.router)
