"""The shipped sample, prepared once."""

import pytest

from taichu_jax.data import builder, fetch


@pytest.fixture(scope="session")
def sample_data_dir(tmp_path_factory):
    """A data folder with the sample as `tuxpaint_stamps`."""
    data_dir = tmp_path_factory.mktemp("data")
    builder.prepare_stamps(data_dir, source=fetch.SAMPLE)
    return data_dir
