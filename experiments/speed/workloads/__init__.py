"""The workloads, by name, in the order of the table."""

from experiments.speed.workloads.base import Workload
from experiments.speed.workloads.decoding import DECODING
from experiments.speed.workloads.multimodal import MULTIMODAL
from experiments.speed.workloads.pipeline import PIPELINE
from experiments.speed.workloads.speech import SPEECH
from experiments.speed.workloads.text import TEXT
from experiments.speed.workloads.vision import VISION

ALL: tuple[Workload, ...] = (*TEXT, *VISION, *MULTIMODAL, *SPEECH, *DECODING, *PIPELINE)
WORKLOADS = {workload.name: workload for workload in ALL}
