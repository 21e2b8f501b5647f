"""How a server is run: addresses, limits, what clients may do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """The options of a server; the defaults serve this machine only.

    Attributes:
        host: The address to listen on; 0.0.0.0 for every one.
        http_port: 0: any free one. None: no HTTP.
        grpc_port: 0: any free one. None: no gRPC.
        max_body_bytes: Of a request, after decompression as well.
        max_held_bytes: Of all bodies in memory together; further ones are refused with 503.
        max_header_bytes: Of a request's first line and headers together.
        max_connections: Over HTTP; further ones are closed at once.
        max_requests: Under way at a time over both protocols; more are refused with 503.
        header_timeout: Seconds from a request's first byte to the end of its headers.
        body_timeout: Seconds in which the body must come.
        write_timeout: Seconds in which a client must take what was sent.
        keep_alive: Seconds that a connection may stay open without a request.
        drain_delay: Seconds from a signal to the end of taking requests, while readiness is off.
        drain_timeout: Seconds that requests under way then have.
        token: What clients must send as `Authorization: Bearer`; None: nothing. Health and the
            page at / are open to everybody.
        certificate: PEM file of the server's certificate chain: both protocols use TLS.
        key: PEM file of its private key; None: it is in the certificate's file.
        allow_repository_control: Let clients load and unload models.
        allow_shared_memory: Let clients name memory of this machine and of its GPUs.
        trace_file: Where requests are traced once a client turns traces on; None: clients may not.
    """

    host: str = "127.0.0.1"
    http_port: int | None = 8000
    grpc_port: int | None = 8001
    max_body_bytes: int = 64 << 20
    max_held_bytes: int = 1 << 30
    max_header_bytes: int = 32 << 10
    max_connections: int = 4096
    max_requests: int = 4096
    header_timeout: float = 10.0
    body_timeout: float = 60.0
    write_timeout: float = 30.0
    keep_alive: float = 75.0
    drain_delay: float = 0.0
    drain_timeout: float = 30.0
    token: str | None = None
    certificate: str | None = None
    key: str | None = None
    allow_repository_control: bool = False
    allow_shared_memory: bool = False
    trace_file: str | None = None

    def __post_init__(self) -> None:
        """Refuse what no server can be run with.

        Raises:
            ValueError: An option is out of range, or there is nothing to serve.
        """
        if self.http_port is None and self.grpc_port is None:
            raise ValueError("a server without HTTP and gRPC serves nobody: give a port")
        for name, value in vars(self).items():
            if isinstance(value, (int, float)) and value < 0:
                raise ValueError(f"the server's {name} is {value}: it must not be negative")
        if self.token == "":
            raise ValueError("the token is empty: everybody could guess it")
        if self.key is not None and self.certificate is None:
            raise ValueError("a key is for TLS, which needs a certificate, too")
