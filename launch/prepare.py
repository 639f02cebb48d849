"""Fetches and prepares data.

python launch/prepare.py --data_dir data                     the Tux Paint stamps (161 MB)
python launch/prepare.py --data_dir data --source DIR        stamps that are here already
python launch/prepare.py --data_dir data --manifest my.jsonl --name my_data
"""

import argparse
import sys

import rich

from taichu_jax.data import builder
from taichu_jax.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", required=True, help="where data live")
    parser.add_argument("--source", help="a stamp collection that is here already")
    parser.add_argument("--manifest", help="JSON lines; see taichu_jax/data/manifest.py")
    parser.add_argument("--name", help="the name of the manifest's data set")
    args = parser.parse_args(arguments)
    try:
        if (args.manifest is None) != (args.name is None):
            raise UserError("--manifest and --name go together")
        if args.manifest and args.source:
            raise UserError("--manifest and --source exclude each other")
        if args.manifest:
            status = builder.prepare_manifest(args.data_dir, args.name, args.manifest)
        else:
            status = builder.prepare_stamps(args.data_dir, args.source)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    rich.print(builder.summary(status))
    return 0


if __name__ == "__main__":
    sys.exit(main())
