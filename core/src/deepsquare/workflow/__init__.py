"""What a job is: DeepSquare's workflow file as models, its loading and its validation; and how it returns a result."""

from deepsquare.workflow.loading import from_dict, load, parse
from deepsquare.workflow.models import Resources, Step, Workflow
from deepsquare.workflow.problems import Problem, WorkflowError
from deepsquare.workflow.results import ResultError, ResultReader, new_tag, with_result
from deepsquare.workflow.run import Container, EnvVar, Run, StepResources

__all__ = [
    "Container",
    "EnvVar",
    "Problem",
    "Resources",
    "ResultError",
    "ResultReader",
    "Run",
    "Step",
    "StepResources",
    "Workflow",
    "WorkflowError",
    "from_dict",
    "load",
    "new_tag",
    "parse",
    "with_result",
]
