"""Feeds a training loop: the next batch of every stream, made ahead in the background."""

import os
import signal
import zlib
from collections.abc import Mapping
from pathlib import Path

from taichu_jax.data.parts import Batch
from taichu_jax.data.streams import Stream
from taichu_jax.data.tokenizer import Tokenizer


class Loader:
    """Iterates {stream: batch} of numpy arrays, from `start_step` on, without end.

    A stream's randomness depends on (seed, its name, step) only: not on the other streams, the
    number of processes, threads or workers, nor on where the run was resumed.

    Args:
      streams: the streams by name.
      data_dir: where prepared data live.
      tokenizer: for streams with text; None: bytes.
      seed: of the run.
      start_step: the first step to make; `state()['next_step']` of the run to be resumed.
      process_index: of `process_count`, each of which makes its share of every batch's rows.
      threads: that make batches ahead, for each stream.
      ahead: batches kept ready, for each stream.
      workers: processes that do so instead of threads; each decodes and caches its own copy, and
        the caller needs the usual `if __name__ == "__main__":`. 0: threads.
    """

    def __init__(
        self,
        streams: Mapping[str, Stream],
        data_dir: str | Path,
        tokenizer: Tokenizer | None,
        *,
        seed: int,
        start_step: int = 0,
        process_index: int = 0,
        process_count: int = 1,
        threads: int = 1,
        ahead: int = 2,
        workers: int = 0,
    ):
        import grain

        self._next_step = start_step
        self._iterators = {}
        reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
        for name, stream in streams.items():
            batches = stream.batches(
                data_dir,
                tokenizer,
                seed=stream_seed(seed, name),
                process_index=process_index,
                process_count=process_count,
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
    """Ctrl-C reaches every process of a terminal; only the training process decides what to do."""
    del index, count
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _parse_flags() -> None:
    # Grain 0.2.18 reads an absl flag in mp_prefetch, which fails outside absl.app.run.
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
