"""Every key that the `config.json` of a Hugging Face Llama may have, in exactly one of three lists.

`USED`: it decides the architecture. `IRRELEVANT`: it does not change the function that is computed. `REFUSED`: it
would, and has no counterpart here, unless it has a value that means "not used". A key in none of them is refused too,
because nobody knows what it does.

Sources: transformers 4.28 to 5.23, `LlamaConfig` and `PreTrainedConfig`; the files of Llama 2, 3, 3.1 and 3.2,
TinyLlama, SmolLM2 and Vicuna.
"""

USED = frozenset(
    {
        "vocab_size",
        "num_hidden_layers",
        "num_attention_heads",
        "hidden_size",
        "intermediate_size",
        "num_key_value_heads",
        "model_type",
        "architectures",
        "head_dim",
        "hidden_act",
        "rms_norm_eps",
        "tie_word_embeddings",
        "rope_theta",
        "rope_scaling",
        "rope_parameters",
        "max_position_embeddings",  # stands in for a pretraining length that Llama 3.1's scaling does not state
        "original_max_position_embeddings",
    }
)
# How text is generated: the newer place is generation_config.json.
GENERATION = frozenset(
    {
        "bad_words_ids",
        "begin_suppress_tokens",
        "cache_implementation",
        "diversity_penalty",
        "do_sample",
        "early_stopping",
        "encoder_no_repeat_ngram_size",
        "exponential_decay_length_penalty",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "length_penalty",
        "max_length",
        "max_new_tokens",
        "max_sequence_length",
        "min_length",
        "no_repeat_ngram_size",
        "num_beam_groups",
        "num_beams",
        "num_return_sequences",
        "output_scores",
        "remove_invalid_values",
        "renormalize_logits",
        "repetition_penalty",
        "return_dict_in_generate",
        "suppress_tokens",
        "temperature",
        "top_k",
        "top_p",
        "typical_p",
        "use_cache",
    }
)
IRRELEVANT = GENERATION | {
    # Training: how weights began, what was dropped then (the model's `dropout` is the caller's), noise.
    "attention_dropout",
    "initializer_range",
    "neftune_noise_alpha",
    "unsloth_fixed",
    "unsloth_version",
    # How transformers computes and returns: sums in several parts, tuples or objects, attention kernel.
    "attn_implementation",
    "chunk_size_feed_forward",
    "is_llama_config",
    "output_attentions",
    "output_hidden_states",
    "pretraining_tp",
    "return_dict",
    "tf_legacy_loss",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "use_bfloat16",
    # The type is that of the stored tensors, and the precision policy decides the type in memory.
    "dtype",
    "torch_dtype",
    # The tokenizer's, and other tasks'.
    "auto_map",
    "bos_token_id",
    "decoder_start_token_id",
    "eos_token_id",
    "finetuning_task",
    "id2label",
    "label2id",
    "num_labels",
    "pad_token_id",
    "prefix",
    "problem_type",
    "sep_token_id",
    "task_specific_params",
    "tokenizer_class",
}
# What changes the function, with the values that mean "not used".
REFUSED: dict[str, tuple] = {
    "add_cross_attention": (False, None),
    "attention_bias": (False, None),
    "compression_config": (None,),
    "cross_attention_hidden_size": (None,),
    "is_decoder": (False, None),
    "is_encoder_decoder": (False, None),
    "layer_types": (None,),
    "mlp_bias": (False, None),
    "partial_rotary_factor": (1, None),
    "per_layer_config": (None, {}),
    "pruned_heads": (None, {}),
    "quantization_config": (None,),
    "rope_interleaved": (False, None),
    "sliding_window": (None,),
    "tie_encoder_decoder": (False, None),
    "use_sliding_window": (False, None),
}
ARCHITECTURES = frozenset({"LlamaForCausalLM", "LLaMAForCausalLM"})  # the second: the first files, of 2023
ACTIVATIONS = ("silu", "swish")  # two names of one function
