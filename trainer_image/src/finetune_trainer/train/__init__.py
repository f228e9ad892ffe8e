"""The train stage: trains an adapter or a model on the prepared examples."""
