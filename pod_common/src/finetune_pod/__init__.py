"""What the pods of trainer and server share. The operator does not import it."""
