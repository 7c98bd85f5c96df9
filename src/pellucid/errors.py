"""Every error Pellucid raises on purpose, as a tree.

    PellucidError
    ├── UserError            the user's words or files are at fault: exit status 2, one clear message
    │   ├── ConfigError      a key, kind, value or combination in a config
    │   ├── TokenizerError   an unknown tokenizer, missing ranks, text it cannot encode
    │   ├── DataError        missing, empty, binary, corrupt or too short data
    │   ├── CheckpointError  a missing, truncated, altered or unfitting checkpoint
    │   ├── ResumeError      a run that cannot go on as asked
    │   ├── StorageError     a full disk, a directory that cannot be written
    │   ├── HubError         a hub out of reach, a repository that may not be read or written
    │   └── MissingLibraryError   something asked for needs an optional library
    ├── TrainingError        a run that started well and failed: exit status 1
    ├── GenerationError      a model that cannot say what comes next: exit status 1
    ├── ParityError          an exported or imported model is another one on the other side: exit status 1
    └── WorkerError          a process that worked for another one died: exit status 1

A message says where, what was wanted, what came, and what to do.
"""


class PellucidError(Exception):
    """The root: catch this to catch everything Pellucid raises on purpose."""

    exit_status = 1


class UserError(PellucidError):
    """Something the user said or gave cannot be used."""

    exit_status = 2


class ConfigError(UserError):
    """A config has an unknown key, a wrong kind, a value out of range or an impossible combination."""


class TokenizerError(UserError):
    """A tokenizer is unknown, lacks its ranks, or cannot encode this text."""


class DataError(UserError):
    """Data is missing, empty, binary, corrupt, or too short."""


class CheckpointError(UserError):
    """A checkpoint is missing, truncated, altered, or does not fit the model."""


class ResumeError(UserError):
    """A run cannot go on as asked: other data, another tokenizer, another model, or nothing to resume."""


class StorageError(UserError):
    """The disk is full or the directory cannot be written. Raised before anything is lost."""


class HubError(UserError):
    """A hub does not answer, or a repository of it is unknown or may not be read or written."""


class MissingLibraryError(UserError):
    """Something asked for needs a library of an optional extra; the message says which to install."""


class TrainingError(PellucidError):
    """A run failed after it had started, for example by a loss that is not finite."""


class GenerationError(PellucidError):
    """A model gave logits that are not numbers, so that no id can be chosen."""


class ParityError(PellucidError):
    """What was written or read is, on the other side, not the same model."""


class WorkerError(PellucidError):
    """A process that worked for another one ended before its work was done."""
