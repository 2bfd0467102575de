"""`llama-exp chat`: a conversation with an instruct model, in its own chat template.

On a terminal a person types; otherwise each line of standard input is a message. The whole conversation goes to the
model in each turn, and an answer ends with one of its stop tokens.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from llama_exp.commands import generation_options, models
from llama_exp.commands.parser import Parser
from llama_exp.commands.prompt_text import keep_bytes, lines_of_standard_input, require_text
from llama_exp.commands.streaming import TextStream
from llama_exp.console import logs
from llama_exp.console.failures import tell_failure
from llama_exp.dataset.chat.own_template import variables_of
from llama_exp.errors import ConfigError, ExitCode, InputError
from llama_exp.tokenizer import chat_template
from llama_exp.tokenizer.special_tokens import encode_rendered, hide_names

COMMANDS = "/reset forgets the conversation, /exit leaves (as does Ctrl-D); Ctrl-C stops an answer"

TEMPERATURE = 0.2  # an answer is what the model is surest of, without the loops of the likeliest token


def main(arguments: list[str]) -> int:
    """Talks until the messages end; returns the exit code."""
    options = _parser().parse_args(arguments)
    for name in ("system", "message"):
        for text in _texts(getattr(options, name)):
            require_text(text, f"--{name}")
    logs.attach_console()
    model, source = models.load(options)
    models.require_tokenizer(model, source)
    template = source.chat_template or chat_template.find_template(model.tokenizer, source.origin)
    conversation, code = Conversation(model, template, options), ExitCode.OK
    if options.message:
        for message in options.message:
            conversation.answer(message)
    elif sys.stdin.isatty():
        print(COMMANDS, file=sys.stderr)
        code = _talk(conversation, _typed())
    else:
        for line in lines_of_standard_input():
            if line.strip():
                conversation.answer(line)
    if conversation.tally.num_tokens:
        print(f"{conversation.tally}, compilation included", file=sys.stderr)
    return code


def _texts(value: str | list[str] | None) -> list[str]:
    return value if isinstance(value, list) else [] if value is None else [value]


class Conversation:
    """Messages so far, and the model that answers.

    Args:
        model: a `LlamaCausalLM` with a tokenizer.
        template: Jinja text of its chat template.
        options: `system` and those of `sampling`.
    """

    def __init__(self, model, template: str, options):
        self._model, self._template, self._options = model, template, options
        self._end = self._turn_end()
        self.tally = generation_options.Tally()
        self.reset()

    def reset(self) -> None:
        """Forgets everything but the system message."""
        system = self._options.system
        self.messages = [] if system is None else [{"role": "system", "content": system}]

    def answer(self, message: str) -> str:
        """The assistant's next words, written to standard output as they come.

        Only a whole turn enters the conversation; an interrupted one leaves no trace.
        """
        messages = [*self.messages, {"role": "user", "content": message}]
        token_ids = self.encode(messages)
        stream = TextStream(sys.stdout, self._model.tokenizer, [self._end], strips=True)

        def write(new_ids: list[int]) -> None:
            stream.add(new_ids)
            if stream.ended:
                raise generation_options.Enough

        generation_options.continue_text(self._model, token_ids, self._options, self.tally, write, TEMPERATURE)
        text = stream.finish()
        self.messages = [*messages, {"role": "assistant", "content": text}]
        return text

    def encode(self, messages: list[dict[str, str]]) -> list[int]:
        """The conversation as the template writes it, up to where the assistant answers; what people said is text."""
        shown, marks = hide_names(messages, self._model.tokenizer.special_tokens)
        return encode_rendered(self._render(shown), marks, self._model.tokenizer)

    def _render(self, messages: list[dict[str, str]], **options) -> str:
        return chat_template.render(messages, self._template, **variables_of(self._model.tokenizer), **options)

    def _turn_end(self) -> str:
        """What the template writes behind an answer, where the model has no token for it and writes it out."""
        answer = "(the answer)"
        turn = [{"role": "user", "content": "(the question)"}, {"role": "assistant", "content": answer}]
        try:
            behind = self._render(turn, add_generation_prompt=False).partition(answer)[2].split()
        except InputError:  # it refuses this conversation; the user's own will tell
            return ""
        return behind[0] if behind and self._model.tokenizer.special_id(behind[0]) is None else ""


def _talk(conversation: Conversation, messages: Iterator[str]) -> ExitCode:
    """A conversation with a person, whom no mistake throws out.

    Returns:
        The exit code: not 0 if something typed was no text.
    """
    code = ExitCode.OK
    for message in messages:
        if message == "/exit":
            break
        if message == "/reset":
            conversation.reset()
            print("(forgotten)", file=sys.stderr)
        elif message.startswith("/"):
            print(COMMANDS, file=sys.stderr)
        elif message.strip():
            try:
                conversation.answer(require_text(message, "the line that was typed"))
            except KeyboardInterrupt:
                print("\n(stopped; this turn is forgotten)", file=sys.stderr)
            except InputError as error:  # the template refuses the message
                tell_failure(error, debug=False)
            except ConfigError as error:
                code = tell_failure(error, debug=False)
    return code


def _typed() -> Iterator[str]:
    """Lines from a terminal, with history and editing where Python has them."""
    keep_bytes()
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - its import changes what input() can do
    while True:
        try:
            yield input("> ")
        except EOFError:
            print(file=sys.stderr)
            return
        except KeyboardInterrupt:
            print("\n(Ctrl-D or /exit leaves)", file=sys.stderr)


def _parser() -> Parser:
    parser = Parser(
        "chat",
        "Talks with an instruct model, in its own chat template. On a terminal, type;\n"
        "otherwise each line of standard input is a message.\n" + COMMANDS + ".",
        [
            "llama-exp chat hf://HuggingFaceTB/SmolLM2-135M-Instruct",
            'llama-exp chat llama3.2_instruct_1b --system "Answer in one sentence." --message "What is LoRA?"',
            "llama-exp chat outputs/default/<run> --temperature 0 < questions.txt",
        ],
    )
    models.add_arguments(parser)
    parser.add_argument("--system", metavar="TEXT", help="system message")
    parser.add_argument("--message", metavar="TEXT", action="append", help="one turn, then leave; may be repeated")
    generation_options.add_arguments(parser, str(TEMPERATURE))
    return parser
