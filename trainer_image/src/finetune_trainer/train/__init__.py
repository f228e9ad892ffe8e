"""The train stage: from the prepared examples to an adapter or a model."""
