"""Damage for files: of their bytes, and of the plain data that they hold."""

import copy

VALUES = [
    *(None, True, 0, -1, 3, 2**31, 10**25, -0.5, 1e308, "", "x", "NaN", "Infinity", "\x1b[2J", "é\n" * 50),
    *([], [[]], [1, "x"], {}, {"": {}}, {"step": {"step": []}}),
]
SNIPPETS = [b"\0" * 7, b"\xff\xfe", b"{", b"]", b'"', b",", b"\n", b"[" * 3000, b"9" * 50, b": ", b"NaN", b"\\u"]


def mutated_bytes(draw, content):
    """One to three changes of the bytes."""
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(content) + 1)
        end = min(len(content), at + draw.choice((1, 1, 8, 200)))
        new = draw.choice(
            (
                bytes([draw.randrange(256)]),
                b"",
                content[at:end] * 2,
                draw.choice(SNIPPETS) + content[at:end],
            )
        )
        content = content[:at] + new + content[end:]
    return content[: draw.randrange(len(content) + 1)] if draw.random() < 0.1 else content


def mutated_value(draw, document):
    """One to three values replaced, removed or renamed, anywhere in plain data."""
    document = copy.deepcopy(document)
    for _ in range(draw.randint(1, 3)):
        places = list(places_in(document))
        if not places:
            return document
        parent, key = draw.choice(places)
        kind = draw.random()
        if kind < 0.7:
            parent[key] = copy.deepcopy(draw.choice(VALUES))
        elif kind < 0.9 or isinstance(parent, list):
            del parent[key]
        else:
            parent[draw.choice(("x", "", "step"))] = parent.pop(key)
    return document


def places_in(node):
    for key, child in list(node.items() if isinstance(node, dict) else enumerate(node)):
        yield node, key
        if isinstance(child, (dict, list)):
            yield from places_in(child)
