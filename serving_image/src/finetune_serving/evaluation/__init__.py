"""The evaluate stage: compares base, incumbent and tuned model on the same held-out examples."""
