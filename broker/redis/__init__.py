"""The broker on Redis: gateways and runners in any number of processes, on any number of machines."""
