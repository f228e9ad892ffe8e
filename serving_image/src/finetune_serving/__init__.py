"""The serving image: a gateway inside vLLM's server, and the evaluation of a trained model with vLLM."""
