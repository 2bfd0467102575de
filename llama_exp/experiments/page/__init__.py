"""The page of an experiment, from what its runs left; the same files make the same page.

gather.py     all that is known, as data        history.py    machine, time, interruptions, commands
claims.py     verdicts and their reasons        check.py      a program that reads one number's runs by itself
runs.py       means of each arm                 picture.py    what a verdict rests on
clean.py      no path of this machine           write.py      all of it in files, and the index
"""

from llama_exp.experiments.page.write import write_page

__all__ = ["write_page"]
