"""Auth over HTTP that is not GraphQL."""

from services.auth.routes import keys, oauth, security_log

ROUTERS = (keys.router, oauth.router, security_log.router)
