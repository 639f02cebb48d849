"""Writes discrete units for every recording of a stream's data set: the targets of HuBERT and WavLM.

python launch/cluster.py --config configs/speech/hubert_stamps.py --features mfcc_cmvn
python launch/cluster.py --config configs/speech/hubert_iteration2_stamps.py \\
    --run runs/hubert_stamps --layer 2

--config FILE          the config that will train on the units; its stream says which recordings
--config.KEY=VALUE     changes one value, for example --config.data.dir=DIR
--stream NAME          which of its streams, if it has several of recordings
--features mfcc        clusters 39 MFCC numbers, 100 times a second (HuBERT's first iteration);
                       mfcc_cmvn: each with mean 0 and variance 1 over its recording
--run DIR --layer N    clusters the states behind block N of a run's speech encoder (its second)
--encoder NAME         which network of that run; 'speech' by default
--clusters N           number of units; the stream's unit_clusters by default
--to DIR               where they go; the stream's `units` by default
--passes N             of mini-batch k-means over all recordings; 5 by default
--chunk N              recordings in memory at a time; 256 by default
--seed N               of the first centres and of all orders; 0 by default

Killed or stopped, the same command goes on; done before, it only says so. Centres are fitted to the
stream's split, and all splits get units. The folder's work/ holds the features meanwhile: 56 MB for an
hour of MFCCs.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from taichu_jax import cli

FEATURES = ("mfcc", "mfcc_cmvn")
FLAGS = {
    "stream": "",
    "features": "",
    "run": "",
    "layer": "",
    "encoder": "speech",
    "clusters": "",
    "to": "",
    "passes": "5",
    "chunk": "256",
    "seed": "0",
}


def run(arguments: list[str]) -> None:
    """Parses the arguments, clusters, and prints what was written."""
    from taichu_jax.config import build, choices, parse_arguments
    from taichu_jax.errors import UserError

    config, flags = parse_arguments(arguments, FLAGS)
    if bool(flags["features"]) == bool(flags["run"]):
        raise UserError(
            f"either --features {' or '.join(FEATURES)}, or --run DIR with --layer N, is needed"
        )
    if flags["features"] not in ("", *FEATURES):
        raise UserError(f"--features {flags['features']}: {choices(flags['features'], FEATURES)}")
    if bool(flags["run"]) != bool(flags["layer"]):
        raise UserError("--run DIR and --layer N go together")
    layer, passes, chunk, seed = (
        number(name, flags[name] or "0") for name in ("layer", "passes", "chunk", "seed")
    )

    from taichu_jax.evals.clustering import Plan, cluster
    from taichu_jax.evals.countdown import Countdown
    from taichu_jax.evals.unit_features import MFCC, HiddenStates, the_recordings
    from taichu_jax.training import runtime
    from taichu_jax.training.datasets import prepare_data

    stream = the_recordings(build(config.streams, "config.streams"), flags["stream"], "--config")
    folder = flags["to"] or stream.units
    if not folder:
        raise UserError("--to DIR is needed: the stream of this config names no folder of units")
    clusters = number("clusters", flags["clusters"] or str(stream.unit_clusters))
    plan = Plan(clusters=clusters, passes=passes, chunk=chunk, seed=seed)
    runtime.start()
    features = (
        MFCC(normalised=flags["features"] == "mfcc_cmvn")
        if flags["features"]
        else HiddenStates(flags["run"], flags["encoder"], layer, flags["stream"])
    )
    expected = {"unit_rate": stream.unit_rate, "unit_clusters": stream.unit_clusters}
    written = {"unit_rate": features.rate, "unit_clusters": clusters}
    if folder == stream.units and expected != written:
        raise UserError(
            f"{folder}: would get {written['unit_clusters']} clusters, {written['unit_rate']:g} a "
            f"second, but the config's stream has unit_clusters={stream.unit_clusters}, "
            f"unit_rate={stream.unit_rate:g}"
        )
    prepare_data({"recordings": stream}, config.data)
    with Countdown() as countdown:
        facts = cluster(
            pathlib.Path(folder), stream, config.data.dir, features, plan, countdown.say
        )
    print(
        f"units: {folder}, {facts['frames']:,} of {facts['clusters']} kinds, "
        f"{facts['rate']:g} a second"
    )


def number(name: str, text: str) -> int:
    """A flag that is a whole number."""
    from taichu_jax.errors import UserError

    if not text.isdigit():
        raise UserError(f"--{name} {text}: must be a whole number")
    return int(text)


if __name__ == "__main__":
    cli.main(run, __doc__)
