"""Refuse connections to addresses that are not public, for lists from strangers (``deny_private``).

The address of the connected peer is checked, not a name: a redirect or another answer of the name server (DNS rebinding) cannot
get around it. Sources: RFC 6890 (special-purpose addresses) and its registries, RFC 4291 (IPv6), RFC 6052 (NAT64),
RFC 3056 (6to4).
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from dpp.errors import FetchError

_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
# Python takes parts of these for public addresses, depending on its version; 192.0.0.192 has a cloud's credentials.
_SPECIAL_V4 = IPv4Network("192.0.0.0/24")
_SPECIAL_V6 = IPv6Network("3fff::/20")
_LOW_BITS = 0xFFFFFFFF


def is_public(address: str) -> bool:
    """Whether an IP address is public: neither private nor of a special purpose, such as loopback, link-local and multicast.

    Args:
        address: The address; an IPv6 address may have a zone (``fe80::1%eth0``). One that contains an IPv4 address is as public as that.
    """
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address):
        inner = _inner(found)
        if inner is None:
            return found in _UNICAST and found.is_global and found not in _SPECIAL_V6
        found = inner
    return found.is_global and not found.is_multicast and found not in _SPECIAL_V4


def _inner(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that a gateway, or this machine, connects to for an IPv6 address; None if there is none."""
    if address in _NAT64:
        return IPv4Address(int(address) & _LOW_BITS)
    return address.ipv4_mapped or address.sixtofour


def check_peer(address: str) -> None:
    """Raise FetchError if a connection's peer is not public; for fetchers, with the setting ``deny_private``.

    Args:
        address: IP address of the peer, as ``socket.getpeername()[0]``; check it before anything is sent.
    """
    if not is_public(address):
        raise FetchError(f"the server's address {address} is not public, and deny_private is set", "refused")


def check_no_proxy(proxy: object) -> None:
    """Raise FetchError if a request would go through a proxy, whose own address says nothing about the server's.

    Args:
        proxy: The proxy; None or "" for none.
    """
    if proxy:
        what = "a proxy of the environment would connect to the server, so its address cannot be checked, and deny_private is set"
        raise FetchError(f"{what}; unset the proxy, or deny private addresses in the proxy and unset deny_private", "refused")
