"""Labelled clips: `clips` (the table and its reader), `folds` (splits that keep groups whole).

Reading a source takes three steps, one file each: `layouts` finds the rows, `labels` decides what
kind of task they are, `groups` finds which clips belong together.
"""
