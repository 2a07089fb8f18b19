"""
TLS towards other hosts: whom we trust, and how a certificate is checked.

A `Trust` keeps one context for hosts whose certificate must be right and one for those
where any will do: opportunistic TLS protects against listeners only, and a certificate
nobody asked for is not looked at (RFC 7435 §3).  `Trust.towards` makes what
`ITLSTransport.startTLS` and `TLSMemoryBIOFactory` take, for one host.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from zope.interface import implementer

from mailplat.errors import ConfigurationError
from mailplat.values import TLSRequirement


class Trust:
    """
    Args:
        authorities: a PEM file with the certificates to trust; "" for the system's.

    Raises:
        ConfigurationError: the file can't be read.
    """

    def __init__(self, authorities: str = "") -> None:
        self._any = _context()
        self._checked = _context()
        if not authorities:
            self._checked.set_default_verify_paths()
            return
        try:
            self._checked.load_verify_locations(authorities)
        except SSL.Error as error:
            raise ConfigurationError(f"{authorities}: no usable certificates", reason=repr(error)) from None

    def towards(self, host: str, requirement: TLSRequirement) -> HostTLS:
        """
        Args:
            host: a name, IDNA-encoded, or an IP address.
            requirement: "verify" has the certificate checked, any other level has not.
        """
        if requirement.level != "verify":
            return HostTLS(self._any, host, ())
        return HostTLS(self._checked, host, requirement.names or (host,))


@implementer(IOpenSSLClientConnectionCreator)
class HostTLS:
    """TLS towards one host.  Made by `Trust.towards`."""

    def __init__(self, context: SSL.Context, host: str, names: tuple[str, ...]) -> None:
        self._context = context
        self._host = host
        self._names = names

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """Called by Twisted's TLS."""
        connection = SSL.Connection(self._context, None)
        if self._names:
            connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, self._check)
        # RFC 6066 §3: a DNS name, never an address.
        if not _is_address(self._host):
            connection.set_tlsext_host_name(self._host.encode("ascii"))
        return connection

    def _check(self, connection: SSL.Connection, certificate: Any, error: int, depth: int, ok: int) -> bool:
        """
        Called by OpenSSL in the handshake, for each certificate from the root down.

        Names are checked here and not after the handshake, so that a host that is not the
        right one is never spoken to.
        """
        if not ok or depth:
            return bool(ok)
        return any(_is_for(certificate.to_cryptography(), name) for name in self._names)


def _context() -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    # RFC 8996: older ones must not be spoken, not even for want of anything better.
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    return context


def _is_for(certificate: Any, name: str) -> bool:
    # RFC 9525 §6
    try:
        if _is_address(name):
            verify_certificate_ip_address(certificate, name)
        else:
            verify_certificate_hostname(certificate, name)
    # ValueError: an extension that cannot be read.
    except (CertificateError, VerificationError, ValueError):
        return False
    return True


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
