"""How tokens are chosen: the options that `generate` and `chat` share, and the continuation of one row."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
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


class Enough(Exception):
    """Whoever reads the tokens wants no more of them."""


def add_arguments(parser: Parser, temperature: str) -> None:
    """Length and choice of new tokens; `temperature` says what its default is."""
    add = parser.add_argument
    parser.set_defaults(context_length=None)  # no option: the model says it
    add("--max-new-tokens", type=positive, default=256, metavar="N", help="at most so many (default: 256)")
    add("--temperature", type=float, help=f"0: the likeliest token each time (default: {temperature})")
    add("--top-k", type=positive, metavar="K", help="draw among the K likeliest tokens only")
    add("--top-p", type=float, metavar="P", help="draw among the likeliest that reach probability P together")
    add("--seed", type=int, default=0, help="of the draws (default: 0)")


def tell_overrun(num_tokens: int, options) -> None:
    """Says once, before anything is computed, that prompt and continuation exceed what the model was made for."""
    doubt = find_overrun(num_tokens + options.max_new_tokens, options.context_length)
    if doubt is not None:
        _log.warning("a prompt of %d tokens and up to %d new ones: %s", num_tokens, options.max_new_tokens, doubt)
        options.context_length = None


def continue_text(
    model, token_ids: list[int], options, tally: Tally, on_tokens: Callable[[list[int]], None], temperature: float
) -> None:
    """Makes new tokens behind a prompt, until one ends the text, there are enough, or `on_tokens` raises `Enough`.

    Args:
        model: a `LlamaCausalLM` with a tokenizer.
        token_ids: the prompt's.
        options: those of `add_arguments`.
        tally: gets the tokens and seconds.
        on_tokens: called with new ids as soon as they are there, the token that ends the text left out.
        temperature: where the options say nothing.

    Raises:
        ConfigError: an impossible option.
    """
    from llama_exp.errors import ConfigError, Problem

    tell_overrun(len(token_ids), options)
    started, stop_ids = time.monotonic(), set(model.tokenizer.stop_ids)

    def take(new_NB) -> None:
        tally.num_tokens += len(new_NB)
        on_tokens([id_ for id_ in new_NB[:, 0].tolist() if id_ not in stop_ids])

    try:
        model.generate(
            [token_ids],
            max_length=len(token_ids) + options.max_new_tokens,
            temperature=temperature if options.temperature is None else options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            seed=options.seed,
            on_tokens=take,
        )
    except Enough:
        pass
    except ValueError as error:
        raise ConfigError(
            Problem("this cannot be generated", "command line", str(error), "change the option")
        ) from error
    finally:
        tally.seconds += time.monotonic() - started
