"""A report as one HTML page that opens from the disk, without a network and without anything beside it.

    page.html       the frame, for Jinja     plot.js      scales, axes, what stands beside the pointer
    page.css        light, dark, paper       curves.js    learning curves
    data.py         what the scripts draw    swept.js     the figure over each key
    write.py        all of it in one file    parallel.js  parallel coordinates      tables.js  sort, filter, begin
    claims.py, claims.js, claims.css   where runs state claims: points, fits, intervals

Tables and texts are there without scripts too. Names of runs and values come from anywhere: Jinja escapes them, and the
scripts set them as text only.
"""

from llama_exp.report.page.write import write_page

__all__ = ["write_page"]
