"""What is known of one architecture of another library."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ml_collections import ConfigDict

from taichu_jax.interop.rules import Table
from taichu_jax.interop.settings import Settings
from taichu_jax.objectives.base import Nets

Specs = Mapping[str, ConfigDict]


class Architecture:
    """One model_type of a config.json.

    A converted run has the networks of the file, and objectives that can train them on; networks
    that an objective needs and the file lacks are initialised anew.
    """

    model_type = ""

    def networks(
        self, settings: Settings, parts: Collection[str], processor: Mapping[str, Any]
    ) -> dict[str, ConfigDict]:
        """Specs of the networks of which the file has weights.

        Args:
          parts: of the table, those that are there.
          processor: the preprocessor_config.json, or nothing.

        Raises:
          UserError: a setting that is not supported.
        """
        raise NotImplementedError

    def table(self, settings: Settings) -> Table:
        """Names and shapes."""
        raise NotImplementedError

    def touch(self, nets: Nets, networks: Specs) -> None:
        """Calls every method of the networks that has parameters, once."""
        raise NotImplementedError

    def training(self, settings: Settings, networks: Specs) -> tuple[Specs, Specs, Specs]:
        """(streams, objectives, networks that these need beside)."""
        raise NotImplementedError

    def still(self, networks: Specs) -> tuple[str, ...]:
        """The networks that training leaves as they are; none by default."""
        del networks
        return ()

    def evaluations(self, streams: Specs) -> Specs:
        """What `launch/evaluate.py` asks of the run; nothing by default."""
        del streams
        return {}

    def settings(self, networks: Specs, parts: Collection[str]) -> dict[str, Any]:
        """A config.json for networks that were never in a file.

        `networks` of it must be these networks again; if not, they have no place there.

        Raises:
          KeyError: a network that is needed is not there.
        """
        raise NotImplementedError

    def processor(self, networks: Specs) -> dict[str, Any]:
        """Their preprocessor_config.json; empty for none."""
        del networks
        return {}
