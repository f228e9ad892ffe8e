"""How every stage loads models and adapters with transformers and PEFT."""

from pathlib import Path
from typing import Any

from finetune_pod.architectures import WITH_IMAGES


def import_peft() -> Any:
    """Return PEFT, which then adapts the layers of a mixture that a configuration names, and no others.

    PEFT takes `gate_proj`, `up_proj` and `down_proj` for the experts of a mixture, as which transformers 4 had them,
    also where a configuration names dense layers or shared experts: those would get no adapter.
    """
    import peft
    from peft.utils import transformers_weight_conversion

    transformers_weight_conversion._MOE_TARGET_MODULE_MAPPING.clear()  # noqa: SLF001 - PEFT has no setting for it
    return peft


def choose_model_class(config: Any) -> Any:
    """Return the class of transformers that loads a language model, with the names of layers that vLLM knows.

    Models that read images too are loaded whole: in a class without that part, their layers have other names.
    """
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    return AutoModelForImageTextToText if set(config.architectures or ()) & WITH_IMAGES else AutoModelForCausalLM


def load_language_model(directory: Path, **options: Any) -> Any:
    """Load a language model with its weights.

    Args:
        directory: of the model.
        options: for `from_pretrained`.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
    options |= {"use_safetensors": True, "trust_remote_code": False}
    return choose_model_class(config).from_pretrained(directory, **options)
