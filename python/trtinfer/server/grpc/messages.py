"""The messages of inference.proto.

They live in a pool of their own: a process may hold tritonclient's messages of the same names, too.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"

_DESCRIPTION = "inference.binpb"

pool = descriptor_pool.DescriptorPool()


def description() -> descriptor_pb2.FileDescriptorProto:
    """Return what inference.proto says."""
    data = resources.files(__package__).joinpath(_DESCRIPTION).read_bytes()
    return descriptor_pb2.FileDescriptorSet.FromString(data).file[0]


pool.Add(description())


def message(name: str) -> Any:
    """Return the class of a message; one within another is "Outer.Inner".

    Raises:
        KeyError: There is no such message.
    """
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
