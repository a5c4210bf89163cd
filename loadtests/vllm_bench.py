"""``vllm bench serve`` by another door: ``python -m loadtests.vllm_bench ARGS``, unchanged otherwise.

The command ``vllm`` of the CPU build asks for its version under a name that it is not installed by, and ends.
"""

from vllm.benchmarks.serve import add_cli_args
from vllm.benchmarks.serve import main as serve
from vllm.utils.argparse_utils import FlexibleArgumentParser


def main() -> None:
    parser = FlexibleArgumentParser(prog="vllm bench serve")
    add_cli_args(parser)
    serve(parser.parse_args())


if __name__ == "__main__":
    main()
