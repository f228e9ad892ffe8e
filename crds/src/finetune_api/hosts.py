"""The hosts that an administrator allows for `https://` data, and the addresses that no URL may contain. No I/O."""

import re
from collections.abc import Iterable

HOST_ENTRY = r"^(\*\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?$"
"""An entry of the list: a host, or `*.` and a domain for all hosts below it; followed by a port other than 443."""

NUMERIC_HOST = "^https?://([^/:]*[.])?(0[xX][0-9a-fA-F]*|[0-9]+)(:[0-9]+)?(/.*)?$"
"""A URL whose host the system's resolver reads as an IPv4 address: dotted, or one number in any base."""
DOTTED_HOST = "^https?://(0|[1-9][0-9]{0,2})([.](0|[1-9][0-9]{0,2})){3}(:[0-9]+)?(/.*)?$"
"""A URL whose host is an IPv4 address of four decimal numbers."""
METADATA_HOST = "(?i)^https?://(169[.]254[.]|0[.]|metadata([.]google[.]internal)?(:|/|$))"
"""A URL of a link-local address or a name under which clouds serve a node's credentials, or of 0.0.0.0/8."""


def is_metadata_url(url: str) -> bool:
    """Return whether a URL names a cloud's metadata service or writes an address in an unusual form."""
    is_obfuscated = re.search(NUMERIC_HOST, url) is not None and re.search(DOTTED_HOST, url) is None
    return is_obfuscated or re.search(METADATA_HOST, url) is not None


def find_host_entry(host: str, allowed: Iterable[str]) -> str | None:
    """Return the entry that allows a host: the host itself or a domain above it; None if no entry does.

    Args:
        host: `name` or `name:port`, as in the URI.
        allowed: the administrator's entries.
    """
    entries = list(allowed)
    if host in entries:
        return host
    return next((entry for entry in entries if entry.startswith("*.") and host.endswith(entry[1:])), None)


def explain_refusal(uri: str, host: str, allowed: Iterable[str]) -> str:
    """Return the error message for a host that no entry allows."""
    hosts = ", ".join(allowed) or "none"
    return f"{uri}: {host} is not among the hosts that the administrator lists in sources.httpsHosts ({hosts})"
