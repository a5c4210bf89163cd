"""What crosses a process boundary: jobs, events, responses, errors, the broker, the checkpoint manifest.

Imports nothing heavier than msgspec (and, for mazes, Pillow), so the gateway image carries no torch.
"""
