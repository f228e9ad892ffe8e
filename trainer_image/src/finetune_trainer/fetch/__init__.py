"""Models and data from mounted volumes, the hub, https and object stores."""
