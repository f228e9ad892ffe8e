"""Measures whether an architecture keeps packed examples apart, on a tiny model of it with random weights.

Packing puts several examples into one row and tells them apart by their positions. Attention can be masked by these;
convolutions and recurrences are often not, and then an example is learned with the ones before it as its context.
"""

from pathlib import Path

from finetune_trainer.prepare.tiny_model import VOCABULARY, shrink

_LENGTH = 12
"""Tokens of each of the two examples."""
_TOLERANCE = 2e-6
"""In float32; mixtures of experts that keep examples apart differ by 3e-7, because they sum in another order."""


def measure_leak(directory: Path) -> float | None:
    """Return by how much the logits of a packed example change with the example before it; 0 if they do not.

    Args:
        directory: the directory of the model, of which only the configuration is read.

    Returns:
        The largest difference of a logit; None if a tiny model of this architecture cannot be built.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = shrink(AutoConfig.from_pretrained(directory, trust_remote_code=False)).get_text_config()
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(config).float().eval()
            first, other, second = torch.randint(3, VOCABULARY, (3, _LENGTH))
            positions = torch.arange(_LENGTH).repeat(2)[None]
            logits = [
                model(input_ids=torch.cat([before, second])[None], position_ids=positions, use_cache=False).logits
                for before in (first, other)
            ]
    except Exception:  # noqa: BLE001 - architectures fail in any way with sizes that they do not expect
        return None
    leak = float((logits[0] - logits[1])[0, _LENGTH:].abs().max())
    return leak if leak > _TOLERANCE else 0.0
