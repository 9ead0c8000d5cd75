"""Arms times seeds, their tables and tests."""

from opsd_lab.studies.results import arm_table, at_matched_cost, changes, choose, curves, failures, final_rows
from opsd_lab.studies.study import Study, run_study

__all__ = ["Study", "arm_table", "at_matched_cost", "changes", "choose", "curves", "failures", "final_rows", "run_study"]
