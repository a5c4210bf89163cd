"""Makes vLLM believe in Triton where it only runs interpreted. On ``PYTHONPATH``, so that engine processes have it too.

vLLM asks for an active driver, of which the interpreter has none. What it finds is set right as soon as its module is
loaded, before anything reads it.
"""

import importlib.util
import sys

MODULE = "vllm.triton_utils.importing"


class _Finder:
    """Finds ``MODULE`` as everybody else does, and adds a line to its end."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != MODULE:
            return None
        sys.meta_path.remove(_Finder)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            module.HAS_TRITON = True

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _Finder)
