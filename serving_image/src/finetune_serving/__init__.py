"""The serving image: a vLLM endpoint plugin, and the evaluation through vLLM."""
