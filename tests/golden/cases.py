"""Reads and writes the files of the golden tests, which share bases and shapes instead of repeating them.

A case is `<case>.yaml`. Its author writes the observed world above the line of `---`; `--rewrite-golden` writes the
expected outcome below. Above the line a mapping with `like: <base>` is `bases/<base>.yaml` with the other fields as
changes, by the rules of `merge.py`; a base may itself be like another. Below the line are

- `status`: the changes to the observed status;
- `events`, `againAfter`, `delete` and `annotate`, where there are any;
- `children`: each in full, or `like: <shape>`, which is `shapes/<shape>.yaml` with the other fields as changes.

A shape is a complete child of one case. Its file names the case above the line; `--rewrite-golden` writes the rest.
"""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from golden.merge import EXACTLY, diff, merge
from golden.yamltext import dump

LIKE = "like"
_LINE = "\n---\n"
_DEFAULTS: dict[str, Any] = {"events": [], "againAfter": None}
"""Default values of an outcome that a case file leaves out."""

Observed = dict[str, Any]
Decided = tuple[list[Any], dict[str, Any]]
"""The children and the outcome: status, events, and so on."""


class Cases:
    """The cases of a folder, with their bases and shapes."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._bases: dict[str, Any] = {}
        self._shapes: dict[str, Any] = {}

    def list_names(self) -> list[str]:
        """Return the names of all cases."""
        return sorted(path.stem for path in self._root.glob("*.yaml"))

    def read_observed(self, case: str) -> Observed:
        """Return the observed world of a case, with all bases expanded."""
        observed: Observed = self._expand(_read(self._root / f"{case}.yaml")[0])
        return observed

    def read_expected(self, case: str) -> Decided:
        """Return the expected children and outcome of a case, with all shapes expanded."""
        path = self._root / f"{case}.yaml"
        observed, *written = _read(path)
        if len(written) != 1:
            raise ValueError(f"{path}: no outcome below a line of ---: run pytest with --rewrite-golden")
        outcome = _DEFAULTS | written[0]
        outcome["status"] = merge(_find_status(self._expand(observed)), outcome["status"])
        return [self._expand_child(child) for child in outcome.pop("children")], outcome

    def rewrite(self, decide: Callable[[Observed], Decided]) -> None:
        """Write the outcome of every case, and every shape. Writes nothing when `decide` fails for a case."""
        observed = {case: self.read_observed(case) for case in self.list_names()}
        decided = {case: decide(world) for case, world in observed.items()}
        self._shapes = {path.stem: _find_shape(path, decided) for path in self._list_shapes()}
        for path in self._list_shapes():
            _write(path, self._shapes[path.stem])
        for case, (children, outcome) in decided.items():
            written = {
                name: value for name, value in outcome.items() if name not in _DEFAULTS or value != _DEFAULTS[name]
            }
            written["status"] = diff(_find_status(observed[case]), outcome["status"])
            written["children"] = [self._shorten(child) for child in children]
            _write(self._root / f"{case}.yaml", written)

    def _expand(self, value: Any, *, is_change: bool = False) -> Any:
        if isinstance(value, list):
            return [self._expand(item) for item in value]
        if not isinstance(value, dict):
            return value
        if LIKE not in value:
            return {name: self._expand(field, is_change=is_change) for name, field in value.items()}
        changes = {name: self._expand(field, is_change=True) for name, field in value.items() if name != LIKE}
        expanded = merge(self._read_base(value[LIKE]), changes)
        # Within a change, the expanded base replaces the old value instead of changing it.
        return {EXACTLY: expanded} if is_change else expanded

    def _expand_child(self, child: dict[str, Any]) -> Any:
        if LIKE not in child:
            return child
        changes = {name: change for name, change in child.items() if name != LIKE}
        return merge(self._read_shape(child[LIKE]), changes)

    def _shorten(self, child: dict[str, Any]) -> dict[str, Any]:
        """Return a child as its difference from the nearest shape, or in full where that is shorter."""
        shapes = {path.stem: self._read_shape(path.stem) for path in self._list_shapes()}
        candidates = [
            {LIKE: name} | diff(shape, child) for name, shape in shapes.items() if shape["kind"] == child["kind"]
        ]
        return min([*candidates, child], key=lambda candidate: len(dump(candidate)))

    def _list_shapes(self) -> list[Path]:
        return sorted((self._root / "shapes").glob("*.yaml"))

    def _read_base(self, name: str) -> Any:
        if name not in self._bases:
            self._bases[name] = self._expand(_read(self._root / "bases" / f"{name}.yaml")[0])
        # A copy: the fuzz tests change observed worlds, which must not change the base.
        return deepcopy(self._bases[name])

    def _read_shape(self, name: str) -> Any:
        if name not in self._shapes:
            self._shapes[name] = _read(self._root / "shapes" / f"{name}.yaml")[1]
        return self._shapes[name]


def _find_shape(path: Path, decided: dict[str, Decided]) -> Any:
    """Return the child that replaces a shape: of the case's children of that kind, the one that differs least."""
    head, shape = _read(path)
    children = [child for child in decided[head["case"]][0] if child["kind"] == shape["kind"]]
    if not children:
        raise ValueError(
            f"{path}: {head['case']} has no {shape['kind']} any more: name another case, or delete this file"
        )
    return min(children, key=lambda child: len(dump(diff(shape, child))))


def _find_status(observed: Observed) -> Any:
    return observed["job" if "job" in observed else "server"].get("status")


def _read(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text()))


def _write(path: Path, value: Any) -> None:
    head = path.read_text().split(_LINE)[0].rstrip("\n")
    path.write_text(f"{head}{_LINE}{dump(value)}")


GOLDEN = Cases(Path(__file__).parent)
"""The operator's specification."""
