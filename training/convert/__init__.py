"""A published checkpoint into the folder that is served: safetensors, one dtype, a manifest.

``convert`` in ``conversion`` walks through it: plan everything (``plan``, from ``source``, ``side_files`` and
``tokens``), refuse what is wrong before a byte is written, then write file by file (``writer``) into a folder beside
the target (``partial_folder``), read each back (``verify``), and rename the folder when all of it holds.
"""
