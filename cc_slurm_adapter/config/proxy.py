"""Which proxy a request is sent through, by the rules of Go's http.ProxyFromEnvironment.

The existing adapter follows these rules. They are those of the package golang.org/x/net/http/httpproxy.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from cc_slurm_adapter.model import Proxy

NONE = "none"
"""In the configuration: no proxy, whatever the environment has."""
EXPECTED = "expected http://[USER:PASSWORD@]HOST[:PORT]"
_PORTS = {"http": 80, "https": 443}


def parse_proxy(text: str) -> Proxy:
    """Return the proxy that a URL, or HOST[:PORT] alone, names. Raises ValueError, whose text has no password."""
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(EXPECTED) from None
    if parts.scheme != "http":
        raise ValueError(f"{EXPECTED}: a proxy that is itself reached over {parts.scheme} cannot be used")
    if not parts.hostname or port == 0 or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(EXPECTED)
    return Proxy(parts.hostname, port or _PORTS["http"], _authorization(parts.username, parts.password))


def _authorization(user: str | None, password: str | None) -> str:
    if user is None:
        return ""
    pair = f"{unquote(user)}:{unquote(password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode("ascii")


def proxy_variable(url: str, environment: Mapping[str, str]) -> str:
    """Return the environment variable that names the proxy for a URL; '' if no proxy is used for it."""
    parts = urlsplit(url)
    name = "HTTPS_PROXY" if parts.scheme == "https" else "HTTP_PROXY"
    found = next((each for each in (name, name.lower()) if environment.get(each)), "")
    host, port = (parts.hostname or "").lower(), parts.port or _PORTS[parts.scheme]
    excepted = environment.get("NO_PROXY") or environment.get("no_proxy") or ""
    return "" if not found or _is_local(host) or _is_excepted(host, port, excepted) else found


def _is_local(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _is_excepted(host: str, port: int, no_proxy: str) -> bool:
    """Return whether NO_PROXY names this host.

    It may name a domain with everything below it, an address, or a network. A domain or an address may have a port.
    """
    entries = [entry.strip().lower() for entry in no_proxy.split(",") if entry.strip()]
    return any(entry == "*" or _matches(host, port, entry) for entry in entries)


def _matches(host: str, port: int, entry: str) -> bool:
    address = _address(host)
    if "/" in entry:
        try:
            return address is not None and address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    name, its_port = _split_port(entry)
    if its_port not in ("", str(port)):
        return False
    if _address(name) is not None:
        return address == _address(name)
    if address is not None or not name:
        return False
    only_below = name.startswith((".", "*."))
    domain = name.lstrip("*").lstrip(".")
    return host.endswith(f".{domain}") or (host == domain and not only_below)


def _split_port(entry: str) -> tuple[str, str]:
    """Return host and port of `host:port` and `[::1]:port`. An IPv6 address alone has no port."""
    if _address(entry.strip("[]")) is not None:
        return entry.strip("[]"), ""
    host, colon, port = entry.rpartition(":")
    return (host.strip("[]"), port) if colon else (entry, "")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
