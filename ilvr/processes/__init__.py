"""The long-running processes, put together from the packages: ``ilvr serve``, ``ilvr gateway``, ``ilvr runner``."""
