"""Writes a value as its difference from another: JSON merge patch (RFC 7396) with three extensions.

- A mapping changes the fields that it names, and null removes one. Anything else replaces what was there.
- A mapping also changes a list whose items have names, such as the `type` of conditions: each key is an item's name,
  null removes the item, and a new item is inserted before the next item that the mapping names, or last.
- A mapping also changes a string that holds a JSON object, such as the data of a ConfigMap.
- `{exactly: value}` sets the value unchanged: null itself, or a mapping in place of such a list or string.
"""

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

EXACTLY = "exactly"
_NAMES = ("type", "name", "metric", "job")
"""Fields that may name the items of a list: the first that every item has, with different values."""


def merge(base: Any, change: Any) -> Any:
    """Return a value with a change applied; does not modify the value."""
    if not isinstance(change, dict):
        return change
    if set(change) == {EXACTLY}:
        return change[EXACTLY]
    if (name := _find_name(base)) is not None:
        return _merge_items(base, change, name)
    if (content := _read_json(base)) is not None:
        return _write_json(merge(content, change))
    merged = dict(base) if isinstance(base, dict) else {}
    for key, value in change.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def diff(base: Any, target: Any) -> Any:
    """Return the smallest change from a value to the target."""
    if target is not None:
        for change in _propose(base, target):
            if merge(base, change) == target:
                return change
    return {EXACTLY: target}


def _propose(base: Any, target: Any) -> Iterator[Any]:
    """Yield candidate changes from base to target, the smallest first."""
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
    # The successor of a new item is named even without a change: it gives the position of the new item.
    successors = {after for before, after in pairwise(new) if before not in old}
    changed = {
        key: diff(old.get(key, {name: key}), item)
        for key, item in new.items()
        if key in successors or old.get(key) != item
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
    """Return the field that names the items of a list; None for any other value."""
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        return None
    for field in fields:
        names = [item.get(field) for item in value]
        if all(isinstance(name, str) for name in names) and len(set(names)) == len(names):
            return field
    return None


def _read_json(text: Any) -> dict[str, Any] | None:
    """Return the JSON object in a string; None for other values and for JSON in another format."""
    if not isinstance(text, str) or not text.startswith("{"):
        return None
    try:
        content = json.loads(text)
    except ValueError:
        return None
    return content if _write_json(content) == text else None


def _write_json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True)
