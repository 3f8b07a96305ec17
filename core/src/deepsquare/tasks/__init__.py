"""What every engine plugin needs: a task as a workflow, the text of a failure, the table of costs."""

from deepsquare.tasks.report import CostRow, failure_text, format_cost_table, short_id
from deepsquare.tasks.task import Task, to_workflow

__all__ = ["CostRow", "Task", "failure_text", "format_cost_table", "short_id", "to_workflow"]
