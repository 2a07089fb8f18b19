"""TLS: certificate sources, and what a connection's TLS came to."""

from __future__ import annotations

from typing import Any

from mailplat.values import TLSInfo


def tls_info(transport: Any) -> TLSInfo:
    """What was negotiated on a transport whose handshake is complete."""
    connection = transport.getHandle()
    return TLSInfo(connection.get_protocol_version_name(), connection.get_cipher_name() or "")
