"""Room in the cache and folded attention: the same numbers as transformers' own, for less copying."""

import pytest
import torch
from torch import nn
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from opsd_lab.rollouts import decoding_layers
from opsd_lab.rollouts.decoding_layers import FOLDED, RoomyLayer, folded_attention, folding_attention, roomy_cache
from tests.conftest import tiny_policy


@pytest.mark.parametrize("room", [0, 1, 2, 64])
def test_a_roomy_layer_holds_what_a_dynamic_one_does_however_it_grows_and_loses_rows(room, monkeypatch):
    monkeypatch.setattr(decoding_layers, "ROOM", room)
    random = torch.Generator().manual_seed(room)
    ours, theirs, rows = RoomyLayer(), DynamicLayer(), 4
    for new in (5, 1, 1, 3, 1, 1, 1):
        states = [torch.randn(rows, 2, new, 8, generator=random) for _ in range(2)]
        for found, expected in zip(ours.update(*states), theirs.update(*states), strict=True):
            assert torch.equal(found, expected)
        assert ours.get_seq_length() == theirs.get_seq_length() and ours.get_mask_sizes(1) == theirs.get_mask_sizes(1)
        if new == 3:
            kept, rows = torch.tensor([3, 1]), 2
            ours.reorder_cache(kept)
            theirs.reorder_cache(kept)
            assert torch.equal(ours.keys, theirs.keys) and torch.equal(ours.values, theirs.values)


def test_a_token_is_written_behind_the_others_which_stay_where_they_are():
    layer = RoomyLayer()
    keys, _ = layer.update(torch.ones(1, 1, 3, 2), torch.ones(1, 1, 3, 2))
    more, _ = layer.update(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2))
    assert more.data_ptr() == keys.data_ptr() and more.shape[-2] == 4


class Attention(nn.Module):
    def __init__(self, groups: int) -> None:
        super().__init__()
        self.num_key_value_groups, self.is_causal = groups, True


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("masked", ["none", "shared", "by head"])
def test_folded_attention_is_transformers_own(groups, length, masked):
    random = torch.Generator().manual_seed(0)
    query = torch.randn(2, 2 * groups, length, 8, generator=random)
    key, value = (torch.randn(2, 2, 7, 8, generator=random) for _ in range(2))
    mask = None if masked == "none" else torch.ones(2, 1 if masked == "shared" else 2 * groups, length, 7, dtype=torch.bool)
    if mask is not None:
        mask[0, ..., :3] = False
        mask[1, -1, ..., 5:] = False
    found, _ = folded_attention(Attention(groups), query, key, value, mask, scaling=0.3)
    expected, _ = sdpa_attention_forward(Attention(groups), query, key, value, mask, scaling=0.3)
    torch.testing.assert_close(found, expected)


def test_a_model_folds_inside_the_block_alone_and_one_with_another_attention_never_does():
    model = tiny_policy().causal_lm
    with pytest.raises(KeyboardInterrupt), folding_attention(model):
        assert model.config._attn_implementation == FOLDED
        raise KeyboardInterrupt
    assert model.config._attn_implementation == "sdpa"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(type(model), "_supports_attention_backend", False)
        with folding_attention(model):
            assert model.config._attn_implementation == "sdpa"
    model.set_attn_implementation("eager")
    with folding_attention(model):
        assert model.config._attn_implementation == "eager"
    assert {type(layer) for layer in roomy_cache(model.config).layers} == {RoomyLayer}
