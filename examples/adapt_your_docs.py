"""Adapt a retriever to a folder without labels: python examples/adapt_your_docs.py [folder]."""

import argparse
import email
from pathlib import Path

from revela_training import adapt

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", nargs="?", default=Path(email.__file__).parent, help="default: Python's email package")
parser.add_argument("--output", default="adapted-model", help="directory of the new model (default: adapted-model)")
parser.add_argument("--max-steps", type=int, default=20, help="a taste; leave it to the library for real work")
arguments = parser.parse_args()

result = adapt(arguments.folder, output=arguments.output, max_steps=arguments.max_steps)

print(result.summary)
print(f"Index with it: revela index {arguments.folder} --model {arguments.output} --output my-index")
