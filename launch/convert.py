"""Weights to and from the Hugging Face layout, config.json and safetensors, and s3prl's checkpoints.

python launch/convert.py --from hf:DIR --to runs/NAME             a run of a folder's model
python launch/convert.py --from hf:OWNER/NAME --to runs/NAME      of a model of the hub
python launch/convert.py --from runs/NAME --to hf:DIR             a folder that transformers reads
python launch/convert.py --from s3prl:FILE --to runs/NAME         of APC, VQ-APC, Mockingjay, TERA, ...
python launch/convert.py --from runs/NAME --to s3prl:FILE         a checkpoint that s3prl reads

--revision NAME      a branch, tag or commit of the hub
--skip PATTERN       leaves out tensors that no rule knows and whose names match (a head, for example)
--step N             the checkpoint of this step; the newest by default
--architecture NAME  bert, gpt2, ...; by default what the run was made of or what its networks are
--dtype NAME         float32, float16 or bfloat16; by default that of the folder it came from
--shard_gb N         the largest file, in gigabytes; 5 by default

The run can be evaluated, and others start from it: --config.restore.text=runs/NAME. Both ways
together give the same bits back. Pickles (.bin, .pt) are not read, but for s3prl's .ckpt, for which
PyTorch is needed: it reads them without running what may be in them (weights_only).
"""

import pathlib
import re
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from taichu_jax import cli

FLAGS = {
    "from": "",
    "to": "",
    "revision": "",
    "skip": "",
    "step": "",
    "architecture": "",
    "dtype": "",
    "shard_gb": "5",
}
HF, S3PRL = "hf:", "s3prl:"
FROM_HF, FROM_RUN = ("revision", "skip"), ("step", "architecture", "dtype", "shard_gb")


def run(arguments: list[str]) -> None:
    """Parses the arguments and converts."""
    from taichu_jax.errors import UserError

    flags = cli.parse(arguments, FLAGS)
    source, target = flags["from"], flags["to"]
    if not source or not target:
        raise UserError("--from and --to are needed: one a run's folder, the other hf:DIR")
    if source.startswith((HF, S3PRL)) == target.startswith((HF, S3PRL)):
        raise UserError(
            f"--from={source} --to={target}: one of them must begin with {HF} or {S3PRL}"
        )
    for name in FROM_RUN if source.startswith((HF, S3PRL)) else FROM_HF:
        if flags[name] != FLAGS[name]:
            raise UserError(f"--{name}: has no meaning with --from={source}")
    if flags["revision"] and source.startswith(S3PRL):
        raise UserError(f"--revision: has no meaning with --from={source}")
    if flags["step"] and not flags["step"].isdigit():
        raise UserError(f"--step={flags['step']}: must be a number")
    try:
        shard = float(flags["shard_gb"])
        re.compile(flags["skip"])
    except ValueError as error:
        raise UserError(f"--shard_gb={flags['shard_gb']}: must be a number") from error
    except re.error as error:
        raise UserError(f"--skip={flags['skip']}: is not a pattern: {error}") from error
    if not shard > 0:
        raise UserError(f"--shard_gb={flags['shard_gb']}: must be above 0")

    from taichu_jax.interop import convert, hub, s3prl
    from taichu_jax.training import runtime

    runtime.start_alone("launch/convert.py")
    if source.startswith(HF):
        name = source.removeprefix(HF)
        folder = hub.local_folder(name, flags["revision"] or None)
        called = re.sub(r"[^\w-]+", "_", name.rstrip("/").rpartition("/")[2])
        notes = convert.to_run(folder, target, flags["skip"], called)
    elif source.startswith(S3PRL):
        file = source.removeprefix(S3PRL)
        called = re.sub(r"[^\w-]+", "_", pathlib.Path(file).stem)
        with tempfile.TemporaryDirectory() as made:
            s3prl.to_folder(file, made)
            notes = convert.to_run(made, target, flags["skip"], called)
        notes = [note.replace(made, file) for note in notes]
    else:
        file = target.removeprefix(S3PRL) if target.startswith(S3PRL) else ""
        with tempfile.TemporaryDirectory() as made:
            notes = convert.to_folder(
                source,
                made if file else target.removeprefix(HF),
                step=int(flags["step"]) if flags["step"] else None,
                architecture=flags["architecture"],
                dtype=flags["dtype"],
                shard_bytes=round(shard * 10**9),
            )
            if file:
                s3prl.to_checkpoint(made, file)
    for note in notes:
        print(note)
    print(f"written: {target.removeprefix(HF).removeprefix(S3PRL)}")


if __name__ == "__main__":
    cli.main(run, __doc__)
