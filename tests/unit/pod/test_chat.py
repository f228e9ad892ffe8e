"""Examples as tokens: what the model learns, and after which prompt."""

from pathlib import Path
from typing import Any

from finetune_pod.chat import IGNORED_LABEL, ChatEncoder, Encoded, EncodedExample
from finetune_pod.template import TemplateError
from model.tiny import CHAT_TEMPLATE, make_tiny_tokenizer

USER = {"role": "user", "content": "hello"}
ANSWER = {"role": "assistant", "content": "good day"}
MORE = {"role": "assistant", "content": "sure"}
TURNS = [USER, ANSWER, USER, MORE]
END_BEFORE_NEXT = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|assistant|>"
    "{% endif %}"
)
"""Like GLM's: an answer ends with the token that starts the next message."""
LAST_DIFFERS = (
    "{% for m in messages %}<|{{ m.role }}|>{% if loop.last and m.role == 'assistant' %}() {% endif %}{{ m.content }}"
    "<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Like Qwen3's: only the last answer has a thought."""


class Reader:
    """Encodes examples, and decodes what is learned of them."""

    def __init__(self, directory: Path, template: str = CHAT_TEMPLATE, stops: tuple[str, ...] = ("<|end|>",)) -> None:
        self.tokenizer = make_tiny_tokenizer(directory, template)
        self.encoder = ChatEncoder(self.tokenizer, set(self.tokenizer.convert_tokens_to_ids(list(stops))))

    def encode(self, example: dict[str, Any], **options: Any) -> EncodedExample:
        (encoded,) = self.encoder.encode([example], **options)
        assert isinstance(encoded, EncodedExample), encoded
        return encoded

    def read(self, sequence: Encoded) -> tuple[str, str]:
        """Return the text of a sequence, and of its targets."""
        targets = [token for token, is_target in zip(sequence.ids, sequence.is_target, strict=True) if is_target]
        return self.tokenizer.decode(sequence.ids), self.tokenizer.decode(targets)

    def read_all(self, example: dict[str, Any], field: str = "messages", **options: Any) -> list[tuple[str, str]]:
        return [self.read(sequence) for sequence in self.encode(example, **options).sequences[field]]


def test_turns_that_agree_are_one_sequence(tmp_path: Path) -> None:
    whole = "<|user|>hello<|end|>\n<|assistant|>good day<|end|>\n<|user|>hello<|end|>\n<|assistant|>sure<|end|>"
    assert Reader(tmp_path).read_all({"messages": TURNS}) == [(whole, "good day<|end|>sure<|end|>")]


def test_turns_that_are_rendered_differently_later_are_sequences_of_their_own(tmp_path: Path) -> None:
    assert Reader(tmp_path, LAST_DIFFERS).read_all({"messages": TURNS}) == [
        ("<|user|>hello<|end|><|assistant|>() good day<|end|>", "() good day<|end|>"),
        (
            "<|user|>hello<|end|><|assistant|>good day<|end|><|user|>hello<|end|><|assistant|>() sure<|end|>",
            "() sure<|end|>",
        ),
    ]


def test_an_answer_may_end_with_the_token_that_starts_the_next_message(tmp_path: Path) -> None:
    reader = Reader(tmp_path, END_BEFORE_NEXT, ("<|user|>",))
    ((text, learned),) = reader.read_all({"messages": TURNS})
    assert text == "<|user|>hello<|assistant|>good day<|user|>hello<|assistant|>sure<|user|>"
    assert learned == "good day<|user|>sure<|user|>"


def test_an_answer_without_a_stop_token_is_told(tmp_path: Path) -> None:
    reader = Reader(tmp_path, END_BEFORE_NEXT)
    (answer,) = reader.encode({"messages": [USER, ANSWER]}).answers["messages"]
    assert (reader.tokenizer.decode(answer.ids), answer.stops) == ("good day", False)


def test_a_turn_of_weight_0_is_not_learned(tmp_path: Path) -> None:
    messages = [USER, ANSWER | {"weight": 0}, USER, MORE | {"weight": 1}]
    assert [learned for _, learned in Reader(tmp_path).read_all({"messages": messages})] == ["sure<|end|>"]


def test_a_turn_that_cannot_be_rendered_is_named_and_the_others_are_learned(tmp_path: Path) -> None:
    template = "{% if messages | length == 2 %}{{ raise_exception('no two') }}{% endif %}" + CHAT_TEMPLATE
    encoded = Reader(tmp_path, template).encode({"messages": TURNS})
    assert encoded.unlearned == {1: "the chat template fails: no two"}
    assert len(encoded.answers["messages"]) == 1
    (refused,) = Reader(tmp_path, template).encoder.encode([{"messages": [USER, ANSWER]}])
    assert isinstance(refused, TemplateError)


def test_a_preference_has_one_prompt(tmp_path: Path) -> None:
    encoded = Reader(tmp_path).encode({"prompt": [USER], "chosen": [ANSWER], "rejected": [MORE]})
    chosen, rejected = encoded.answers["chosen"][0], encoded.answers["rejected"][0]
    assert chosen.prompt == rejected.prompt
    reader = Reader(tmp_path)
    assert [reader.tokenizer.decode(answer.ids) for answer in (chosen, rejected)] == ["good day<|end|>", "sure<|end|>"]


def test_a_prompt_has_no_targets(tmp_path: Path) -> None:
    assert Reader(tmp_path).read_all({"prompt": [USER], "reference": {}}, "prompt") == [
        ("<|user|>hello<|end|>\n<|assistant|>", "")
    ]


def test_a_text_is_split_into_pieces_and_ends_once(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    assert reader.read_all({"text": "abcdefgh"}, "text") == [("abcdefgh<|end|>",) * 2]
    pieces = reader.read_all({"text": "abcdefgh"}, "text", max_piece=4)
    assert ("".join(text for text, _ in pieces), len(pieces)) == ("abcdefgh<|end|>", 3)
    assert all(text == learned for text, learned in pieces)


def test_labels_are_the_ids_of_targets(tmp_path: Path) -> None:
    (sequence,) = Reader(tmp_path).encode({"messages": [USER, ANSWER]}).sequences["messages"]
    count = int(sequence.is_target.sum())
    assert sequence.labels.tolist() == [IGNORED_LABEL] * (len(sequence.ids) - count) + sequence.ids[-count:]


def test_a_tokenizer_that_puts_a_space_before_a_text_does_not_put_it_before_an_answer(tmp_path: Path) -> None:
    from tokenizers import pre_tokenizers

    reader = Reader(tmp_path)
    # Like Llama 2's: the first text of an input gets a space, a text after a control token does not.
    space, letters = pre_tokenizers.Metaspace(" ", "first"), pre_tokenizers.ByteLevel(add_prefix_space=False)
    reader.tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([space, letters])
    assert reader.tokenizer.decode(reader.tokenizer("good day")["input_ids"]) == " good day"
    reader.encoder = ChatEncoder(reader.tokenizer, {reader.tokenizer.eos_token_id})
    (answer,) = reader.encode({"messages": [USER, ANSWER]}).answers["messages"]
    assert reader.tokenizer.decode(answer.ids) == "good day<|end|>"
