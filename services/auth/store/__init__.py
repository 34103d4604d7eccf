"""Auth's documents, and the indexes over them.

users           {_id: tenant:id, …}       who somebody is; what they sign in by is unique in a tenant
sessions        {_id: session id, …}      from a login to its end, kept a while longer for who looks back
refresh_tokens  {_id: SHA-256, …}         each good once; those that were used stay, so that a replay is seen
identities      {_id: id, …}              who a user is to an identity provider; one user for an issuer and subject
flows           {_id: SHA-256, …}         what is between two requests of one piece of work
signing_keys    {_id: kid, …}             private parts sealed
totp            {_id: tenant:user, …}     an authenticator app: its secret, sealed, and the last step taken
recovery_codes  {_id: tenant:user, …}     the hashes of those that are left
passkeys        {_id: SHA-256 of the credential's id, …}
devices         {_id: SHA-256, …}         where somebody signed in: one for each user of it, by the hash of its token
"""

from libs.core.migrations import Index

SESSIONS_KEPT_S = 90 * 24 * 3600


def _unique(field: str) -> Index:
    return Index("users", (("tenant_id", 1), (field, 1)), unique=True, partial={field: {"$gt": ""}})


INDEXES = (
    Index("users", (("tenant_id", 1), ("created_at", -1), ("_id", -1))),
    _unique("email"),
    _unique("phone"),
    _unique("username"),
    Index("sessions", (("tenant_id", 1), ("user_id", 1), ("created_at", -1), ("_id", -1))),
    Index("sessions", (("expires_at", 1),), ttl_s=SESSIONS_KEPT_S),
    Index("refresh_tokens", (("expires_at", 1),), ttl_s=0),
    Index("identities", (("tenant_id", 1), ("issuer", 1), ("subject", 1)), unique=True),
    Index("identities", (("tenant_id", 1), ("user_id", 1), ("linked_at", 1))),
    Index("flows", (("expires_at", 1),), ttl_s=3600),
    Index("signing_keys", (("number", 1),), unique=True),
    Index("totp"),
    Index("recovery_codes"),
    Index("passkeys", (("tenant_id", 1), ("user_id", 1), ("created_at", 1))),
    Index("devices", (("tenant_id", 1), ("user_id", 1), ("last_seen_at", -1), ("_id", -1))),
    Index("devices", (("expires_at", 1),), ttl_s=0),
)
