"""GGUF files: the same function as the model that was written, or an error that names the file and the remedy."""

import random

import gguf
import pytest
import torch

from opsd_lab import ChatFormat, ContextBuilder, add_lora, load_policy
from opsd_lab.contexts import CHATML
from opsd_lab.policies.gguf_files import CorruptModelError, check_gguf, gguf_checkpoint
from opsd_lab.policies.policy import checkpoint_of
from opsd_lab.rollouts import HFSampler, SamplingParams
from tests.conftest import PROBLEMS
from tests.gguf_models import KINDS, tokens, write_gguf


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OPSD_LAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("quantised", [False, True], ids=["float32", "eight bits"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_the_model_that_was_written(tmp_path, kind, quantised):
    written = write_gguf(tmp_path / "m.gguf", kind, quantised=quantised)
    policy = load_policy(tmp_path / "m.gguf", dtype=torch.float32, device="cpu")
    ids = torch.randint(3, 250, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(policy.causal_lm(ids).logits, written(ids).logits, atol=1e-5, rtol=1e-5)
    text = "ab hé 12\n<|im_end|>"
    found = policy.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert policy.tokenizer.decode(found) == text and found[-1] == len(tokens(kind)) - 1 == policy.eos_ids[0]


def test_a_file_is_converted_once_and_its_policy_trains_and_writes(tmp_path):
    write_gguf(tmp_path / "m.gguf", "llama")
    policy = add_lora(load_policy(tmp_path / "m.gguf", device="cpu"))
    folder = gguf_checkpoint(tmp_path / "m.gguf")
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert checkpoint_of(str(tmp_path / "m.gguf")) == folder == gguf_checkpoint(tmp_path / "m.gguf")
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == times
    assert policy.causal_lm.name_or_path == str(folder), "an engine loads it from there"
    prompt = ContextBuilder(policy.tokenizer).student_prompt(PROBLEMS[0])
    (rollout,) = HFSampler(policy, progress=False).sample([prompt], SamplingParams(4))
    assert rollout.completion_ids


def test_another_file_under_the_same_name_is_converted_anew(tmp_path):
    write_gguf(tmp_path / "m.gguf", "llama")
    first = gguf_checkpoint(tmp_path / "m.gguf")
    (tmp_path / "m.gguf").unlink()
    write_gguf(tmp_path / "m.gguf", "qwen2")
    assert gguf_checkpoint(tmp_path / "m.gguf") != first


def test_a_model_without_a_chat_template_is_named_with_one_that_fits(tmp_path):
    write_gguf(tmp_path / "m.gguf", "qwen2", template=None)
    policy = load_policy(tmp_path / "m.gguf", device="cpu")
    with pytest.raises(ValueError, match=r"has no chat template.*opsd_lab.contexts.CHATML"):
        ContextBuilder(policy.tokenizer)
    policy.tokenizer.chat_template = CHATML
    prompt = ContextBuilder(policy.tokenizer, student=ChatFormat(system="Be brief.")).student_prompt(PROBLEMS[0])
    text = policy.tokenizer.decode(prompt)
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n") and text.endswith("<|im_start|>assistant\n")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    write_gguf(path, "llama")
    return path


def test_a_file_that_is_cut_off_anywhere_is_refused(file, tmp_path):
    whole, draw = file.read_bytes(), random.Random(0)
    for size in (4, 10, 24, *(draw.randrange(24, len(whole) - 64) for _ in range(20))):
        (tmp_path / "cut.gguf").write_bytes(whole[:size])
        with pytest.raises(CorruptModelError, match=r"cut.gguf .*is cut off.*download it again"):
            check_gguf(tmp_path / "cut.gguf")


def test_a_header_that_lies_is_refused(file, tmp_path):
    whole = bytearray(file.read_bytes())
    for place in (8, 16):  # how many tensors there are, and how many fields
        wrong = whole.copy()
        wrong[place + 3] = 1
        (tmp_path / "wrong.gguf").write_bytes(wrong)
        with pytest.raises(CorruptModelError, match="cut off or corrupt"):
            check_gguf(tmp_path / "wrong.gguf")


def test_weights_that_are_no_numbers_are_refused(tmp_path, cache):
    write_gguf(tmp_path / "m.gguf", "llama")
    reader = gguf.GGUFReader(tmp_path / "m.gguf", "r+")
    tensor = next(tensor for tensor in reader.tensors if tensor.name == "blk.0.attn_q.weight")
    tensor.data[0, 0] = float("nan")
    reader.data.flush()
    with pytest.raises(CorruptModelError, match=r"layers.0.self_attn.q_proj.weight holds numbers that are none"):
        load_policy(tmp_path / "m.gguf")
    assert not cache.exists() or not list(cache.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"wrong": "parts"}, "is one part of a model in several files; join them"),
        ({"wrong": "positions"}, r"scales its rotary positions \(rope_freqs.weight\), which transformers does not read"),
        ({"left_out": "blk.1.attn_q.weight"}, "lacks 1 of its model's weights, such as model.layers.1.self_attn.q_proj.weight"),
    ],
    ids=["a part", "scaled positions", "a missing tensor"],
)
def test_a_file_that_would_be_another_model_is_refused(tmp_path, cache, options, words):
    write_gguf(tmp_path / "m.gguf", "llama", **options)
    with pytest.raises(ValueError, match=words):
        load_policy(tmp_path / "m.gguf")
    assert not cache.exists() or not list(cache.iterdir())


def test_a_file_of_whole_numbers_of_bits_is_not_rounded_to_half_precision(tmp_path):
    written = write_gguf(tmp_path / "m.gguf", "llama")
    policy = load_policy(tmp_path / "m.gguf", device="cpu")
    assert {p.dtype for p in policy.causal_lm.parameters()} == {torch.float32}
    assert all(torch.equal(p, q) for p, q in zip(policy.causal_lm.parameters(), written.parameters(), strict=True))


def test_an_unknown_file_or_architecture_is_told(tmp_path):
    (tmp_path / "text.gguf").write_text("a page that says 404")
    with pytest.raises(ValueError, match="is no GGUF file: it does not begin with GGUF"):
        load_policy(tmp_path / "text.gguf")
    writer = gguf.GGUFWriter(tmp_path / "new.gguf", "perceptron")
    writer.add_tensor("weight", torch.ones(2, 2).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ValueError, match=r"transformers [\d.]+ does not read .*new.gguf.*perceptron"):
        load_policy(tmp_path / "new.gguf")
    with pytest.raises(FileNotFoundError, match=r"no file .*gone.gguf; .* owner/repository/file.gguf"):
        load_policy(tmp_path / "gone.gguf")
