"""The control loop and its effects: watch, cache, snapshot, plan, apply, write status, record events."""
