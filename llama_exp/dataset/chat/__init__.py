"""Conversations: what a message may say, and how messages become text.

conversation   what a user wrote -> checked messages
built_in       messages -> pieces, by the forms of Llama 2, Llama 3 and ChatML
own_template   messages -> pieces, by the Jinja template that came with a model
sandbox        the process in which such a template runs; worker is what runs in it
"""
