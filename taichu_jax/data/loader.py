"""Feeds a training loop: the next batch of every stream, made ahead in the background."""

import os
import signal
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from taichu_jax.data.damage import Watch
from taichu_jax.data.parts import Batch
from taichu_jax.data.streams import Stream
from taichu_jax.data.tokenizer import Tokenizer


class Loader:
    """Iterates {stream: batch} of numpy arrays, from `start_step` on, without end.

    A row of a batch depends on (seed, the stream's name, step, its place in the global batch) only:
    not on the other streams, the number of processes, threads or workers, nor on where the run was
    resumed.

    Args:
      streams: the streams by name.
      data_dir: where prepared data live.
      tokenizer: for streams with text; None: bytes.
      seed: of the run.
      start_step: the first step to make; `state()['next_step']` of the run to be resumed.
      rows: of a global batch of the given size, those that this process makes, in ascending order;
        None: all.
      threads: that make batches ahead, for each stream.
      ahead: batches kept ready, for each stream.
      workers: processes that do so instead of threads; each decodes and caches its own copy, and
        the caller needs the usual `if __name__ == "__main__":`. 0: threads.
      damaged_share: of the examples of a stream, which may be damaged; see `damage.Watch`, whose
        UserError iterating raises.
    """

    def __init__(
        self,
        streams: Mapping[str, Stream],
        data_dir: str | Path,
        tokenizer: Tokenizer | None,
        *,
        seed: int,
        start_step: int = 0,
        rows: Callable[[int], Sequence[int]] | None = None,
        threads: int = 1,
        ahead: int = 2,
        workers: int = 0,
        damaged_share: float = 1.0,
    ):
        import grain

        self._next_step = start_step
        self._iterators = {}
        # Streams of another kind read no prepared data, and have nothing to tell.
        self._watches = {
            name: Watch(name, damaged_share)
            for name, stream in streams.items()
            if isinstance(stream, Stream)
        }
        reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
        for name, stream in streams.items():
            batches = stream.batches(
                data_dir,
                tokenizer,
                seed=stream_seed(seed, name),
                rows=rows and rows(stream.batch_size),
                **({"harms": True} if name in self._watches else {}),
            )
            ahead_of_time = batches[start_step:].to_iter_dataset(reading)
            if workers:
                _parse_flags()
                # Grain leaves its shared memory to Python's tracker, which frees it and complains.
                quiet = "ignore::UserWarning:multiprocessing.resource_tracker"
                os.environ.setdefault("PYTHONWARNINGS", quiet)
                options = grain.MultiprocessingOptions(num_workers=workers)
                ahead_of_time = ahead_of_time.mp_prefetch(options, worker_init_fn=_start_worker)
            self._iterators[name] = iter(ahead_of_time)

    def __iter__(self) -> "Loader":
        return self

    def __next__(self) -> dict[str, Batch]:
        batch = {name: next(iterator) for name, iterator in self._iterators.items()}
        for name, watch in self._watches.items():
            harms, batch[name] = batch[name]["harms"], batch[name]["batch"]
            watch.add(len(next(iter(batch[name].values()))), harms)
        self._next_step += 1
        return batch

    def state(self) -> dict[str, int]:
        """All a checkpoint has to remember."""
        return {"next_step": self._next_step}

    def close(self) -> None:
        """Ends the threads and workers. The loader cannot be used afterwards."""
        for iterator in self._iterators.values():
            iterator.close()
        self._iterators = {}

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def stream_seed(seed: int, name: str) -> int:
    """The seed of a stream: it depends on the run's seed and the stream's name alone."""
    return zlib.crc32(f"{seed} {name}".encode())


def _start_worker(index: int, count: int) -> None:
    """Ctrl-C reaches every process of a terminal, and Slurm signals every process of a task; only the
    training process decides what to do, and ends its workers by SIGKILL."""
    del index, count
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _parse_flags() -> None:
    # Grain 0.2.18 reads an absl flag in mp_prefetch, which fails outside absl.app.run.
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
