"""Code that the trainer image and the serving image share. The operator does not import it."""
