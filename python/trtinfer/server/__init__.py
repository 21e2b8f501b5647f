"""A server for sessions: HTTP and gRPC, as clients of Triton and KServe expect them."""
