"""Differences between two values, and values with a difference applied."""

import json
from typing import Any

import pytest
import yaml
from golden.merge import diff, merge
from golden.yamltext import dump
from hypothesis import given, settings
from hypothesis import strategies as st

# Few keys, so that two values often share a field or an item.
_KEYS = st.sampled_from(["a", "b", "name", "type", "exactly"]) | st.text(max_size=1)
_SCALARS = st.none() | st.booleans() | st.floats(allow_nan=False) | st.text()


def _nest(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return lists, lists of named items, mappings, and mappings as JSON strings."""
    fields = st.dictionaries(_KEYS, values, max_size=3)
    named = st.lists(
        st.builds(lambda item, name: item | {"name": name}, fields, st.sampled_from(["x", "y", "z"])), max_size=3
    )
    return st.lists(values, max_size=3) | named | fields | fields.map(_write_json)


def _write_json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True)


_CONDITIONS = [{"type": "Accepted", "status": "True"}, {"type": "Ready", "status": "False", "message": "m"}]
_VALUES = st.recursive(_SCALARS, _nest, max_leaves=12)


@pytest.mark.parametrize(
    ("base", "change", "target"),
    [
        ({"a": 1, "b": 2}, {"b": 3}, {"a": 1, "b": 3}),
        ({"a": 1, "b": 2}, {"b": None}, {"a": 1}),
        ({"a": 1}, {"b": {"exactly": None}}, {"a": 1, "b": None}),
        ({"a": None}, {}, {"a": None}),
        ({"a": {"b": 1}}, {"a": {"c": {"exactly": None}}}, {"a": {"b": 1, "c": None}}),
        (None, {"a": {"b": {"exactly": None}}}, {"a": {"b": None}}),
        ({}, {"exactly": {"exactly": 1}}, {"exactly": 1}),
        ({"a": [1, 2]}, {"a": [1, None]}, {"a": [1, None]}),
        ({"a": [1]}, {"a": {"b": 1}}, {"a": {"b": 1}}),
    ],
)
def test_a_change_holds_only_the_difference(base: Any, change: Any, target: Any) -> None:
    assert diff(base, target) == change
    assert merge(base, change) == target


@pytest.mark.parametrize(
    ("change", "target"),
    [
        ({"Ready": {"status": "True", "message": None}}, [_CONDITIONS[0], {"type": "Ready", "status": "True"}]),
        ({"Accepted": None}, _CONDITIONS[1:]),
        ({"Served": {}, "Ready": {}}, [_CONDITIONS[0], {"type": "Served"}, _CONDITIONS[1]]),
        ({"Served": {"status": "True"}}, [*_CONDITIONS, {"type": "Served", "status": "True"}]),
        ([], []),
        (_CONDITIONS[::-1], _CONDITIONS[::-1]),
        ({"exactly": {"Ready": 1}}, {"Ready": 1}),
    ],
    ids=["changed", "removed", "before another", "last", "emptied", "in another order", "a mapping instead"],
)
def test_named_items_are_changed_by_name(change: Any, target: Any) -> None:
    assert diff(_CONDITIONS, target) == change
    assert merge(_CONDITIONS, change) == target


def test_items_with_equal_names_are_written_in_full() -> None:
    doubled = [{"name": "a", "weight": 1}, {"name": "a", "weight": 2}]
    assert diff([{"name": "a"}], doubled) == doubled
    assert diff(doubled, [{"name": "a"}]) == [{"name": "a"}]


def test_a_json_string_is_changed_by_its_fields() -> None:
    base, target = ({"data": _write_json({"seed": seed, "gates": []})} for seed in (1, 2))
    assert diff(base, target) == {"data": {"seed": 2}}
    assert merge(base, {"data": {"seed": 2}}) == target
    differently_formatted = {"data": json.dumps({"seed": 2})}
    assert diff(base, differently_formatted) == differently_formatted


def test_merge_does_not_modify_the_value() -> None:
    base = {"conditions": [{"type": "Ready", "status": "True"}], "a": {"b": 1}}
    merge(base, {"conditions": {"Ready": {"status": "False"}, "Served": {}}, "a": {"b": None}})
    assert base == {"conditions": [{"type": "Ready", "status": "True"}], "a": {"b": 1}}


@settings(max_examples=300, deadline=None, database=None)
@given(_VALUES, _VALUES)
def test_a_change_always_gives_the_target(base: Any, target: Any) -> None:
    change = diff(base, target)
    assert merge(base, change) == target
    assert yaml.safe_load(dump(change)) == change


@settings(max_examples=200, deadline=None, database=None)
@given(st.dictionaries(_KEYS, _VALUES))
def test_equal_values_give_an_empty_change(value: dict[str, Any]) -> None:
    assert merge(value, {}) == value
    if set(value) != {"exactly"}:
        assert diff(value, value) == {}
