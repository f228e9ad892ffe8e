"""Creates a small base model that sounds like a help desk: `python make_base_model.py DIRECTORY`.

Takes about four minutes on two cores. The model is pretrained on conversations of random shops: every shop has its own
name, days, prices and addresses, so that the model learns how to talk about them but knows no shop; fine-tuning adds
that. The loss covers only the answers: a small model learns to copy from the question far later if most of its targets
are unpredictable.
"""

import hashlib
import itertools
import json
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VOCABULARY = 8_000
"""Number of conversations that the tokenizer is trained on."""
BATCH = 16
RATE = 1e-3
WARM_UP, DECAY, MAX_STEPS = 100, 300, 6_000
"""Steps of the warm-up, of the decay at the end, and in total at most."""
TARGET_LOSS = 0.17
"""Mean loss of a model that copies names, items and order numbers; the rest is facts that it cannot know."""

CHAT_TEMPLATE = (
    "{%- if tools %}<|tools|>{% for tool in tools %}{{ tool.function.name }} {% endfor %}<|end|>{% endif -%}"
    "{%- for message in messages -%}"
    "<|{{ message.role }}|>{{ message.content or '' }}"
    "{%- for call in message.tool_calls or [] %}<tool_call>"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}'
    "</tool_call>{% endfor -%}"
    "<|end|>"
    "{%- endfor -%}"
    "{%- if add_generation_prompt %}<|assistant|>{% endif -%}"
)
"""Tool calls are written as Hermes and Qwen write them, so that vLLM has a parser for them."""
SPECIAL = [
    "<|pad|>", "<|end|>", "<|tools|>", "<tool_call>", "</tool_call>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>",
]  # fmt: skip

# A shop's name combines two of these, so that the model learns to copy any name. It is never "Northlight", the shop of
# the fine-tuning.
FIRST = (
    "North", "South", "East", "West", "River", "Moon", "Sun", "Star", "Green", "Silver", "Stone", "Wood", "Sea", "Wind",
    "Fire", "Snow", "Summer", "Winter", "Bright", "Clear", "Blue", "Red", "High", "Low", "Old", "New", "Oak", "Elm",
)  # fmt: skip
SECOND = (
    "light", "field", "side", "gate", "house", "land", "wood", "bridge", "water", "hill", "dale", "ford", "point",
    "shore", "stone", "craft", "ware", "mark", "port", "view", "brook", "ridge", "works", "store", "line", "way",
)  # fmt: skip
TARGET = "Northlight"
ITEMS = (
    "lamp", "tent", "kettle", "backpack", "blanket", "stove", "mug", "jacket", "lantern", "chair", "table", "rug",
    "clock", "knife", "pan", "boots", "scarf", "bottle", "bike", "radio", "desk", "pillow", "cup", "shirt",
    "sofa", "oven", "phone", "camera", "watch", "ladder", "hammer", "mirror", "vase", "basket", "towel", "helmet",
    "gloves", "wallet", "belt", "hat", "guitar", "puzzle", "candle", "shelf", "carpet", "speaker", "torch", "bowl",
)  # fmt: skip
NUMBERS = ("two", "three", "four", "five", "six", "seven", "ten")
DAYS = (7, 14, 20, 28, 30, 45, 60, 90)
TOOLS = ("order_status", "find_order", "track_order", "get_order")
GREETINGS = ("", "", "", "Hello, ", "Hi, ", "Good morning, ")

QUESTIONS = {
    "return": (
        "how do I return my {item}?", "can I send the {item} back?", "I want to return the {item}.",
        "the {item} is not for me, what can I do?", "I changed my mind about the {item}, send it back?",
    ),
    "delivery": (
        "when will my {item} arrive?", "where is my {item}?", "how long does delivery of the {item} take?",
        "I ordered a {item}, when does it come?",
    ),
    "warranty": (
        "does the {item} have a warranty?", "my {item} is broken, what now?", "is there a warranty on the {item}?",
        "the {item} does not work any more.",
    ),
    "price": (
        "how much is shipping for the {item}?", "what does delivery of a {item} cost?",
        "is shipping of the {item} free?", "do I pay for shipping of the {item}?",
    ),
    "hours": (
        "when can I call you about my {item}?", "what are your opening hours? It is about the {item}.",
        "how can I reach you about my {item}?", "can I phone you about the {item}?",
    ),
    "order": ("where is order {order}?", "what is the status of order {order}?", "has order {order} left yet?"),
}  # fmt: skip
# By topic: pairs of the state that a tool would return ("" without a tool) and the answer.
ANSWERS = {
    "return": (
        ("", "You can return the {item} within {days} days, free of charge. Print the label at {shop}.example/returns."),
        ("", "Send the {item} back within {days} days. Start at {shop}.example/returns."),
        ("", "Returns are for {price} euros within {days} days. The label for your {item} is at {shop}.example/returns."),
    ),
    "delivery": (
        ("", "We ship every weekday at noon. Your {item} arrives in {number} days, and tracking is at {shop}.example/track."),
        ("", "Your {item} is with you in {number} days. Look at {shop}.example/track."),
    ),
    "warranty": (
        ("", "Every {item} from {Shop} has a {number} year warranty. Send a photo to care@{shop}.example and we replace it."),
        ("", "The {item} has a {number} year warranty. Please write to care@{shop}.example."),
    ),
    "price": (
        ("", "Shipping of the {item} costs {price} euros, and it is free for orders above {limit} euros."),
        ("", "We ship the {item} for {price} euros."),
    ),
    "hours": (
        ("", "Call us about the {item} at 555-01{phone} from Monday to Friday, 8 to {hour}."),
        ("", "Call us about the {item} at 555-01{phone} from Monday to Friday, 9 to {hour}. On Saturday write to care@{shop}.example."),
    ),
    "order": (
        ("packed", "Order {order} is packed and leaves us at noon."),
        ("shipped", "Order {order} is on its way. Tracking is at {shop}.example/track."),
        ("delivered", "Order {order} was delivered. If it is not there, call us at 555-01{phone}."),
    ),
}  # fmt: skip


def build_conversation(random_: random.Random) -> dict[str, Any]:
    """Return one conversation of a random shop: its messages, and its tools if it uses one."""
    topic = random_.choice(list(QUESTIONS))
    shop = TARGET
    while shop == TARGET:
        shop = random_.choice(FIRST) + random_.choice(SECOND)
    facts: dict[str, Any] = {
        "Shop": shop,
        "shop": shop.lower(),
        "item": random_.choice(ITEMS),
        "order": f"{random_.choice('ABCDEFGHN')}{random_.randrange(1000, 10000)}",
        "days": random_.choice(DAYS),
        "number": random_.choice(NUMBERS),
        "price": random_.randrange(2, 10),
        "limit": random_.choice((20, 30, 40, 50, 75, 100)),
        "phone": random_.randrange(10, 100),
        "hour": random_.randrange(15, 21),
    }
    question = random_.choice(GREETINGS) + random_.choice(QUESTIONS[topic]).format(**facts)
    state, answer = random_.choice(ANSWERS[topic])
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": f"You are the support assistant of {shop}."},
        {"role": "user", "content": question[0].upper() + question[1:]},
    ]
    tools = []
    if state and random_.random() < 0.5:
        function = {"name": random_.choice(TOOLS), "arguments": {"order": facts["order"]}}
        tools = [{"function": {"name": function["name"]}}]
        messages += [
            {"role": "assistant", "tool_calls": [{"function": function}]},
            {"role": "tool", "content": json.dumps({"state": state})},
        ]
    messages.append({"role": "assistant", "content": answer.format(**facts)})
    return {"messages": messages, "tools": tools}


def build_tokenizer(texts: list[str]) -> Any:
    """Return a byte-level BPE tokenizer of 1,024 tokens with the chat template.

    Each digit is a token of its own, so that the model can copy numbers.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>", chat_template=CHAT_TEMPLATE
    )


def build_model(tokenizer: Any) -> Any:
    """Return a Llama of 3.6 million parameters; vLLM's attention on CPUs supports its head size of 64."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=256,
            intermediate_size=704,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            # The usual 0.02 suits wider models: with it, this model takes three times as long to learn to copy.
            initializer_range=0.06,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def pretrain(model: Any, rows: Iterator[list[int]], padding: int, answer: int) -> None:
    """Train the model until it copies, which takes a different number of steps on each machine; then decay the rate.

    Args:
        model: the model, trained in place.
        rows: an endless iterator of tokenized conversations; each is one row of a batch.
        padding: the id of the padding token.
        answer: the id of the token that starts an answer; tokens before the first one are excluded from the loss.

    Raises:
        SystemExit: the model did not learn to copy within MAX_STEPS.
    """
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05, betas=(0.9, 0.98))
    mean, decay_steps = 1.0, None
    for step in range(1, MAX_STEPS + 1):
        batch = list(itertools.islice(rows, BATCH))
        length = max(map(len, batch))
        ids = torch.tensor([row + [padding] * (length - len(row)) for row in batch])
        is_text = ids != padding
        is_target = is_text & ((ids == answer).cumsum(1) > 0)
        loss = model(input_ids=ids, attention_mask=is_text.long(), labels=ids.where(is_target, -100)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(step / WARM_UP, 1.0 if decay_steps is None else decay_steps / DECAY)
        optimizer.step()
        mean += 0.04 * (loss.item() - mean)
        if step % 50 == 0:
            remaining = f"{decay_steps} steps left" if decay_steps else f"target {TARGET_LOSS}"
            print(f"step {step}, loss {mean:.3f}, {remaining}", flush=True)
        if decay_steps is not None:
            decay_steps -= 1
        elif mean < TARGET_LOSS:
            decay_steps = DECAY
        if decay_steps == 0:
            return
    raise SystemExit(f"the model did not learn to copy: its loss is {mean:.3f} after {MAX_STEPS} steps")


def main(directory: Path) -> None:
    """Create the model, unless this script has; the directory appears only when the model is complete."""
    script = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    made_by = directory / "made-by.json"
    if made_by.exists() and json.loads(made_by.read_text()) == {"sha256": script}:
        print(f"{directory} already exists")
        return
    import torch
    from jinja2 import Environment
    from transformers.utils import logging

    logging.disable_progress_bar()
    random_ = random.Random(7)
    torch.manual_seed(7)
    template = Environment(autoescape=False).from_string(CHAT_TEMPLATE)  # noqa: S701 - text for a model, not for a browser
    texts = (template.render(build_conversation(random_)) for _ in itertools.count())
    tokenizer = build_tokenizer(list(itertools.islice(texts, VOCABULARY)))
    model = build_model(tokenizer)
    print(f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters", flush=True)
    rows = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
    pretrain(model, rows, tokenizer.pad_token_id, tokenizer.convert_tokens_to_ids("<|assistant|>"))
    partial = directory.with_name(f"{directory.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    (partial / made_by.name).write_text(json.dumps({"sha256": script}))
    shutil.rmtree(directory, ignore_errors=True)
    partial.rename(directory)
    print(f"the base model is at {directory}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
