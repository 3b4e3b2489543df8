"""/admin for a browser: log in with a key, look, log out. Works without script.

The cookie is HttpOnly and goes with no request that another site began (SameSite=Strict); under TLS it is Secure, and
bound to this host. A form is taken from this site alone, as the browser says where it comes from, and to log out it
carries the session's own word.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs, urlsplit

from freehold.api import pages
from freehold.api.message import HttpRequest, HttpResponse
from freehold.errors import (
    BadRequest,
    BodyTooLarge,
    Forbidden,
    FreeholdError,
    MethodNotAllowed,
    Unauthenticated,
    WrongMediaType,
)
from freehold.login import Login, Session
from freehold.types import Caller

_FORM = "application/x-www-form-urlencoded"
_LONGEST = 4096  # bytes of a form
_HTML = "text/html; charset=utf-8"


class Browser:
    """The pages under ``paths``. ``look`` gives what a caller may see; ``secure``: the way to the browser is
    encrypted, by this server or by a proxy in front, which ``behind_proxy`` says there is."""

    paths = frozenset({pages.FRONT, pages.LOGIN, pages.LOGOUT})

    def __init__(
        self, login: Login, look: Callable[[Caller], Awaitable[pages.Overview]], *, secure: bool, behind_proxy: bool
    ):
        self._login, self._look, self._secure, self._behind_proxy = login, look, secure, behind_proxy
        self._cookie = "__Host-freehold" if secure else "freehold"

    def gate(self, request: HttpRequest) -> None:
        """Before the body of a form is taken in: anybody may send one, so that it is short, and who is locked out may
        send none."""
        self._only(request)
        length = request.headers.get("content-length", "")
        if not length.isdigit() or int(length) > _LONGEST:
            raise BodyTooLarge(f"A form here has a stated length of at most {_LONGEST} bytes.", hint="Send less.")
        if request.path == pages.LOGIN:
            self._login.check(self._address(request))

    async def handle(self, request: HttpRequest) -> HttpResponse:
        """Answer a request for one of the paths. Raises FreeholdError, which `on_error` makes a page of."""
        self._only(request)
        if request.path == pages.FRONT:
            return await self._front(request)
        if request.path == pages.LOGIN:
            return await self._enter(request)
        return self._leave(request)

    def on_error(self, error: FreeholdError) -> HttpResponse:
        """An error as a page; a wrong key, as the form once more."""
        waits = () if error.retry_after is None else (("retry-after", str(error.retry_after)),)
        page = pages.login if isinstance(error, Unauthenticated) else pages.trouble
        return _page(page(error.sentence()), error.status, *waits)

    async def _front(self, request: HttpRequest) -> HttpResponse:
        session = self._session(request)
        if session is None:
            return _page(pages.login())
        seen = await self._look(session.caller)
        return _page(pages.overview(session.caller, session.form, seen))

    async def _enter(self, request: HttpRequest) -> HttpResponse:
        _from_here(request)
        key = _field(request, "key").strip()
        cookie = await self._login.enter(key, self._address(request))
        return _away(self._set(cookie))

    def _leave(self, request: HttpRequest) -> HttpResponse:
        _from_here(request)
        cookie = self._sent(request)
        if not cookie or not self._login.leave(cookie, _field(request, "form")):
            raise Forbidden("This form is of no session of yours.", hint="Go to the front page and log out there.")
        return _away(self._set(""))

    def _session(self, request: HttpRequest) -> Session | None:
        return self._login.of(self._sent(request))

    def _sent(self, request: HttpRequest) -> str:
        """The cookie that came with a request; empty where none did."""
        for part in request.headers.get("cookie", "").split(";"):
            name, _, value = part.strip().partition("=")
            if name == self._cookie:
                return value
        return ""

    def _set(self, cookie: str) -> tuple[str, str]:
        """The header that sets the cookie, for as long as the browser runs; an empty one ends it."""
        rest = "; Path=/; HttpOnly; SameSite=Strict" + ("; Secure" if self._secure else "")
        return ("set-cookie", f"{self._cookie}={cookie}{rest}{'' if cookie else '; Max-Age=0'}")

    def _address(self, request: HttpRequest) -> str:
        """Where a request comes from. Behind a proxy that is what the proxy itself says: the last it added."""
        told = request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip() if self._behind_proxy else ""
        return told or request.peer

    def _only(self, request: HttpRequest) -> None:
        methods = ("GET", "HEAD") if request.path == pages.FRONT else ("POST",)
        if request.method not in methods:
            raise MethodNotAllowed(f"{request.path} takes {methods[0]}, not {request.method}.", hint="")


def _from_here(request: HttpRequest) -> None:
    """Raises Forbidden if a browser says that a form comes from another site. What is no browser does not say."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is None:  # an old browser, or one that does not trust the way here
        is_ours = origin is None or urlsplit(origin).netloc == request.headers.get("host", "")
    else:
        is_ours = site in ("same-origin", "none")
    if not is_ours:
        raise Forbidden("This form comes from another site.", hint="Use the one at /admin.")


def _field(request: HttpRequest, name: str) -> str:
    """One field of a form."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise WrongMediaType("This is no form.", hint=f"Send {_FORM}.")
    if len(request.body) > _LONGEST:
        raise BodyTooLarge(f"A form here has at most {_LONGEST} bytes.", hint="Send less.")
    try:
        found = parse_qs(request.body.decode("ascii"), strict_parsing=bool(request.body), max_num_fields=4)
    except ValueError:
        raise BadRequest("The form cannot be read.", hint="Use the one at /admin.") from None
    return found.get(name, [""])[0]


def _page(content: bytes, status: int = 200, *headers: tuple[str, str]) -> HttpResponse:
    return HttpResponse(status, content, _HTML, (*pages.HEADERS, *headers))


def _away(*headers: tuple[str, str]) -> HttpResponse:
    """Back to the front page, by GET."""
    return HttpResponse(303, b"", _HTML, (*pages.HEADERS, ("location", pages.FRONT), *headers))
