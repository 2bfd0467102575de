"""How tokens are chosen: the options that `generate` and `chat` share, and the continuation of one row."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from llama_exp.commands.parser import Parser, positive
from llama_exp.limits.model import find_overrun

_log = logging.getLogger(__name__)


@dataclass
class Tally:
    """Tokens made so far, and the seconds it took."""

    num_tokens: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.num_tokens} tokens in {self.seconds:.2f} s, {self.num_tokens / self.seconds:.1f} tokens/s"


def add_arguments(parser: Parser, temperature: float) -> None:
    """Length and choice of new tokens."""
    add = parser.add_argument
    parser.set_defaults(context_length=None)  # no option: the model says it
    add("--max-new-tokens", type=positive, default=256, metavar="N", help="at most so many (default: 256)")
    add("--temperature", type=float, default=temperature, help=f"0: the likeliest token (default: {temperature})")
    add("--top-k", type=positive, metavar="K", help="draw among the K likeliest tokens only")
    add("--top-p", type=float, metavar="P", help="draw among the likeliest that reach probability P together")
    add("--seed", type=int, default=0, help="of the draws (default: 0)")


def tell_overrun(num_tokens: int, options) -> None:
    """Says once, before anything is computed, that prompt and continuation exceed what the model was made for."""
    doubt = find_overrun(num_tokens + options.max_new_tokens, options.context_length)
    if doubt is not None:
        _log.warning("a prompt of %d tokens and up to %d new ones: %s", num_tokens, options.max_new_tokens, doubt)
        options.context_length = None


def generate_text(model, token_ids: list[int], options, tally: Tally) -> list[int]:
    """New token ids behind a prompt, the token that ends the text left out.

    Raises:
        ConfigError: an impossible option.
    """
    from llama_exp.errors import ConfigError, Problem

    tell_overrun(len(token_ids), options)
    started = time.monotonic()
    try:
        output = model.generate(
            [token_ids],
            max_length=len(token_ids) + options.max_new_tokens,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            seed=options.seed,
        )[0]
    except ValueError as error:
        raise ConfigError(
            Problem("this cannot be generated", "command line", str(error), "change the option")
        ) from error
    new = [int(id_) for id_ in output[len(token_ids) :]]
    tally.num_tokens += len(new)
    tally.seconds += time.monotonic() - started
    return new[:-1] if new and new[-1] in model.tokenizer.stop_ids else new
