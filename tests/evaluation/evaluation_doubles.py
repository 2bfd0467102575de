"""A model that a test can foresee, for what is built on top of scores and texts."""


class Examinee:
    """Scores a text by a table, and writes what a table says."""

    def __init__(self, scores=None, texts=None):
        self.scores, self.texts = scores or {}, texts or {}
        self.tokens, self.num_items, self.watch = 0, 1, None
        self.asked = []

    def score(self, pairs):
        self.asked += pairs
        self.tokens += len(pairs)
        return [(self.scores[pair], False) for pair in pairs]

    def write(self, prompts, max_new_tokens, stop_texts=()):
        self.asked += prompts
        return [self.texts[prompt] for prompt in prompts]
