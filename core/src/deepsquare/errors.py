"""The exceptions of DeepSquare, one tree under `DeepSquareError`.

- DeepSquareError
    - WorkflowError             (deepsquare.workflow) the workflow file is not valid
    - ConfigError               a context, wallet or setting is missing or wrong
    - ConnectionFailedError     a service or the chain can't be reached, after retries
    - ApiError                  a service answered with an error
    - TransactionError          a transaction was not carried out
        - ContractError         (deepsquare.chain.errors) the contract refused; one class for each of its errors
    - JobFailedError            a job ended in another status than FINISHED
    - GridError                 (operators) a service of the grid can't start or go on
        - SchedulerError        Slurm, or the local scheduler, refused or failed
"""

from __future__ import annotations


class DeepSquareError(Exception):
    """Base of every error that this package raises on purpose; the text says what happened and what to do next."""


class ConfigError(DeepSquareError):
    """A context, wallet or setting is missing or wrong."""


class ConnectionFailedError(DeepSquareError):
    """A service or the chain can't be reached, also after the retries."""


class ApiError(DeepSquareError):
    """A service of the grid answered with an error."""


class TransactionError(DeepSquareError):
    """A transaction was not carried out."""


class JobFailedError(DeepSquareError):
    """A job ended in another status than FINISHED."""


class GridError(DeepSquareError):
    """A service of the grid can't start or go on."""


class SchedulerError(GridError):
    """The batch scheduler refused a command or could not be reached."""
