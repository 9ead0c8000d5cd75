"""How one side's conversation is written, and rendering it with a chat template: the same text on every day."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from inspect import signature
from typing import NoReturn

import jinja2
from jinja2 import meta, nodes
from jinja2.defaults import DEFAULT_NAMESPACE
from transformers import PreTrainedTokenizerBase

INSTRUCTION = "Reason step by step and put the final answer in \\boxed{}."
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML, for a tokenizer that knows its two tokens and has no chat template."""
DATE = date(2025, 1, 1)
"""The day that a template reads from its clock unless a format names another: a prompt must not change overnight."""
STANDARD = {"messages", "add_generation_prompt", "strftime_now", "raise_exception", *DEFAULT_NAMESPACE}
"""Names that a template reads and no format sets, beside the parameters of `apply_chat_template` and the special tokens."""

Message = dict[str, str]


class Variables(dict[str, object]):
    """A mapping that does not change, so that what holds it can be hashed; lists in it become tuples."""

    def __init__(self, given: Mapping[str, object] | Sequence[tuple[str, object]] = ()) -> None:
        super().__init__({name: tuple(value) if isinstance(value, list) else value for name, value in dict(given).items()})
        for name, value in self.items():
            plain = value if isinstance(value, tuple) else (value,)
            if not isinstance(name, str) or not all(one is None or isinstance(one, str | int | float) for one in plain):
                raise ValueError(f"ChatFormat.variables: {name!r} = {value!r} is no text, number, truth value or list of them")

    def __hash__(self) -> int:
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple:
        return Variables, (dict(self),)

    def _refuse(self, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError("the variables of a ChatFormat do not change; make another with dataclasses.replace")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse


@dataclass(frozen=True)
class ChatFormat:
    """How one side's conversation is written.

    `instruction` closes the user turn. `system` None leaves the system turn to the chat template. `response_prefix` opens the
    assistant's turn, control tokens included; completions start after it. `variables` go to the template by name, such as
    `date_string`, `thinking` or `reasoning_effort`; `enable_thinking` is the one that many templates know, None leaves it out.
    `date` is what a template's clock shows, at midnight. A variable that changes nothing is refused by `ContextBuilder`.

    Raises:
        ValueError: when a variable has no plain value, is given twice, or is none that a format may set.
    """

    instruction: str = INSTRUCTION
    system: str | None = None
    response_prefix: str = ""
    enable_thinking: bool | None = None
    variables: Mapping[str, object] = Variables()
    date: date = DATE

    def __post_init__(self) -> None:
        object.__setattr__(self, "variables", Variables(self.variables))
        if taken := sorted(set(self.variables) & (STANDARD | set(signature(PreTrainedTokenizerBase.apply_chat_template).parameters))):
            raise ValueError(f"ChatFormat.variables sets {taken[0]!r}, which rendering sets itself; the clock is set by date")
        if self.enable_thinking is not None and "enable_thinking" in self.variables:
            raise ValueError("ChatFormat: enable_thinking is given twice, as itself and among the variables; leave one out")
        if not isinstance(self.date, date):
            raise ValueError(
                f"ChatFormat.date is {self.date!r}, no datetime.date; for today's, which changes the prompts daily, date.today()"
            )

    def template_variables(self) -> dict[str, object]:
        """Return all variables that the template gets from this format."""
        thinking = {} if self.enable_thinking is None else {"enable_thinking": self.enable_thinking}
        return thinking | dict(self.variables)


def messages_of(user: str, system: str | None) -> list[Message]:
    """Return the conversation up to the assistant's turn."""
    opening = [] if system is None else [{"role": "system", "content": system}]
    return [*opening, {"role": "user", "content": user}]


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], chat: ChatFormat, *, answer: bool = True) -> str:
    """Return the conversation as the template writes it; `answer` opens the assistant's turn behind it.

    The template is that of the `tokenizer`. `messages` are the turns in order, each with its role and content. `chat` gives the
    template its variables and its clock.

    Raises:
        ValueError: when the template refuses the conversation or fails; the message has its words and the remedy.
    """
    midnight = datetime.combine(chat.date, time())
    try:
        return tokenizer.apply_chat_template(
            list(messages),
            tokenize=False,
            add_generation_prompt=answer,
            strftime_now=midnight.strftime,
            **chat.template_variables(),
        )
    except Exception as error:  # a template is a program of someone else's: whatever it raises comes out here
        said = f"{type(error).__name__}: {error}" if not isinstance(error, jinja2.TemplateError) else str(error)
        remedy = "choose another chat template or ChatFormat.variables"
        if messages[0]["role"] == "system" and isinstance(_outcome(tokenizer, messages[1:], chat, answer), str):
            remedy = "it takes no system turn: leave ChatFormat.system None, or put its text into the instruction"
        raise ValueError(f"the chat template fails with {said!r}; {remedy}") from error


def _outcome(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], chat: ChatFormat, answer: bool = True
) -> str | tuple[str]:
    try:
        return render(tokenizer, messages, chat, answer=answer)
    except ValueError as error:
        return (str(error),)


def check_switches(tokenizer: PreTrainedTokenizerBase, chat: ChatFormat) -> None:
    """Make sure that everything the format sets for the template changes what it writes.

    A truth value changes something if the opposite is written otherwise; any other value, if leaving it out or another is.

    Raises:
        ValueError: for a variable or a date that changes nothing; it names the variables that the template does read.
    """
    messages = messages_of("0", chat.system)
    written = _outcome(tokenizer, messages, chat)
    for name, value in chat.template_variables().items():
        if all(_outcome(tokenizer, messages, other) == written for other in _others(chat, name, value)):
            known = template_variables(tokenizer)
            remedy = f"the template's own variables are {', '.join(known)}" if known else "the template has no variables"
            raise ValueError(f"{name} = {value!r} changes nothing in what this chat template writes; leave it out: {remedy}")
    if chat.date != DATE and _outcome(tokenizer, messages, replace(chat, date=DATE)) == written:
        raise ValueError(f"date = {chat.date} changes nothing in what this chat template writes: it reads no clock; leave it out")


def _others(chat: ChatFormat, name: str, value: object) -> Iterator[ChatFormat]:
    bare = replace(chat, enable_thinking=None, variables={k: v for k, v in chat.template_variables().items() if k != name})
    yield bare
    if isinstance(value, bool):
        others = [not value]
    elif isinstance(value, str):
        others = [value + "?", ""]
    elif isinstance(value, int | float):
        others = [value + 1]
    else:
        others = [True, "0", ()]
    for other in others:
        yield replace(bare, variables=bare.variables | {name: other})


def template_variables(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the names that the chat template reads and a `ChatFormat` may set."""
    source = re.sub(r"\{%-?\s*(end)?generation\s*-?%\}", "", tokenizer.get_chat_template())
    tree = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(source)
    set_by_itself = {name.name for name in tree.find_all(nodes.Name) if name.ctx == "store"}
    asked = [test for test in tree.find_all((nodes.Test, nodes.Filter)) if test.name in ("defined", "undefined", "default")]
    asked_for = {test.node.name for test in asked if isinstance(test.node, nodes.Name)}
    passed = STANDARD | set(tokenizer.special_tokens_map) | set(signature(PreTrainedTokenizerBase.apply_chat_template).parameters)
    return sorted(meta.find_undeclared_variables(tree) - passed - (set_by_itself - asked_for))
