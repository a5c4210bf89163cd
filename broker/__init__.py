"""Implementations of ``contracts.broker.Broker``. Imports ``contracts`` only."""
