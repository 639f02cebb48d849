"""What the configurations share that train on units written by launch/cluster.py.

Not a configuration itself.
"""


def with_units(config, folder, *, rate, clusters):
    """The config with the field `units` in its stream; the probe's own stream goes without."""
    voices = config.streams.voices.copy_and_resolve_references()
    voices.units, voices.unit_rate, voices.unit_clusters = folder, float(rate), clusters
    config.streams.voices = voices
    return config
