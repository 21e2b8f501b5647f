"""Which handler answers a path."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from urllib.parse import unquote_to_bytes

from trtinfer.errors import TrtInferError
from trtinfer.server.errors import NotFoundError
from trtinfer.server.http.message import Request, Response
from trtinfer.server.slot_body import SlotBody

#: Takes the request, and the path's parameters by name.
Handler = Callable[..., Awaitable[Response]]
#: Takes what is known before the body, how that begins, and the path's parameters.
Claim = Callable[..., SlotBody | None]
_Bound = Callable[[Request], Awaitable[Response]]

_MOST_REMEMBERED = 1024  # paths; a client can invent any number of them


class MethodError(TrtInferError):
    """The path exists, but not for this method.

    Attributes:
        allowed: The methods that it takes.
    """

    def __init__(self, path: str, allowed: str) -> None:
        """Say which methods the path takes."""
        super().__init__(f"{path} takes {allowed}")
        self.allowed = allowed


class Routes:
    """A table of patterns as "/v2/models/{name}/infer", asked once for each path."""

    def __init__(self) -> None:
        """Start without any."""
        self._patterns: list[tuple[bytes, list[str], Handler, Claim | None]] = []
        self._found: dict[tuple[bytes, bytes], tuple[_Bound, Claim | None]] = {}

    def add(self, method: str, pattern: str, handler: Handler, claim: Claim | None = None) -> None:
        """Add a pattern; ``claim`` is asked where a long body may be read to."""
        self._patterns.append((method.encode(), pattern.split("/"), handler, claim))

    def find(self, method: bytes, path: bytes) -> _Bound:
        """Return the handler of a path, with the path's parameters filled in.

        Raises:
            NotFoundError: There is no such path.
            MethodError: The path takes other methods.
        """
        return self._find(method, path)[0]

    def find_claim(self, method: bytes, path: bytes) -> Claim | None:
        """Return what is asked about the bodies of a path, likewise; errors as `find`."""
        return self._find(method, path)[1]

    def _find(self, method: bytes, path: bytes) -> tuple[_Bound, Claim | None]:
        found = self._found.get((method, path))
        if found is None:
            found = self._search(b"GET" if method == b"HEAD" else method, path)
            if len(self._found) >= _MOST_REMEMBERED:
                self._found.clear()
            self._found[method, path] = found
        return found

    def _search(self, method: bytes, path: bytes) -> tuple[_Bound, Claim | None]:
        parts = [unquote_to_bytes(part).decode("utf-8", "replace") for part in path.split(b"/")]
        if len(parts) > 2 and not parts[-1]:
            parts.pop()  # a slash at the end
        methods = set()
        for known, pattern, handler, claim in self._patterns:
            parameters = _match(pattern, parts)
            if parameters is None:
                continue
            if known == method:
                bound = None if claim is None else functools.partial(claim, **parameters)
                return functools.partial(handler, **parameters), bound
            methods.add(known.decode())
        shown = path[:200].decode("latin-1")
        if methods:
            raise MethodError(shown, ", ".join(sorted(methods)))
        raise NotFoundError(f"there is nothing at {shown}")


def _match(pattern: list[str], parts: list[str]) -> dict[str, str] | None:
    if len(pattern) != len(parts):
        return None
    parameters = {}
    for expected, part in zip(pattern, parts, strict=True):
        if expected.startswith("{") and part:
            parameters[expected[1:-1]] = part
        elif expected != part:
            return None
    return parameters
