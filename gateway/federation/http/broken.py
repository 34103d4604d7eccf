"""Why an exchange with a subgraph came to nothing."""

UNREACHABLE = "SUBGRAPH_UNREACHABLE"
TIMEOUT = "SUBGRAPH_TIMEOUT"
INVALID = "SUBGRAPH_INVALID_RESPONSE"
TOO_LARGE = "SUBGRAPH_TOO_LARGE"


class Broken(Exception):
    """As `SubgraphFailed`, where nobody knows yet which subgraph it is. `message` holds no address."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Unheard(Broken):
    """The connection was closed, and not a byte came back: one that was kept may have been closed before."""


def too_large(max_bytes: int) -> Broken:
    return Broken(TOO_LARGE, f"its answer exceeds {max_bytes} bytes")


def late() -> Broken:
    return Broken(TIMEOUT, "it did not answer in time")
