"""Fetches and prepares data.

python launch/prepare.py --data_dir data                     the Tux Paint stamps (161 MB)
python launch/prepare.py --data_dir data --source DIR        stamps that are here already
python launch/prepare.py --data_dir data --manifest my.jsonl --name my_data

--data_dir DIR    where data live
--source DIR      a stamp collection: its folder, or a root with usr/share/tuxpaint/stamps
--manifest FILE   your own pictures, words and voices as JSON lines (taichu_jax/data/manifest.py)
--name NAME       what to call the manifest's data set
--root DIR        the folder below which all its files must lie; the manifest's by default

Done before, and nothing has changed: only prints the table.
"""

import argparse
import pathlib
import sys
from typing import NoReturn

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from taichu_jax import cli
from taichu_jax.errors import UserError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def run(arguments: list[str]) -> None:
    """Parses the arguments, prepares, and prints what there is now."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    for name in ("data_dir", "source", "manifest", "name", "root"):
        parser.add_argument(f"--{name}", required=name == "data_dir")
    args = parser.parse_args(arguments)
    if (args.manifest is None) != (args.name is None):
        raise UserError("--manifest and --name go together")
    if args.manifest and args.source:
        raise UserError("--manifest and --source exclude each other")
    if args.root and not args.manifest:
        raise UserError("--root goes with --manifest")

    import rich

    from taichu_jax.data import builder

    if args.manifest:
        status = builder.prepare_manifest(args.data_dir, args.name, args.manifest, args.root)
    else:
        status = builder.prepare_stamps(args.data_dir, args.source)
    rich.print(builder.summary(status))


if __name__ == "__main__":
    cli.main(run, __doc__)
