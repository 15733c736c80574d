"""What a job is: commands that are missing a result, jobs that must be done before, and what is kept afterwards."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_eccam.benchmark.attempts import Attempt, Attempts
from nnunetv2_eccam.benchmark.places import Place
from nnunetv2_eccam.demo.progress import Progress
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json, write_json

Command = tuple[str, ...]
"""A command's name and arguments, as a user would type them."""


@dataclass(frozen=True)
class Resources:
    """What a job may use.

    Args:
        device: ``cpu``, ``cuda`` or ``mps``.
        gpus: how many.
        cpus: how many cores.
        shared: whether its GPU may be another job's at the same time.
    """

    device: str = "cpu"
    gpus: int = 0
    cpus: int = 1
    shared: bool = False


@dataclass(frozen=True)
class Job(ABC):
    """A job: it can be pickled, and everything else about it is on the disk.

    Args:
        place: the system, data set and repeat.
        part: ``fold_0`` or ``test``.
        resources: what it may use.
    """

    place: Place
    part: str
    resources: Resources

    kind = ""
    """In words: train, predict, score."""

    @property
    def name(self) -> str:
        """A name that is its own, and a folder's."""
        return self.place.job_name(self.kind, self.part)

    @property
    def title(self) -> str:
        """What a reader needs to tell it from the others."""
        repeat = f" repeat {self.place.repeat}" if self.place.repeat else ""
        part = self.part.replace("_", " ")
        return f"{self.kind} {self.place.dataset} {self.place.configuration} {self.place.trainer} {part}{repeat}"

    @property
    def folder(self) -> Path:
        """Its folder in the work folder."""
        return self.place.folders.job(self.name)

    @property
    def log(self) -> Path:
        """Everything that its commands print."""
        return self.folder / "log.txt"

    @property
    def attempts(self) -> Attempts:
        """The attempts at it."""
        return Attempts(self.folder)

    @property
    def needs(self) -> tuple[str, ...]:
        """The names of the jobs that must be done before."""
        return ()

    @property
    def uses_gpu(self) -> bool:
        """Whether its commands run a network."""
        return self.kind != "score"

    @abstractmethod
    def missing(self) -> str | None:
        """Say what it still has to make, or None if it is done."""

    @abstractmethod
    def commands(self) -> Sequence[Command]:
        """Give the commands that make what is missing, in order."""

    def settings(self) -> Mapping[str, str]:
        """Give the environment variables that are set for its commands alone."""
        return settings_of(self)

    def prepare(self) -> None:  # noqa: B027
        """Make the folders that its commands need, and remove what they must not find."""

    def kept(self) -> Iterable[Path]:
        """Give the files from which a further attempt would go on."""
        return ()

    def may_go_on(self, began: Attempt) -> bool:
        """Say whether an attempt that was stopped has brought it further, so that another may finish it."""
        since = float(began.content.get("began_at", 0))
        return any(file.is_file() and file.stat().st_mtime > since for file in self.kept())

    def log_of(self, attempt: Attempt | None) -> Path:
        """Give the log of an attempt, which may be another benchmark's, or of a machine that names it otherwise."""
        named = Path(str(attempt.content.get("log"))) if attempt else self.log
        return named if named.is_file() else self.log

    def progress(self) -> Progress:
        """Give what makes sense of its commands' output."""
        return Progress()

    @abstractmethod
    def finish(self, record: Mapping[str, Any]) -> None:
        """Put results and record where they belong, after its commands have succeeded.

        Args:
            record: when, where and with what the commands ran.
        """

    def inputs(self) -> dict[str, Any]:
        """Give what its result depends on beside the commands before: a change makes it be done again."""
        return {}

    def note(self, name: str, inputs: Mapping[str, Any]) -> None:
        """Note inputs in its folder, as ``begun`` or ``done`` with."""
        write_json(self.folder / f"{name}.json", inputs)

    def is_noted(self, name: str) -> bool:
        """Say whether the inputs of now are those that were noted."""
        file = self.folder / f"{name}.json"
        try:
            return file.is_file() and bool(read_json(file) == self.inputs())
        except UserError:  # half a file, of a machine that went down
            return False


def stamp(file: Path) -> list[int] | None:
    """Tell a file's state apart from its earlier and later ones: bytes, and nanoseconds of its last change."""
    try:
        found = file.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def settings_of(job: Job) -> dict[str, str]:
    """Set how many cores a job's commands use, and where they find and put things."""
    settings = {}
    if job.place.repeat:
        settings["nnUNet_results"] = str(job.place.results)
    if job.resources.device == "cpu" or not job.uses_gpu:
        # On a CPU, nnU-Net sets the threads to the number of cores that Python gives it, whatever OMP_NUM_THREADS says;
        # that number has a variable too, which nnU-Net's programs follow before Python 3.13 by our look-up. Never
        # OMP_THREAD_LIMIT: oneDNN waits for ever for the threads that it then does not get.
        threads = str(job.resources.cpus)
        settings |= {"OMP_NUM_THREADS": threads, "PYTHON_CPU_COUNT": threads}
    return settings
