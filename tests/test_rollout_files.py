"""Rollouts on disk: they come back equal, and a damaged file is refused in the documented way."""

import math
import random
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsd_lab.basics.arrow_rows import ROWS
from opsd_lab.contexts import ContextBuilder
from opsd_lab.rollouts import HFSampler, Rollout, SamplingParams, load_rollouts, sample_rollouts, save_rollouts
from opsd_lab.rollouts.files import MARK, SCHEMA
from opsd_lab.supervision.views import text_rollout

IDS = st.integers(0, 2**31 - 1)


@st.composite
def any_rollout(draw):
    completion = draw(st.lists(IDS, min_size=1, max_size=6))
    several = {"min_size": len(completion), "max_size": len(completion)}
    return Rollout(
        problem_id=draw(st.text(max_size=5)),
        prompt_ids=tuple(draw(st.lists(IDS, min_size=1, max_size=6))),
        completion_ids=tuple(completion),
        logprobs=tuple(draw(st.lists(st.floats(), **several))),
        finish_reason=draw(st.sampled_from(["stop", "length"])),
        text=draw(st.text(max_size=20)),
        tokens=tuple(draw(st.just([]) | st.lists(st.text(max_size=5), **several))),
    )


def some_rollouts(count=9):
    words = ("A", "é", "\n", "数", "\x00", "<|im_end|>")
    return [
        Rollout(
            f"p{i // 3}",
            (1, 2, i),
            tuple(range(5 + i)),
            tuple(-x / 7 for x in range(5 + i)),
            "stop",
            words[i % 6],
            (words[i % 6],) * (5 + i),
        )
        for i in range(count)
    ]


@settings(max_examples=60, deadline=None)
@given(rollouts=st.lists(any_rollout(), max_size=4))
def test_rollouts_come_back_equal(tmp_path_factory, rollouts):
    path = save_rollouts(rollouts, tmp_path_factory.mktemp("rollouts") / "kept.parquet")
    assert load_rollouts(path) == rollouts


def test_more_rollouts_than_are_read_at_once_keep_their_order(tmp_path):
    rollouts = some_rollouts(2 * ROWS + 1)
    assert load_rollouts(save_rollouts(rollouts, tmp_path / "many.parquet")) == rollouts


def test_sampled_rollouts_and_given_texts_come_back_equal(policy, problems, tmp_path):
    contexts = ContextBuilder(policy.tokenizer)
    rollouts = sample_rollouts(HFSampler(policy, progress=False), contexts, problems[:2], SamplingParams(6, n=2))
    rollouts.append(text_rollout(contexts, problems[2], "It is 11."))
    found = load_rollouts(save_rollouts(rollouts, tmp_path / "kept.parquet"))
    assert found == rollouts and all(math.isnan(x) for x in found[-1].logprobs)


def test_any_data_tool_reads_the_columns(tmp_path):
    rows = pq.read_table(save_rollouts(some_rollouts(), tmp_path / "kept.parquet")).to_pandas()
    assert list(rows.columns) == list(Rollout.__dataclass_fields__)
    assert rows["problem_id"].tolist() == ["p0"] * 3 + ["p1"] * 3 + ["p2"] * 3


def test_a_failed_save_leaves_the_previous_file(tmp_path, monkeypatch):
    path = save_rollouts(some_rollouts(), tmp_path / "kept.parquet")

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="free some space"):
        save_rollouts([], path)
    assert load_rollouts(path) == some_rollouts()


def test_mutated_files_are_refused_with_their_name_or_hold_the_same_rollouts(tmp_path):
    whole, chance, refused = save_rollouts(some_rollouts(), tmp_path / "whole.parquet").read_bytes(), random.Random(0), 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(len(data))
            data[place] = chance.randrange(256)
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        (tmp_path / "mutated.parquet").write_bytes(data)
        try:
            found = load_rollouts(tmp_path / "mutated.parquet")
        except ValueError as error:
            refused += 1
            assert str(error).startswith(f"{tmp_path / 'mutated.parquet'}: ")
        else:
            assert found == some_rollouts()
    assert refused > 150


def with_column(rows, name, values, kind=None):
    place = rows.schema.get_field_index(name)
    field = rows.schema.field(name) if kind is None else pa.field(name, kind)
    return rows.set_column(place, field, pa.array(values, field.type))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows.drop_columns(["text"]), "damaged, or changed since save_rollouts wrote it .*text"),
        (lambda rows: with_column(rows, "text", [1] * 9, pa.int64()), "of other types than a Rollout's"),
        (lambda rows: with_column(rows, "finish_reason", ["over"] * 9), "finish_reason is 'over'"),
        (lambda rows: with_column(rows, "logprobs", [[0.0]] * 9), "5 tokens but 1 log-probabilities"),
        (lambda rows: rows.replace_schema_metadata(None), "a Parquet file, but not one of rollouts; save_rollouts writes those"),
        (lambda rows: rows.replace_schema_metadata({MARK.key: b"{broken"}), "version None"),
        (
            lambda rows: rows.replace_schema_metadata({MARK.key: b'{"version": 2}'}),
            "version 2 of the columns for rollouts.*sample them",
        ),
    ],
)
def test_a_changed_file_is_refused_with_what_differs(tmp_path, change, words):
    rows = pq.read_table(save_rollouts(some_rollouts(), tmp_path / "whole.parquet"))
    assert rows.schema.equals(SCHEMA)
    pq.write_table(change(rows), tmp_path / "changed.parquet")
    with pytest.raises(ValueError, match=f"changed.parquet: .*{words}"):
        load_rollouts(tmp_path / "changed.parquet")


def test_a_file_that_is_not_there_is_missing_and_another_kind_is_named(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_rollouts(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("no Parquet")
    with pytest.raises(ValueError, match=r"text.parquet: not a Parquet file"):
        load_rollouts(tmp_path / "text.parquet")


def test_rollouts_without_log_probabilities_equal_each_other_and_no_others():
    one, other = (replace(some_rollouts(1)[0], logprobs=(float("nan"), *[-1.0] * 4)) for _ in range(2))
    assert one == other and hash(one) == hash(other)
    assert one != replace(one, logprobs=(-1.0, float("nan"), *[-1.0] * 3))
