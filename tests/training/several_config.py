"""The smallest run on eight devices, which starts from another run's network."""

from tests.training import tiny


def get_config(run):
    config = tiny.get_config()
    config.restore.mixer = run
    config.mesh.fsdp = 2
    config.log_every = 1
    return config
