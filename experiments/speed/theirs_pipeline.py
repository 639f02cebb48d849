"""PyTorch's side of the input pipeline."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from experiments.speed.theirs import begin
from experiments.speed.workloads.base import SEED, STREAM
from experiments.speed.workloads.pipeline import Batches
from taichu_jax.data.batches import blank
from taichu_jax.data.loader import stream_seed


class Examples(Dataset):
    """Examples by (step, row, number), decoded and augmented as the stream does it."""

    def __init__(self, training):
        self._training = training

    def __getitem__(self, key):
        step, row, chosen = key
        filler, seed = self._training.filler, self._training.seed
        one = blank(1, filler.fields())
        if not filler.fill(one, 0, chosen, np.random.default_rng([seed, step, row])):
            raise RuntimeError(f"example {chosen} is damaged")
        return {name: torch.from_numpy(values)[0] for name, values in one.items()}


class Keys:
    """The batch sampler: our sampler's order, without end."""

    def __init__(self, training):
        self._training = training

    def __iter__(self):
        step = 0
        while True:
            order = self._training.sampler(step).batch(step)
            yield [(step, row, int(order[row])) for row in self._training.rows]
            step += 1


class TheirBatches(Batches):
    """torch.utils.data.DataLoader, without workers."""

    def __init__(self, workload, sizes, folder):
        begin("cpu")

        def make():
            stream, tokenizer = workload.stream(sizes, folder)
            filler = stream._filler(folder, tokenizer)
            seed = stream_seed(SEED, STREAM)
            training = stream.training(filler, seed, tuple(range(stream.batch_size)))
            return iter(DataLoader(Examples(training), batch_sampler=Keys(training)))

        super().__init__(sizes, make)

    def versions(self):
        return {"torch": torch.__version__}
