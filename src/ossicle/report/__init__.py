"""The report of an evaluation: `page` writes it, the other files are its parts."""

from ossicle.report.page import write_report

__all__ = ["write_report"]
