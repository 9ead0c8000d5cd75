import math

import torch

from opsd_lab.training.processes import Part, from_all, one_after_another, whole_step


def test_a_steps_means_are_weighed_by_what_each_process_took_them_over():
    first = {"gap": Part(1.0, 30), "dropped": Part(2.0, 4), "mismatch_max": Part(0.1, 30), "reward": Part(math.nan, 0)}
    second = {"gap": Part(-1.0, 10), "dropped": Part(1.0, 4), "mismatch_max": Part(0.3, 10), "reward": Part(math.nan, 0)}
    found = whole_step([first, second])
    assert found["gap"] == 0.5 and found["dropped"] == 3 and found["mismatch_max"] == 0.3 and math.isnan(found["reward"])


def test_a_process_without_tokens_does_not_count():
    without = {"gap": Part(math.nan, 0)}
    assert whole_step([without, {"gap": Part(0.25, 8)}]) == whole_step([{"gap": Part(0.25, 8)}]) == {"gap": 0.25}


def test_a_process_that_is_alone_hears_itself():
    assert from_all({"loss": 1}) == [{"loss": 1}]


def test_columns_of_several_processes_are_numbered_on_and_filled_with_0(monkeypatch):
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 2)
    first = {"rollout": torch.tensor([0, 0, 1]), "loss": torch.tensor([1.0, 2.0, 3.0])}
    third = {"rollout": torch.tensor([0, 1]), "loss": torch.tensor([4.0, 5.0]), "advantage": torch.tensor([-1.0, 1.0])}
    found, mine = one_after_another([first, {}, third])
    assert found["rollout"].tolist() == [0, 0, 1, 2, 3] and found["loss"].tolist() == [1, 2, 3, 4, 5]
    assert found["advantage"].tolist() == [0, 0, 0, -1, 1] and found["loss"][mine].tolist() == [4, 5]
