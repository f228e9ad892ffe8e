"""Which hosts an administrator allows `https://` data to come from, and which no URL may name. Pure."""

import re
from collections.abc import Iterable

HOST_ENTRY = r"^(\*\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?$"
"""An entry of the list: a host, or `*.` and a domain for every host below it; a port where it is not 443."""

NUMERIC_HOST = "^https?://([^/:]*[.])?(0[xX][0-9a-fA-F]*|[0-9]+)(:[0-9]+)?(/.*)?$"
"""A URL whose host the system's resolver takes for an IPv4 address: dotted, or as one number of any base."""
DOTTED_HOST = "^https?://(0|[1-9][0-9]{0,2})([.](0|[1-9][0-9]{0,2})){3}(:[0-9]+)?(/.*)?$"
"""A URL whose host is an address as people write it."""
METADATA_HOST = "(?i)^https?://(169[.]254[.]|0[.]|metadata([.]google[.]internal)?(:|/|$))"
"""A URL of a link-local address or a name under which clouds hand out a node's credentials, or of no host at all."""


def is_metadata_url(url: str) -> bool:
    """Tell whether a URL names a cloud's metadata service, or hides an address in an unusual form."""
    is_hidden = re.search(NUMERIC_HOST, url) is not None and re.search(DOTTED_HOST, url) is None
    return is_hidden or re.search(METADATA_HOST, url) is not None


def find_host_entry(host: str, listed: Iterable[str]) -> str | None:
    """Return the entry that allows a host: the host itself, or the domain that it lies below; None where none does.

    Args:
        host: `name` or `name:port`, as it stands in a URI.
        listed: the administrator's entries.
    """
    entries = list(listed)
    if host in entries:
        return host
    return next((entry for entry in entries if entry.startswith("*.") and host.endswith(entry[1:])), None)


def explain_refusal(uri: str, host: str, listed: Iterable[str]) -> str:
    """Return the message for a host that no entry allows."""
    known = ", ".join(listed) or "none"
    return f"{uri}: {host} is not among the hosts that the administrator lists in sources.httpsHosts ({known})"
