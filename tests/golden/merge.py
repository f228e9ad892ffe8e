"""A value written as what differs from another: JSON merge patch (RFC 7396), and three things that it cannot say.

- A mapping changes the fields that it names, and null removes one. Anything else replaces what was there.
- A mapping also changes a list whose items have names, as conditions have a `type`: each key is an item's name, null
  removes the item, and one that is new stands before the next that the mapping names, or last.
- A mapping also changes a text that is JSON, as the text of a ConfigMap is, as if it were what it says.
- `{exactly: value}` is the value as it stands: null itself, or a mapping in place of such a list or text.
"""

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

EXACTLY = "exactly"
_NAMES = ("type", "name", "metric", "job")
"""Fields that name the items of a list; the first that is there, and different, in each."""


def merge(base: Any, change: Any) -> Any:
    """Return what a change makes of a value, which stays as it is."""
    if not isinstance(change, dict):
        return change
    if set(change) == {EXACTLY}:
        return change[EXACTLY]
    if (name := _find_name(base)) is not None:
        return _merge_items(base, change, name)
    if (said := _read_json(base)) is not None:
        return _write_json(merge(said, change))
    merged = dict(base) if isinstance(base, dict) else {}
    for key, value in change.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def diff(base: Any, target: Any) -> Any:
    """Return the change that makes the target of a value: as little as can be said of it."""
    if target is not None:
        for change in _propose(base, target):
            if merge(base, change) == target:
                return change
    return {EXACTLY: target}


def _propose(base: Any, target: Any) -> Iterator[Any]:
    """Yield changes that may make the target, the best first."""
    if isinstance(target, dict):
        yield _diff_fields(base if isinstance(base, dict) else {}, target)
    elif isinstance(target, list):
        name = _find_name(base)
        if name is not None and name == _find_name(target, (name,)):
            yield _diff_items(base, target, name)
    elif (old := _read_json(base)) is not None and (new := _read_json(target)) is not None:
        yield diff(old, new)
    yield target


def _diff_fields(base: dict[str, Any], target: dict[str, Any]) -> dict[str, Any]:
    changed = {
        key: diff(base.get(key), value) for key, value in target.items() if key not in base or base[key] != value
    }
    return changed | dict.fromkeys(key for key in base if key not in target)


def _diff_items(base: list[Any], target: list[Any], name: str) -> dict[str, Any]:
    old = {item[name]: item for item in base}
    new = {item[name]: item for item in target}
    # What follows a new item is named even if it stays as it is, since that says where the new one stands.
    placing = {after for before, after in pairwise(new) if before not in old}
    changed = {
        key: diff(old.get(key, {name: key}), item)
        for key, item in new.items()
        if key in placing or old.get(key) != item
    }
    return changed | dict.fromkeys(key for key in old if key not in new)


def _merge_items(base: list[Any], change: dict[str, Any], name: str) -> list[Any]:
    items = {item[name]: item for item in base}
    order = list(items)
    following: str | None = None
    for key, value in reversed(change.items()):
        if value is None:
            if key in items:
                order.remove(key)
            continue
        if key not in items:
            order.insert(len(order) if following is None else order.index(following), key)
        items[key] = merge(items.get(key, {name: key}), value)
        following = key
    return [items[key] for key in order]


def _find_name(value: Any, fields: tuple[str, ...] = _NAMES) -> str | None:
    """Return the field that names the items of a list; None for what is no such list."""
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        return None
    for field in fields:
        names = [item.get(field) for item in value]
        if all(isinstance(one, str) for one in names) and len(set(names)) == len(names):
            return field
    return None


def _read_json(text: Any) -> dict[str, Any] | None:
    """Return what a text of JSON says; None for what would not be written anew as it is, or is no mapping."""
    if not isinstance(text, str) or not text.startswith("{"):
        return None
    try:
        said = json.loads(text)
    except ValueError:
        return None
    return said if _write_json(said) == text else None


def _write_json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True)
