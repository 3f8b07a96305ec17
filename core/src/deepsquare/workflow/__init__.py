"""What a job is: DeepSquare's workflow file as models, its loading and its validation."""

from deepsquare.workflow.loading import from_dict, load, parse
from deepsquare.workflow.models import Resources, Step, Workflow
from deepsquare.workflow.problems import Problem, WorkflowError
from deepsquare.workflow.run import Container, EnvVar, Run, StepResources

__all__ = [
    "Container",
    "EnvVar",
    "Problem",
    "Resources",
    "Run",
    "Step",
    "StepResources",
    "Workflow",
    "WorkflowError",
    "from_dict",
    "load",
    "parse",
]
