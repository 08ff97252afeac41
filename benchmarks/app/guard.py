"""Which requests the server answers: those of its own pages, in a browser on this computer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

ADDRESS = "127.0.0.1"
HOSTS = (ADDRESS, "localhost")  # with any port: ssh may forward another one

# The pages' library writes scripts and styles into them. Nothing may come from, or go to, another host.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self' ws://{host}; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)


def refusal(method: str, headers: Sequence[tuple[str, str]]) -> str | None:
    """Why a request is refused, in a line; None if it is answered.

    A name that leads to this computer by a trick of its owner (DNS rebinding) is in the header Host. Another page in
    the same browser is in Origin, which browsers send with everything but plain reading, or shows in Sec-Fetch-Site.

    Args:
        method: of HTTP; of a web socket `SOCKET`, which can change things as POST can.
        headers: names in lower case, and values.
    """
    hosts = [value for name, value in headers if name == "host"]
    if len(hosts) != 1 or hosts[0].partition(":")[0] not in HOSTS:
        return f"this server is for this computer: open it as http://{ADDRESS} with its port"
    own = f"http://{hosts[0]}"
    origins = [value for name, value in headers if name == "origin"]
    if any(origin != own for origin in origins):
        return "requests of other pages are refused"
    reads = method in ("GET", "HEAD")
    if not reads and not origins:
        return "only the server's own pages may change things; the header Origin is missing"
    sites = [value for name, value in headers if name == "sec-fetch-site"]
    if any(site not in ("same-origin", "none") for site in sites):
        return "requests of other pages are refused; open the address by itself"
    return None


class Guard:
    """An ASGI application that passes on to another what `refusal` allows, and limits what its pages may load."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        line = refusal(scope.get("method", "SOCKET"), headers)
        if line is None:
            policy = _POLICY.format(host=dict(headers)["host"])
            await self.app(scope, receive, lambda message: send(_guarded(message, policy)))
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            kind = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": 403, "headers": kind})
            await send({"type": "http.response.body", "body": f"{line}\n".encode()})


def _guarded(message: Any, policy: str) -> Any:
    """An answer with the headers that keep a page to itself."""
    if message["type"] == "http.response.start":
        own = [
            (b"content-security-policy", policy.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
        ]
        message = {**message, "headers": [*message["headers"], *own]}
    return message
