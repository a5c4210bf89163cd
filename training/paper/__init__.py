"""The comparison of ``training/PAPER.md``: which runs it needs, each made once, resumable, its result a file."""
