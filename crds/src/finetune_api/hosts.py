"""Which hosts an administrator allows `https://` data to come from. Pure."""

from collections.abc import Iterable

HOST_ENTRY = r"^(\*\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?$"
"""An entry of the list: a host, or `*.` and a domain for every host below it; a port where it is not 443."""


def find_entry(host: str, listed: Iterable[str]) -> str | None:
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
