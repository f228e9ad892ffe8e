"""The evaluate stage: base, incumbent and tuned model on the same held-out examples."""
