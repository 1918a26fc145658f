"""The process that calls a provider: one order on standard input, one answer on standard output, and the end.

Whatever is read to prove a node to a provider (tokens, PINs, identities) and every foreign library lives here, and not
in the process that holds the cluster's keys. See `processes` for why.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import resource
import signal
import sys

import msgspec

from holdfast.cluster.seal.providers.catalogue import TYPES
from holdfast.cluster.seal.providers.contract import Health, ProviderError
from holdfast.cluster.seal.providers.orders import Answer, Order

_PR_SET_DUMPABLE = 4  # linux/prctl.h
_SPARE_S = 2


def carry_out(order: Order) -> Answer:
    """Call the provider. Raises nothing: a provider's library may raise anything."""
    try:
        provider = TYPES[order.type].open(order.parameters, order.credentials, order.spent)
        call = provider.wrap if order.operation == "wrap" else provider.unwrap
        return Answer(data=call(order.data, order.binding))
    except ProviderError as error:
        return Answer(health=error.health, message=error.message, spent=error.spent)
    except Exception as error:  # noqa: BLE001 - see above; its text might quote what it was given
        message = f"it failed in a way that is not foreseen ({type(error).__name__})"
        return Answer(health=Health.FAILED, message=message)


def main() -> None:
    """Read, carry out, answer. What passes through here is secret: no core dump, no debugger, and an end in time."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    order = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Order)
    signal.alarm(math.ceil(order.seconds) + _SPARE_S)  # should the node be gone, and nobody left to end this process
    # A library that prints must not spoil the answer: its standard output is /dev/null from here on.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    out.write(msgspec.msgpack.encode(carry_out(order)))
    out.close()
    os._exit(0)  # a library that crashes while it is unloaded has answered


if __name__ == "__main__":
    main()
