"""Carries requests to subgraphs over HTTP/1.1.

async with HttpTransport({"products": "http://products:4001/graphql"}) as transport:
    executor = Executor(supergraph, transport)
"""

from gateway.federation.http.limits import HttpLimits
from gateway.federation.http.origin import Counts
from gateway.federation.http.transport import HttpTransport

__all__ = ["Counts", "HttpLimits", "HttpTransport"]
