"""Runs that keep themselves: on disk, measured and watched while they go, gone on with where they stopped."""

from opsd_lab.runs.alarms import Alarms
from opsd_lab.runs.keep import Keep, Stop
from opsd_lab.runs.keeping import train
from opsd_lab.runs.probe import Probe
from opsd_lab.runs.run import Run

__all__ = ["Alarms", "Keep", "Probe", "Run", "Stop", "train"]
