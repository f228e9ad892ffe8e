"""The packages of a training, which `forked.py` imports once for all runs."""

import finetune_trainer.prepare.stage
import finetune_trainer.train.callback
import finetune_trainer.train.launch
import finetune_trainer.train.training
import peft
import transformers.integrations
import trl.trainer
from datasets import Dataset
from peft import get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl import DPOTrainer, KTOTrainer, RewardTrainer, SFTTrainer

__all__ = [
    "AutoModelForCausalLM",
    "AutoModelForSequenceClassification",
    "AutoTokenizer",
    "DPOTrainer",
    "Dataset",
    "KTOTrainer",
    "RewardTrainer",
    "SFTTrainer",
    "finetune_trainer",
    "get_peft_model",
    "peft",
    "transformers",
    "trl",
]
