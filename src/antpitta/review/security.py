"""What may reach the review page: checks before every request, headers on every answer.

- The server listens on this machine only. A request must name it in its Host header: a page of
  another site that gets its own name resolved to 127.0.0.1 is refused.
- Each reviewer has a token, which is in the address that the command prints. The page exchanges it
  for a cookie that scripts cannot read and that is never sent along from other sites.
- A request that changes something must also carry a key that only the page knows, be JSON, and come
  from the page's own origin.
- Bodies are bounded. The content policy allows no inline script or style, no ``eval`` and nothing
  from another origin.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from urllib.parse import parse_qs

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 1_000_000  # bytes
TOO_LARGE = f"a request has at most {MAX_BODY} bytes"
CSRF_HEADER = "x-antpitta-key"
SAFE_METHODS = ("GET", "HEAD")
REVIEWER = "antpitta.reviewer"  # in the scope of a request that passed
_NAMES = ("127.0.0.1", "localhost", "[::1]")
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True)
class SignedIn:
    """A reviewer of the queue, as the page knows them."""

    id: int
    name: str
    role: str  # reviewer or expert


@dataclass(frozen=True)
class Access:
    """Who may use the page, and at which port.

    Parameters
    ----------
    port : that the server listens on
    reviewers : by token, as from :meth:`grant`
    """

    port: int
    reviewers: dict[str, SignedIn] = field(default_factory=dict)

    def grant(self, reviewer: SignedIn) -> str:
        """The address at which a reviewer opens the page; it holds a new token."""
        token = secrets.token_urlsafe(24)
        self.reviewers[token] = reviewer
        return f"http://127.0.0.1:{self.port}/?token={token}"

    @property
    def cookie(self) -> str:
        """The name of the cookie: ports of one machine share their cookies."""
        return f"antpitta-{self.port}"

    def find(self, token: str) -> SignedIn | None:
        """The reviewer of a token; every token is compared, in constant time."""
        match = None
        for known, reviewer in self.reviewers.items():
            if hmac.compare_digest(known.encode(), token.encode()):
                match = reviewer
        return match

    @property
    def hosts(self) -> tuple[str, ...]:
        """What the Host header may be."""
        return tuple(f"{name}:{self.port}" for name in _NAMES)


def csrf_key(token: str) -> str:
    """The key that requests which change something carry; it does not give the token away.

    Parameters
    ----------
    token : of the reviewer

    Returns
    -------
    key : hexadecimal digits
    """
    return hmac.new(token.encode(), b"key of the review page", hashlib.sha256).hexdigest()


class Guard:
    """Refuses what may not reach the app (an ASGI middleware).

    Parameters
    ----------
    app : the review page
    access : tokens and the port
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer why not."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # no websockets here
            return
        headers = Headers(scope=scope)
        token = self._token(scope, headers)
        reviewer = self.access.find(token)
        refusal = self._refusal(scope["method"], headers, token, reviewer)
        if refusal:
            await _refuse(send, *refusal)
            return
        scope[REVIEWER], scope["antpitta.token"] = reviewer, token
        cookie = f"{self.access.cookie}={token}; Path=/; HttpOnly; SameSite=Strict"
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                answer = MutableHeaders(scope=message)
                answer.update(_HEADERS)
                answer.setdefault("Cache-Control", "no-store")
                if scope["path"] == "/":
                    answer["Set-Cookie"] = cookie
            await send(message)

        try:
            await self.app(scope, _Bounded(receive), send_with_headers)
        except Exception:  # it is in the log already, and Starlette raises it again
            if not started:
                await _refuse(send, 500, "E_UNFORESEEN", "unforeseen error")

    def _token(self, scope: Scope, headers: Headers) -> str:
        """That of the address on the first visit, that of the cookie afterwards."""
        query = parse_qs(scope["query_string"].decode("latin-1"))
        if scope["path"] == "/" and "token" in query:
            return str(query["token"][0])
        cookies: SimpleCookie = SimpleCookie()
        try:
            cookies.load(headers.get("cookie", ""))
        except Exception:  # any bytes may be in it
            return ""
        morsel = cookies.get(self.access.cookie)
        return morsel.value if morsel else ""

    def _refusal(
        self, method: str, headers: Headers, token: str, reviewer: SignedIn | None
    ) -> tuple[int, str, str] | None:
        """Status, code and sentence; None for what may pass."""
        if headers.get("host") not in self.access.hosts:
            return 421, "E_HOST", "this server answers under the name 127.0.0.1 only"
        if reviewer is None:
            return 401, "E_TOKEN", "open the address that antpitta review printed"
        if method in SAFE_METHODS:
            return None
        if method != "POST":
            return 405, "E_REQUEST", "use GET or POST"
        return _check_post(headers, token, self.access)


def _check_post(headers: Headers, token: str, access: Access) -> tuple[int, str, str] | None:
    origin = headers.get("origin")
    if origin is not None and origin not in {f"http://{host}" for host in access.hosts}:
        return 403, "E_CSRF", "the request comes from another site"
    if headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return 403, "E_CSRF", "the request comes from another site"
    if not hmac.compare_digest(headers.get(CSRF_HEADER, "").encode(), csrf_key(token).encode()):
        return 403, "E_CSRF", "the request lacks the key of the page; reload the page"
    if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        return 415, "E_REQUEST", "send JSON"
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MAX_BODY:
        return 413, "E_REQUEST", TOO_LARGE
    return None


class _Bounded:
    """Receives a request up to the largest allowed body, whatever its header promised."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._size = receive, 0

    async def __call__(self) -> Message:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        if self._size > MAX_BODY:
            raise HTTPException(413, TOO_LARGE)
        return message


async def _refuse(send: Send, status: int, code: str, message: str) -> None:
    body = json.dumps({"code": code, "message": message}).encode()
    headers: Mapping[str, str] = {
        **_HEADERS,
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
    }
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
