"""The chat templates of families of models, shortened to what a maths prompt meets: turns, ends, switches, clocks, refusals."""

from dataclasses import dataclass, field

from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from opsd_lab.contexts import CHATML


@dataclass(frozen=True)
class Family:
    """One template with what its tokenizer calls special, what it merely adds, and how it behaves.

    `end` is what closes an assistant's turn; `switches` are variables with two values that write different prompts; `marks` are
    written as plain text; `strips` are tokens that swallow the white space behind them, as Phi-3's do.
    """

    name: str
    template: str
    special: tuple[str, ...]
    end: str
    eos: str
    bos: str | None = None
    added: tuple[str, ...] = ()
    switches: dict[str, tuple[object, object]] = field(default_factory=dict)
    clock: bool = False
    takes_system: bool = True
    marks: tuple[str, ...] = ()
    strips: bool = False

    def tokenizer(self, backend: Tokenizer) -> PreTrainedTokenizerFast:
        """Return a tokenizer with another's model and this family's tokens and template."""
        made = Tokenizer(backend.model)
        made.normalizer, made.pre_tokenizer, made.decoder = backend.normalizer, backend.pre_tokenizer, backend.decoder
        made.add_special_tokens([AddedToken(token, rstrip=self.strips, normalized=False, special=True) for token in self.special])
        made.add_tokens([AddedToken(token, normalized=False, special=False) for token in self.added])
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token=self.eos, bos_token=self.bos)
        tokenizer.chat_template = self.template
        return tokenizer

    @property
    def control(self) -> tuple[str, ...]:
        return self.special + self.added


GENERATION = "{% if add_generation_prompt %}"
HELPFUL = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}" + CHATML
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
ALTERNATE = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% endfor %}"
)
QWEN_2_5 = "{% if tools %}{{ '<tool_call>\n</tool_call>' }}{% endif %}" + HELPFUL
SPLIT_OFF = "{% set m = namespace(text=turn['content'], role=turn['role']) %}"
THOUGHT = (
    "{% if turn['role'] == 'assistant' and '</think>' in m.text %}"
    "{% set m.text = m.text.split('</think>')[-1].lstrip('\n') %}{% endif %}"
)
IM = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
THINK = ("<think>", "</think>")

LLAMA_2 = (
    "{% if messages[0]['role'] == 'system' %}{% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
    "{% set turns = messages[1:] %}{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for m in turns %}{% if m['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + (system if loop.first else '') + m['content'].strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA_3 = (
    "{% for m in messages %}{{ (bos_token if loop.first else '') + '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}"
    "{{ m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    + GENERATION
    + "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA_3_2 = (
    "{% if not date_string is defined %}{% if strftime_now is defined %}{% set date_string = strftime_now('%d %b %Y') %}"
    "{% else %}{% set date_string = '26 Jul 2024' %}{% endif %}{% endif %}"
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] | trim %}{% set messages = messages[1:] %}"
    "{% else %}{% set system = '' %}{% endif %}"
    "{{ bos_token + '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: ' }}"
    "{{ date_string + '\n\n' + system + '<|eot_id|>' }}"
    "{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}" + GENERATION + "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA_4 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|header_start|>' + m['role'] + '<|header_end|>\n\n' }}"
    "{% if m['content'] is string %}{{ m['content'] | trim }}{% endif %}{{ '<|eot|>' }}{% endfor %}"
    + GENERATION
    + "{{ '<|header_start|>assistant<|header_end|>\n\n' }}{% endif %}"
)
MISTRAL_1 = (
    ALTERNATE + "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
)
MISTRAL_3 = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] + '\n\n' %}{% set turns = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}{{ bos_token }}"
    "{% for m in turns %}{% if m['role'] == 'user' %}{{ '[INST] ' + (system if loop.last else '') + m['content'] + '[/INST]' }}"
    "{% else %}{{ ' ' + m['content'] | trim + eos_token }}{% endif %}{% endfor %}"
)
MISTRAL_SMALL = (
    "{% set today = strftime_now('%Y-%m-%d') %}{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set turns = messages[1:] %}"
    "{% else %}{% set system = 'You are an assistant. The current date is ' + today + '.' %}{% set turns = messages %}{% endif %}"
    "{{ '[SYSTEM_PROMPT]' + system + '[/SYSTEM_PROMPT]' }}"
    "{% for m in turns %}{% if m['role'] == 'user' %}{{ '[INST]' + m['content'] + '[/INST]' }}"
    "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
)
GEMMA_TURNS = (
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' }}"
    "{{ MORE + m['content'] | trim + '<end_of_turn>\n' }}"
)
GEMMA_2 = (
    "{{ bos_token }}" + NO_SYSTEM + "{% for m in messages %}" + GEMMA_TURNS.replace("MORE + ", "") + "{% endfor %}"
    "" + GENERATION + "{{ '<start_of_turn>model\n' }}{% endif %}"
)
GEMMA_3 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set more = messages[0]['content'] + '\n\n' %}"
    "{% set turns = messages[1:] %}{% else %}{% set more = '' %}{% set turns = messages %}{% endif %}{% for m in turns %}"
    + GEMMA_TURNS.replace("MORE", "(more if loop.first else '')")
    + "{% endfor %}"
    + GENERATION
    + "{{ '<start_of_turn>model\n' }}{% endif %}"
)
PHI_3 = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
PHI_4 = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '<|im_sep|>' + m['content'] + '<|im_end|>' }}{% endfor %}"
    + GENERATION
    + "{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
)
QWEN_3 = (
    "{% for turn in messages %}"
    + SPLIT_OFF
    + THOUGHT
    + "{{ '<|im_start|>' + m.role + '\n' + m.text + '<|im_end|>\n' }}{% endfor %}"
    + GENERATION
    + "{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
QWEN_3_5 = QWEN_3.replace(
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}", "{{ '<think>\n\n</think>\n\n' }}{% else %}{{ '<think>\n' }}{% endif %}"
)
SMOLLM_3 = (
    "{% set mode = '/think' if enable_thinking is not defined or enable_thinking else '/no_think' %}"
    "{% if messages[0]['role'] == 'system' %}{% set own = messages[0]['content'] %}{% set turns = messages[1:] %}"
    "{% else %}{% set own = 'You are SmolLM.' %}{% set turns = messages %}{% endif %}"
    "{% if '/no_think' in own %}{% set mode = '/no_think' %}{% set own = own.replace('/no_think', '').rstrip() %}{% endif %}"
    "{{ '<|im_start|>system\n## Metadata\n\nToday Date: ' + strftime_now('%d %B %Y') + '\nReasoning Mode: ' + mode + '\n\n' }}"
    "{{ '## Custom Instructions\n\n' + own + '<|im_end|>\n' }}"
    "{% for m in turns %}{% if m['role'] == 'assistant' %}{% generation %}"
    "{{ '<|im_start|>assistant\n' + m['content'] + '<|im_end|>\n' }}{% endgeneration %}"
    "{% else %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    + GENERATION
    + "{{ '<|im_start|>assistant\n' + ('<think>\n\n</think>\n' if mode == '/no_think' else '') }}{% endif %}"
)
DEEPSEEK = (
    "{{ bos_token }}{% for turn in messages %}"
    + SPLIT_OFF
    + THOUGHT
    + "{% if m.role == 'system' %}{{ m.text }}{% elif m.role == 'user' %}{{ '<｜User｜>' + m.text }}"
    "{% else %}{{ '<｜Assistant｜>' + m.text + '<｜end▁of▁sentence｜>' }}{% endif %}{% endfor %}"
    + GENERATION
    + "{{ '<｜Assistant｜>' OPENING }}{% endif %}"
)
GRANITE_TURNS = (
    "{% for m in turns %}{{ '<|start_of_role|>' + m['role'] + '<|end_of_role|>' + m['content'] + '<|end_of_text|>\n' }}{% endfor %}"
    + GENERATION
    + "{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}"
)
GRANITE_3 = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set turns = messages[1:] %}"
    "{% else %}{% set turns = messages %}{% set system = 'Knowledge Cutoff Date: April 2024.\n' %}"
    "{% set system = system + 'Today: ' + strftime_now('%B %d, %Y') %}"
    "{% if thinking %}{% set system = system + '\nWrite down your thought process, then your response.' %}{% endif %}{% endif %}"
    "{{ '<|start_of_role|>system<|end_of_role|>' + system + '<|end_of_text|>\n' }}" + GRANITE_TURNS
)
GRANITE_4 = "{% set turns = messages %}" + GRANITE_TURNS
COMMAND_R = (
    "{{ bos_token }}{% for m in messages %}{% set who = {'user': 'USER', 'assistant': 'CHATBOT', 'system': 'SYSTEM'}[m['role']] %}"
    "{{ '<|START_OF_TURN_TOKEN|><|' + who + '_TOKEN|>' + m['content'].strip() + '<|END_OF_TURN_TOKEN|>' }}{% endfor %}"
    + GENERATION
    + "{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}"
)
OLMO_2 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% if not loop.last or m['role'] != 'assistant' %}{{ '\n' }}{% endif %}{% endfor %}"
    + GENERATION
    + "{{ '<|assistant|>\n' }}{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token + '\n' }}{% endfor %}"
    + GENERATION
    + "{{ '<|assistant|>\n' }}{% endif %}"
)
VICUNA = (
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] + ' ' }}{% set turns = messages[1:] %}"
    "{% else %}{{ 'A chat between a curious user and an assistant. ' }}{% set turns = messages %}{% endif %}"
    "{% for m in turns %}{% if m['role'] == 'user' %}{{ 'USER: ' + m['content'] + ' ' }}"
    "{% else %}{{ 'ASSISTANT: ' + m['content'] + eos_token }}{% endif %}{% endfor %}" + GENERATION + "{{ 'ASSISTANT:' }}{% endif %}"
)
GLM_4_5 = (
    "{{ '[gMASK]<sop>' }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|user|>\n' + m['content'] }}"
    "{{ '/nothink' if enable_thinking is defined and not enable_thinking and not m['content'].endswith('/nothink') else '' }}"
    "{% elif m['role'] == 'assistant' %}{{ '<|assistant|>\n<think></think>\n' + m['content'].strip() }}"
    "{% else %}{{ '<|system|>\n' + m['content'] }}{% endif %}{% endfor %}"
    + GENERATION
    + "{{ '<|assistant|>' }}"
    + "{% if enable_thinking is defined and not enable_thinking %}{{ '\n<think></think>' }}{% endif %}{% endif %}"
)
KIMI_K2 = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_system|>system<|im_middle|>You are a helpful assistant<|im_end|>' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_' + m['role'] + '|>' + m['role'] + '<|im_middle|>' + m['content'] + '<|im_end|>' }}{% endfor %}"
    + GENERATION
    + "{{ '<|im_assistant|>assistant<|im_middle|>' }}{% endif %}"
)
MINIMAX = (
    "{{ '<begin_of_document>' }}{% for m in messages %}{% set who = {'user': 'user name=user', 'assistant': 'ai name=assistant'} %}"
    "{{ '<beginning_of_sentence>' + who.get(m['role'], 'system ai_setting=assistant') + '\n' }}"
    "{{ m['content'] + '<end_of_sentence>\n' }}"
    "{% endfor %}" + GENERATION + "{{ '<beginning_of_sentence>ai name=assistant\n' }}{% endif %}"
)
GPT_OSS = (
    "{% if reasoning_effort is not defined %}{% set reasoning_effort = 'medium' %}{% endif %}"
    "{{ '<|start|>system<|message|>You are a model.\nCurrent date: ' + strftime_now('%Y-%m-%d') }}"
    "{{ '\n\nReasoning: ' + reasoning_effort }}"
    "{{ '\n\n# Valid channels: analysis, final.<|end|>' }}"
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ '<|start|>assistant<|channel|>final<|message|>' + m['content'] }}"
    "{{ '<|return|>' if loop.last and not add_generation_prompt else '<|end|>' }}"
    "{% else %}{{ '<|start|>' + ('developer' if m['role'] == 'system' else m['role']) + '<|message|>' + m['content'] + '<|end|>' }}"
    "{% endif %}{% endfor %}" + GENERATION + "{{ '<|start|>assistant' }}{% endif %}"
)
EXAONE = (
    "{% for m in messages %}{{ '[|' + m['role'] + '|]' + m['content'] + ('\n' if m['role'] == 'user' else '[|endofturn|]\n') }}"
    "{% endfor %}" + GENERATION + "{{ '[|assistant|]' }}{% endif %}"
)
SOLAR = (
    "{% for m in messages %}{{ '### ' + m['role'] | capitalize + ':\n' + m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n\n' }}{% endfor %}"
    + GENERATION
    + "{{ '### Assistant:\n' }}{% endif %}"
)
NEMOTRON = (
    "{{ '<extra_id_0>System\n' }}"
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}{% set messages = messages[1:] %}{% endif %}"
    "{% for m in messages %}{{ '\n<extra_id_1>' + m['role'] | capitalize + '\n' + m['content'] }}{% endfor %}"
    + GENERATION
    + "{{ '\n<extra_id_1>Assistant\n' }}{% endif %}"
)

S = ("<s>", "</s>")
LLAMA_3_TOKENS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end_of_text|>")
GEMMA_TOKENS = ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>")
PHI_TOKENS = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>")
DEEPSEEK_TOKENS = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>")
DEEPSEEK_ADDED = ("<｜User｜>", "<｜Assistant｜>")
GRANITE_TOKENS = ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>")
THINKING = {"enable_thinking": (True, False)}
SPACES = ("  ", "    ", "\n\n")

FAMILIES = [
    Family("ChatML", CHATML, IM, "<|im_end|>", "<|im_end|>"),
    Family("Llama 2", LLAMA_2, S, " </s>", "</s>", "<s>", marks=("[INST]", "<<SYS>>", "[/INST]")),
    Family("Llama 3", LLAMA_3, LLAMA_3_TOKENS, "<|eot_id|>", "<|end_of_text|>", "<|begin_of_text|>"),
    Family(
        "Llama 3.2",
        LLAMA_3_2,
        LLAMA_3_TOKENS,
        "<|eot_id|>",
        "<|eot_id|>",
        "<|begin_of_text|>",
        clock=True,
        switches={"date_string": ("01 Feb 2025", "02 Feb 2025")},
    ),
    Family(
        "Llama 4",
        LLAMA_4,
        ("<|begin_of_text|>", "<|header_start|>", "<|header_end|>", "<|eot|>"),
        "<|eot|>",
        "<|eot|>",
        "<|begin_of_text|>",
    ),
    Family("Mistral v1", MISTRAL_1, S, "</s>", "</s>", "<s>", takes_system=False, marks=("[INST]", "[/INST]")),
    Family("Mixtral", MISTRAL_1.replace("'[INST] '", "' [INST] '"), S, "</s>", "</s>", "<s>", takes_system=False, marks=("[/INST]",)),
    Family("Mistral v3", MISTRAL_3, (*S, "[INST]", "[/INST]"), "</s>", "</s>", "<s>"),
    Family(
        "Mistral Small 3.1",
        MISTRAL_SMALL,
        (*S, "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
        "</s>",
        "</s>",
        "<s>",
        clock=True,
    ),
    Family("Gemma 2", GEMMA_2, GEMMA_TOKENS, "<end_of_turn>", "<eos>", "<bos>", added=SPACES, takes_system=False),
    Family("Gemma 3", GEMMA_3, GEMMA_TOKENS, "<end_of_turn>", "<eos>", "<bos>", added=SPACES),
    Family("Phi-3", PHI_3, PHI_TOKENS, "<|end|>", "<|endoftext|>", strips=True),
    Family("Phi-3.5", PHI_3, PHI_TOKENS, "<|end|>", "<|endoftext|>"),
    Family("Phi-4", PHI_4, (*IM, "<|im_sep|>"), "<|im_end|>", "<|im_end|>"),
    Family("Qwen2.5", QWEN_2_5, IM, "<|im_end|>", "<|im_end|>", added=("<tool_call>", "</tool_call>")),
    Family("Qwen3", QWEN_3, IM, "<|im_end|>", "<|im_end|>", added=THINK, switches=THINKING),
    Family("Qwen3.5", QWEN_3_5, IM, "<|im_end|>", "<|im_end|>", added=THINK, switches=THINKING),
    Family("SmolLM2", HELPFUL, IM, "<|im_end|>", "<|im_end|>"),
    Family("SmolLM3", SMOLLM_3, IM, "<|im_end|>", "<|im_end|>", added=THINK, switches=THINKING, clock=True),
    Family(
        "DeepSeek V3",
        DEEPSEEK.replace(" OPENING", ""),
        DEEPSEEK_TOKENS,
        DEEPSEEK_TOKENS[1],
        DEEPSEEK_TOKENS[1],
        DEEPSEEK_TOKENS[0],
        added=DEEPSEEK_ADDED,
    ),
    Family(
        "DeepSeek R1",
        DEEPSEEK.replace("OPENING", "+ '<think>\n'"),
        DEEPSEEK_TOKENS,
        DEEPSEEK_TOKENS[1],
        DEEPSEEK_TOKENS[1],
        DEEPSEEK_TOKENS[0],
        added=(*DEEPSEEK_ADDED, *THINK),
    ),
    Family(
        "DeepSeek V3.1",
        DEEPSEEK.replace("OPENING", "+ ('<think>' if thinking else '</think>')"),
        DEEPSEEK_TOKENS,
        DEEPSEEK_TOKENS[1],
        DEEPSEEK_TOKENS[1],
        DEEPSEEK_TOKENS[0],
        added=(*DEEPSEEK_ADDED, *THINK),
        switches={"thinking": (True, False)},
    ),
    Family(
        "Granite 3", GRANITE_3, GRANITE_TOKENS, "<|end_of_text|>", "<|end_of_text|>", switches={"thinking": (True, False)}, clock=True
    ),
    Family("Granite 4", GRANITE_4, GRANITE_TOKENS, "<|end_of_text|>", "<|end_of_text|>"),
    Family(
        "Command-R",
        COMMAND_R,
        (
            "<BOS_TOKEN>",
            "<|START_OF_TURN_TOKEN|>",
            "<|END_OF_TURN_TOKEN|>",
            "<|USER_TOKEN|>",
            "<|CHATBOT_TOKEN|>",
            "<|SYSTEM_TOKEN|>",
        ),
        "<|END_OF_TURN_TOKEN|>",
        "<|END_OF_TURN_TOKEN|>",
        "<BOS_TOKEN>",
    ),
    Family(
        "OLMo 2",
        OLMO_2,
        ("<|endoftext|>",),
        "<|endoftext|>",
        "<|endoftext|>",
        "<|endoftext|>",
        added=SPACES,
        marks=("<|user|>", "<|assistant|>"),
    ),
    Family(
        "Falcon 3", OLMO_2.replace("{{ bos_token }}", ""), ("<|endoftext|>",), "<|endoftext|>", "<|endoftext|>", marks=("<|user|>",)
    ),
    Family("Zephyr", ZEPHYR, S, "</s>", "</s>", "<s>", marks=("<|user|>", "<|system|>", "<|assistant|>")),
    Family("Vicuna", VICUNA, S, "</s>", "</s>", "<s>"),
    Family("Yi", CHATML, IM, "<|im_end|>", "<|im_end|>"),
    Family("InternLM 2", "{{ bos_token }}" + CHATML, (*IM, *S), "<|im_end|>", "</s>", "<s>"),
    Family(
        "GLM-4.5",
        GLM_4_5,
        ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|endoftext|>"),
        "<|user|>",
        "<|endoftext|>",
        added=(*THINK, "/nothink"),
        switches=THINKING,
    ),
    Family(
        "Kimi-K2",
        KIMI_K2,
        ("<|im_system|>", "<|im_user|>", "<|im_assistant|>", "<|im_middle|>", "<|im_end|>", "[EOS]"),
        "<|im_end|>",
        "[EOS]",
    ),
    Family(
        "MiniMax",
        MINIMAX,
        ("<begin_of_document>", "<beginning_of_sentence>", "<end_of_sentence>"),
        "<end_of_sentence>",
        "<end_of_sentence>",
    ),
    Family(
        "gpt-oss",
        GPT_OSS,
        ("<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|return|>"),
        "<|return|>",
        "<|return|>",
        switches={"reasoning_effort": ("medium", "high")},
        clock=True,
    ),
    Family("Hermes 3", "{{ bos_token }}" + HELPFUL, (*IM, "<|begin_of_text|>"), "<|im_end|>", "<|im_end|>", "<|begin_of_text|>"),
    Family(
        "EXAONE", EXAONE, ("[|endofturn|]", "[BOS]"), "[|endofturn|]", "[|endofturn|]", "[BOS]", marks=("[|user|]", "[|assistant|]")
    ),
    Family("SOLAR", SOLAR, S, "</s>", "</s>", "<s>", marks=("### User:", "### Assistant:")),
    Family("Nemotron", NEMOTRON, (*S, "<extra_id_0>", "<extra_id_1>"), "\n<extra_id_1>", "</s>", "<s>"),
]
