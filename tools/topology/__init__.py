"""``deploy/compose.yml`` without a container engine: ``make topology``.

Reads the file as docker-compose resolves it and starts what it says: the same commands, environment, users, health
checks, networks, name resolution, volumes, tmpfs, capabilities and read-only root file systems, in namespaces of Linux.
What is not the same is said in docs/deploy.md: without ``--images`` the root is this machine's, with the programs that
are installed here, and limits of processor and memory are not set.
"""
