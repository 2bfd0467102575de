"""Documents, tokens, and what of them counts. See `llama_exp.config.schema`."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from llama_exp.limits.dataset import ChatTemplate, Document, EncodingErrors, Overlong, Packing
from llama_exp.limits.objective import LossOn


@dataclass
class DatasetConfig:
    """What every data set of ours takes; its own keys stand in the subclasses."""

    _target_: str = MISSING
    sequence_length: int = MISSING  # tokens per row
    packing: Packing = MISSING
    overlong: Overlong = MISSING
    validation_fraction: float = MISSING  # share of documents in (0, 1), chosen by a hash of their content


@dataclass
class TextFilesConfig(DatasetConfig):
    """Plain text on disk."""

    files: list[str] = MISSING  # a path or glob pattern, or a list of them
    document: Document = MISSING
    encoding_errors: EncodingErrors = MISSING


@dataclass
class JsonlConfig(DatasetConfig):
    """One JSON object a line: text, or prompt and completion, or chat messages."""

    files: list[str] = MISSING  # a path or glob pattern, or a list of them
    text_key: str = MISSING  # key of a plain text
    prompt_key: str = MISSING
    completion_key: str = MISSING  # key of the answer, which counts in the loss
    messages_key: str = MISSING  # key of a chat: a list of {role, content}
    chat_template: ChatTemplate = MISSING  # how messages become text


@dataclass
class TfdsConfig(DatasetConfig):
    """Any TensorFlow Datasets builder by name."""

    builder: str = MISSING  # name[/config][:version]
    train_split: str = MISSING  # TFDS split, slices allowed
    validation_split: str | None = MISSING  # null: `validation_fraction` of the training split
    text_key: str | None = MISSING  # feature of a plain text
    prompt_key: str | None = MISSING  # feature of what is asked
    completion_key: str | None = MISSING  # feature of the answer, which counts in the loss
    data_dir: str | None = MISSING  # null: TFDS' own default
    download: bool = MISSING  # false: only what is prepared already


@dataclass
class TokenizerConfig:
    """A tokenizer without options of its own."""

    _target_: str = MISSING


@dataclass
class TrainedTokenizerConfig(TokenizerConfig):
    """Byte-level BPE, trained on the data set."""

    vocabulary_size: int = MISSING  # tokens at most


@dataclass
class FileTokenizerConfig(TokenizerConfig):
    """A tokenizer file on disk."""

    file: str = MISSING  # path of the tokenizer file


@dataclass
class ObjectiveConfig:
    """Next-token prediction."""

    loss_on: LossOn = MISSING
    chunk_tokens: int = MISSING  # target tokens whose logits exist at the same time
    z_loss: float = MISSING  # coefficient of the mean of log(Z)^2 in training; 0: none
