"""A finished run once more: what differs from then, the same steps again, and how far the results agree.

    original.py   the recorded run: a folder, or an archive that is unpacked
    places.py     recorded paths -> paths on this machine
    present.py    what this machine would record
    tolerance.py  how far rounding alone drives two runs apart
    verdict.py    bit-identical, within tolerance or different
    repeat.py     all of it in order
    pack.py       a run as one portable archive

Everything in a record is data: its config goes through the same checks as a typed one.
"""
