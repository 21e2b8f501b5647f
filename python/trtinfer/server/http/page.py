"""GET /: a page for a person, who drops pictures and watches the server at work.

It loads nothing from elsewhere, and its policy forbids it to.
"""

from __future__ import annotations

import functools
from importlib import resources

from trtinfer.server.http.message import Request, Response
from trtinfer.server.http.routes import Routes

_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_HEADERS = (
    (
        "Content-Security-Policy",
        "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-cache"),
)

#: What a browser needs before its user can enter a token.
PATHS = tuple(path.encode() for path in _FILES)


class PageCall:
    """The handler of the page and its parts."""

    def __init__(self) -> None:
        """Read the page."""
        folder = resources.files(__package__).joinpath("page_files")
        self._responses = {
            path: Response(200, (folder.joinpath(name).read_bytes(),), kind, _HEADERS)
            for path, (name, kind) in _FILES.items()
        }

    def add_to(self, routes: Routes) -> None:
        """Add the page's paths to a table."""
        for path in _FILES:
            routes.add("GET", path, functools.partial(self._send, path))

    async def _send(self, path: str, request: Request) -> Response:
        return self._responses[path]
