"""Texts that a hostile or broken pod may send in place of a report."""

import json
import math

_DIGEST = "sha256:" + "a" * 64
_REPORT = {"outcome": "Failed", "reason": "TrainingFailed", "message": "m"}
_LOADED = {"models": [{"modelName": "bot", "job": "job", "digest": _DIGEST, "state": "Loaded"}]}
_ARTIFACT = {"uri": "pvc://out/a/adapter/1", "digest": _DIGEST, "bytes": 1}
_TRAINED = {
    "outcome": "Succeeded",
    "reason": "Succeeded",
    "training": {"steps": 1, "loss": 1.0, "seconds": 1.0},
    "artifact": _ARTIFACT,
}
_TRAINING = '{"outcome":"Succeeded","reason":"Succeeded","training":{"steps":%s,"loss":%s,"seconds":%s}}'

TEXTS: list[str] = [
    "",
    " ",
    "\0",
    "null",
    "true",
    "[]",
    "{}",
    '"text"',
    "{",
    "NaN",
    "-Infinity",
    "Traceback (most recent call last):\n  ...",
    "\ufeff" + json.dumps(_REPORT),
    json.dumps(_REPORT)[:-5],
    json.dumps(_REPORT) + json.dumps(_REPORT),
    "[" * 100_000,
    '{"a":' * 2_000,
    json.dumps(_REPORT | {"message": "x" * 100_000}),
    json.dumps(_REPORT | {"message": "ä" * 1024}, ensure_ascii=False),
    json.dumps(_REPORT | {"message": "\u001b[2J\u001b]0;owned\u0007\r\n\u0000\u009b\u202e\u2028"}),
    json.dumps(_REPORT | {"message": "\udce4\ud800"}),
    '{"outcome":"Failed","outcome":"Succeeded","reason":"Succeeded","reason":"Failed"}',
    json.dumps(_REPORT | {"reason": "NoSuchReason"}),
    json.dumps(_REPORT | {"unknown": {"a": [1] * 500}}),
    _TRAINING % ("9" * 400, "1", "1"),
    _TRAINING % ("9223372036854775808", "1", "1"),
    _TRAINING % ("9007199254740993", "1", "1"),
    _TRAINING % ("1e3", "NaN", "1"),
    _TRAINING % ("1", "NaN", "Infinity"),
    _TRAINING % ("1", "1e400", "1e400"),
    _TRAINING % ("1.5", '"1"', "true"),
    *(
        json.dumps(_TRAINED | {"artifact": _ARTIFACT | {"uri": uri}})
        for uri in (
            "",
            "nonsense",
            "pvc://out",
            "pvc://out/../../etc",
            "pvc://Out/a",
            "file:///etc/passwd",
            "finetunejob://other",
            "hf://org/name",
            "https://169.254.169.254/latest",
            "pvc://out/a\u001b[31m",
            "pvc://out/" + "a" * 500,
        )
    ),
    json.dumps(_TRAINED | {"artifact": _ARTIFACT | {"bytes": 2**70}}),
    json.dumps(_TRAINED),
    json.dumps({"models": _LOADED["models"] * 256}),
    json.dumps({"models": _LOADED["models"] * 10_000}),
    json.dumps({"models": [_LOADED["models"][0] | {"requests": 2**80, "seconds": 1e308}] * 3}),
    json.dumps({"models": [_LOADED["models"][0] | {"state": "Refused", "message": "\u001b[31mno\n"}]}),
    json.dumps({"models": [_LOADED["models"][0] | {"seconds": math.inf}]}),
    "finetune_train_step 1\nfinetune_train_steps 5\n",
    "finetune_train_step NaN\nfinetune_train_steps +Inf\n",
    "finetune_train_step 1e400\nfinetune_train_steps 1e400\nfinetune_train_loss -1e308\n",
    "finetune_train_step 1\nfinetune_train_steps 5\nfinetune_train_remaining_seconds 1e18\nfinetune_train_loss Inf\n",
    "finetune_train_step 5\nfinetune_train_steps 1\n",
    'finetune_train_step{a="' + "\\" * 50_000 + "\n",
    "finetune_train_step{" * 5_000,
    "finetune_train_step " + "1" * 100_000 + "\n",
    "# HELP " * 20_000,
    "# TYPE finetune_train_step\n# TYPE a b c d\n{} 1\n 1\na 1 2 3 4\n",
    "\n" * 500_000,
]
"""Tried as termination messages, as metrics and as answers of a server's pod."""
