"""What the environment defines for HTTP: certificates, proxies and credentials, the same for every fetcher."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit

import urllib3
from requests.utils import DEFAULT_CA_BUNDLE_PATH, get_environ_proxies, get_netrc_auth, select_proxy

from dpp.errors import ConfigurationError, FetchError
from dpp.redact import redact_url

CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
PROXY_SCHEMES = frozenset({"http", "https", "socks4", "socks4a", "socks5", "socks5h"})
# RFC 7468, section 5, and the labels of OpenSSL; a private key is no certificate.
_CERTIFICATE = re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----")
# OpenSSL finds a certificate in a folder by the hash of its subject.
_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+")


class Authorities(NamedTuple):
    """Where the trusted CA certificates are.

    Attributes:
        file: Path of a file with certificates in PEM format; "" for none.
        folder: Folder with certificates under the hashes of their subjects, as ``openssl rehash`` names them, or several, separated
            by colons; "" for none.
    """

    file: str
    folder: str


class Environment:
    """The environment's part of a request; each host is looked up once.

    Attributes:
        authorities: Where the trusted CA certificates are.

    Raises:
        ConfigurationError: A variable names CA certificates that do not exist.
    """

    def __init__(self) -> None:
        self.authorities = authorities()
        # Looking these up takes half as long as a request.
        self._proxy = functools.lru_cache(maxsize=1024)(_proxy)
        self._netrc = functools.lru_cache(maxsize=1024)(get_netrc_auth)

    def proxy(self, url: str) -> str:
        """Return the URL of the proxy for a URL (``HTTPS_PROXY``, ``NO_PROXY``), or "" for none.

        Raises:
            FetchError: The proxy is not one.
        """
        return self._proxy(_site(url))

    def authorization(self, url: str, headers: Mapping[str, str]) -> dict[str, str]:
        """Return the Authorization header from a URL's user part, or from ``$NETRC`` or ``~/.netrc``; nothing if the headers have one."""
        if any(name.lower() == "authorization" for name in headers):
            return {}
        parts = urlsplit(url)
        if parts.username is not None:
            user = f"{_unquoted(parts.username)}:{_unquoted(parts.password or '')}"
        else:
            user = ":".join(self._netrc(_site(url)) or ())
        return urllib3.make_headers(basic_auth=user) if user else {}


def authorities(*first: str) -> Authorities:
    """Return the CA certificates that the environment names, or those of certifi.

    ``REQUESTS_CA_BUNDLE`` comes first, then ``CURL_CA_BUNDLE``; each names a file or a folder. Then come ``SSL_CERT_FILE`` and
    ``SSL_CERT_DIR``, together as in OpenSSL.

    Args:
        first: Names of variables that come before all of these, such as those of a library.

    Raises:
        ConfigurationError: A variable names certificates that do not exist.
    """
    for name in (*first, *CA_VARIABLES[:2]):
        if path := os.environ.get(name):
            return Authorities("", _checked_folder(name, path)) if Path(path).is_dir() else Authorities(_checked_file(name, path), "")
    file, folder = (os.environ.get(name, "") for name in CA_VARIABLES[2:])
    if not file and not folder:
        return Authorities(DEFAULT_CA_BUNDLE_PATH, "")
    # Images set SSL_CERT_DIR to a folder that they lack; this is harmless beside a file.
    return Authorities(file and _checked_file("SSL_CERT_FILE", file), folder if file else _checked_folder("SSL_CERT_DIR", folder))


def _checked_file(name: str, path: str) -> str:
    try:
        if _CERTIFICATE.search(Path(path).read_bytes()):
            return path
    except OSError as error:
        raise ConfigurationError(f"{name} names {path}, which cannot be read: {error.strerror}; correct or unset it") from error
    raise ConfigurationError(f"{name} names {path}, which has no certificate in PEM format; correct or unset it")


def _checked_folder(name: str, folders: str) -> str:
    for folder in filter(os.path.isdir, folders.split(os.pathsep)):
        if any(map(_HASHED.fullmatch, os.listdir(folder))):
            return folders
    raise ConfigurationError(f"{name} names {folders}, which has no certificate under its hash; run: openssl rehash FOLDER")


def _proxy(site: str) -> str:
    proxy = select_proxy(site, get_environ_proxies(site)) or ""
    url = proxy if "://" in proxy else f"http://{proxy}"
    try:
        parts = urlsplit(url)
        if not proxy or (parts.scheme in PROXY_SCHEMES and parts.hostname and parts.port != 0):
            return proxy
    except ValueError:
        pass
    shown = redact_url(url)
    raise FetchError(f"the proxy in the environment is {shown}; expected a URL such as http://proxy:3128", "connection")


def _site(url: str) -> str:
    """Return a URL without user, path and query: proxies and credentials do not depend on these."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/"


def _unquoted(text: str) -> str:
    # Headers are sent as ISO 8859-1.
    return unquote_to_bytes(text).decode("latin-1")
