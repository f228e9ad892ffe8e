"""Conversations of every kind that users train on, for tests over many chat templates."""

from typing import Any

Example = dict[str, Any]


def _say(role: str, content: Any, **fields: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **fields}


def _call(*calls: tuple[str, str], content: Any = None, **fields: Any) -> dict[str, Any]:
    """Return a message of the assistant that calls tools with these names and JSON arguments."""
    listed = [
        {"id": f"call{number:05d}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for number, (name, arguments) in enumerate(calls, 1)
    ]
    return {"role": "assistant", "content": content, "tool_calls": listed, **fields}


def _result(content: Any, number: int = 1, **fields: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": f"call{number:05d}", "content": content, **fields}


def _tool(name: str, description: str, properties: dict[str, Any], **fields: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)[:1]}
    return {
        "type": "function",
        "function": {"parameters": parameters, "description": description, "name": name, **fields},
    }


TRACK = _tool("track", "Where a parcel is", {"number": {"type": "string", "description": "the parcel's number"}})
BOOK = _tool(
    "book",
    "Books a courier",
    {
        "address": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "floor": {"type": "integer"}},
            "required": ["city"],
        },
        "days": {"type": "array", "items": {"type": "string", "enum": ["Mon", "Tue"]}},
        "express": {"type": "boolean"},
        "weight": {"type": "number"},
    },
)
STRICT = _tool("weigh", "Weighs a parcel", {"number": {"type": "string"}}, strict=True)
BARE = {"type": "function", "function": {"name": "ping"}}

_SYSTEM = _say("system", "You run a parcel desk.")
_ASK = _say("user", "Is parcel 3 here?")
_ANSWER = _say("assistant", "Parcel 3 came at nine.")
_TRACKS = _call(("track", '{"number": "P7"}'))
_NESTED = '{"address": {"city": "Málaga", "floor": 3}, "days": ["Mon", "Tue"], "express": true, "weight": 2.5}'
_TURNS = [
    _ASK,
    _ANSWER,
    _say("user", "And parcel 4?"),
    _say("assistant", "Parcel 4 is on its way."),
    _say("user", "Thanks!"),
    _say("assistant", "You are welcome."),
]

CONVERSATIONS: dict[str, Example] = {
    "one turn": {"messages": [_ASK, _ANSWER]},
    "system": {"messages": [_SYSTEM, _ASK, _ANSWER]},
    "developer": {"messages": [_say("developer", "Be brief."), _ASK, _ANSWER]},
    "system and developer": {"messages": [_SYSTEM, _say("developer", "Be brief."), _ASK, _ANSWER]},
    "late developer": {"messages": [_ASK, _ANSWER, _say("developer", "Be brief."), *_TURNS[2:4]]},
    "three turns": {"messages": _TURNS},
    "three turns with system": {"messages": [_SYSTEM, *_TURNS]},
    "unlearned first turn": {"messages": [_ASK, _ANSWER | {"weight": 0}, *_TURNS[2:]]},
    "unlearned last turn": {"messages": [*_TURNS[:4], _TURNS[4], _TURNS[5] | {"weight": 0}]},
    "ends with a question": {"messages": _TURNS[:3]},
    "two answers in a row": {"messages": [_ASK, _ANSWER, _say("assistant", "It is at the counter.")]},
    "two questions in a row": {"messages": [_ASK, _say("user", "And parcel 4?"), _ANSWER]},
    "begins with an answer": {"messages": [_say("assistant", "How can I help?"), _ASK, _ANSWER]},
    "spaces at the edges": {"messages": [_say("user", "  Is it here?\n"), _say("assistant", " It came.\n\n")]},
    "line breaks": {"messages": [_ASK, _say("assistant", "First:\n\n- one\n- two\n\nDone.")]},
    "unicode": {"messages": [_say("user", "Où est-il? 📦"), _say("assistant", "À Lyon, 8 h — déjà «livré» ✓ 你好")]},
    "JSON answer": {"messages": [_ASK, _say("assistant", '{"parcel": 3, "at": "nine", "here": true}')]},
    "template syntax": {"messages": [_say("user", "What is {{ x }}?"), _say("assistant", "{% if y %}a{% endif %}")]},
    "text parts": {
        "messages": [
            _say("user", [{"type": "text", "text": "Is it"}, {"type": "text", "text": "here?"}]),
            _say("assistant", [{"type": "text", "text": "It came at nine."}]),
        ]
    },
    "system in parts": {"messages": [_say("system", [{"type": "text", "text": "Be kind."}]), _ASK, _ANSWER]},
    "names": {"messages": [_ASK | {"name": "ada"}, _ANSWER]},
    "tools unused": {"messages": [_ASK, _ANSWER], "tools": [TRACK]},
    "call": {"messages": [_ASK, _TRACKS], "tools": [TRACK]},
    "call and answer": {
        "messages": [_ASK, _TRACKS, _result("in Lyon"), _say("assistant", "It is in Lyon.")],
        "tools": [TRACK],
    },
    "call with system": {
        "messages": [_SYSTEM, _ASK, _TRACKS, _result("in Lyon"), _say("assistant", "It is in Lyon.")],
        "tools": [TRACK, BOOK],
    },
    "call with empty content": {
        "messages": [_ASK, _call(("track", '{"number": "P7"}'), content=""), _result("in Lyon"), _ANSWER],
        "tools": [TRACK],
    },
    "call with content": {
        "messages": [_ASK, _call(("track", '{"number": "P7"}'), content="Let me look."), _result("Lyon"), _ANSWER],
        "tools": [TRACK],
    },
    "nested arguments": {"messages": [_ASK, _call(("book", _NESTED)), _result("ok"), _ANSWER], "tools": [BOOK]},
    "no arguments": {"messages": [_ASK, _call(("ping", "{}")), _result("ok"), _ANSWER], "tools": [BARE]},
    "escaped arguments": {
        "messages": [_ASK, _call(("track", '{"number": "a\\"b\\\\c\\n<d>&é"}')), _result("ok"), _ANSWER],
        "tools": [TRACK],
    },
    "parallel calls": {
        "messages": [
            _ASK,
            _call(("track", '{"number": "P7"}'), ("track", '{"number": "P8"}')),
            _result("in Lyon"),
            _result("in Nice", 2),
            _say("assistant", "One in Lyon, one in Nice."),
        ],
        "tools": [TRACK],
    },
    "calls in two turns": {
        "messages": [
            _ASK,
            _TRACKS,
            _result("in Lyon"),
            _say("assistant", "In Lyon."),
            _say("user", "And P8?"),
            _call(("track", '{"number": "P8"}')),
            _result("in Nice"),
            _say("assistant", "In Nice."),
        ],
        "tools": [TRACK],
    },
    "JSON result": {
        "messages": [_ASK, _TRACKS, _result('{"city": "Lyon", "late": false}'), _say("assistant", "In Lyon.")],
        "tools": [TRACK],
    },
    "result in parts": {
        "messages": [_ASK, _TRACKS, _result([{"type": "text", "text": "in Lyon"}]), _say("assistant", "In Lyon.")],
        "tools": [TRACK],
    },
    "strict tool": {"messages": [_ASK, _call(("weigh", '{"number": "P7"}'))], "tools": [STRICT]},
    "reasoning": {"messages": [_ASK, _ANSWER | {"reasoning_content": "The list says nine."}]},
    "reasoning in every turn": {
        "messages": [
            _ASK,
            _ANSWER | {"reasoning_content": "The list says nine."},
            _TURNS[2],
            _TURNS[3] | {"reasoning_content": "It left Lyon."},
        ]
    },
    "reasoning in the first turn": {"messages": [_ASK, _ANSWER | {"reasoning_content": "Nine."}, *_TURNS[2:4]]},
    "reasoning before a call": {
        "messages": [_ASK, _TRACKS | {"reasoning_content": "I must look."}, _result("in Lyon"), _ANSWER],
        "tools": [TRACK],
    },
    "thought in the content": {"messages": [_ASK, _say("assistant", "<think>\nThe list.\n</think>\n\nAt nine.")]},
    "thoughts in the contents": {
        "messages": [
            _ASK,
            _say("assistant", "<think>\nThe list.\n</think>\n\nAt nine."),
            _TURNS[2],
            _say("assistant", "<think>\nIt left.\n</think>\n\nOn its way."),
        ]
    },
}
