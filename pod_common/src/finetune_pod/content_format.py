"""Finds out what a chat template reads, from its syntax tree: whether it iterates over the parts of a content.

vLLM decides in the same way in which form it passes contents (`--chat-template-content-format auto`).
"""

from collections.abc import Iterator
from typing import Any

from jinja2 import nodes


def iterates_content(tree: nodes.Template) -> bool:
    """Return whether a template has a loop over the content of a message; False if vLLM cannot tell."""
    loops = list(tree.find_all(nodes.For))
    try:
        messages = set(_find_aliases(tree, "messages"))
        items = {_get_name(loop.target) for loop in loops if any(_reads(loop.iter, name) for name in messages)}
        macro_loops: dict[int, set[str]] = {}
        for macro in tree.find_all(nodes.Macro):
            contents = set(_find_content_parameters(tree, macro, items))
            macro_loops |= {id(loop): contents for loop in macro.find_all(nodes.For)}
        content_loops = (loop for loop in loops if _iterates(loop, items, macro_loops.get(id(loop), {"content"})))
        return any(_get_name(loop.target) for loop in content_loops)
    except _NoVariableError:
        return False


class _NoVariableError(Exception):
    """The target of a loop or of an assignment is not a single variable."""


def _get_name(target: nodes.Node) -> str:
    if not isinstance(target, nodes.Name):
        raise _NoVariableError
    return target.name


def _iterates(loop: nodes.For, items: set[str], contents: set[str]) -> bool:
    """Return whether a loop is over the content of an item, or over a variable with a content."""
    return any(_reads(loop.iter, item, "content") for item in items) or (
        isinstance(loop.iter, nodes.Name) and loop.iter.name in contents
    )


def _find_aliases(tree: nodes.Template, name: str) -> Iterator[str]:
    """Yield a variable and all to which it, or a part of it, is assigned."""
    found, pending = {name}, [name]
    while pending:
        current = pending.pop()
        yield current
        for assignment in tree.find_all(nodes.Assign):
            if _reads(assignment.node, current) and (target := _get_name(assignment.target)) not in found:
                found.add(target)
                pending.append(target)


def _find_content_parameters(tree: nodes.Template, macro: nodes.Macro, items: set[str]) -> Iterator[str]:
    """Yield the parameters of a macro that some call passes the content of an item."""
    parameters = [argument.name for argument in macro.args]
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name == macro.name:
            given = [
                *zip(parameters, call.args, strict=False),
                *((keyword.key, keyword.value) for keyword in call.kwargs),
            ]
            for parameter, value in given:
                if parameter in parameters and any(_reads(value, item, "content") for item in items):
                    yield parameter


def _reads(node: Any, variable: str, key: str | None = None) -> bool:
    """Return whether an expression is a variable or its field `key`, also filtered, tested or sliced."""
    while isinstance(node, nodes.Filter | nodes.Test) or (
        isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice)
    ):
        node = node.node
    if key is not None:
        if isinstance(node, nodes.Getitem):
            matches = isinstance(node.arg, nodes.Const) and node.arg.value == key
        else:
            matches = isinstance(node, nodes.Getattr) and node.attr == key
        if not matches:
            return False
        node = node.node
    return isinstance(node, nodes.Name) and node.ctx == "load" and node.name == variable
