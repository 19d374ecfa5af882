"""A table at the end of ``make test-agents``: what each program was seen to do, and which could not be tried."""

from __future__ import annotations

from collections import defaultdict

import pytest

from tests.agents.clis import CLIS, installed

COLUMNS = ("landed", "usage", "cost", "secret", "killed", "conversation", "quota", "context", "outage", "mayor")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests have noted of each program; what they have not noted did not happen."""
    noted: dict[str, dict[str, str]] = defaultdict(dict)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport) and report.when == "call":
                found = dict(report.user_properties)
                noted[str(found.pop("agent", ""))] |= {name: str(value) for name, value in found.items()}
    if not any(name in noted for name in (cli.name for cli in CLIS)):
        return
    rows: list[tuple[str, ...]] = [("program", "version", *COLUMNS)]
    for cli in CLIS:
        about = installed(cli.name)
        seen = [noted[cli.name].get(column, "-") for column in COLUMNS]
        rows.append((cli.name, about.get("version", "missing"), *seen))
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    terminalreporter.section("agent programs")
    for row in rows:
        terminalreporter.write_line(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        )
