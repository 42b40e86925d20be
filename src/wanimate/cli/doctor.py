"""`wanimate doctor`: what this machine can run, and why."""

from __future__ import annotations

import json

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from . import options as o
from .report import reporting


def doctor(models: o.Models = None, as_json: o.Json = False, debug: o.Debug = False) -> None:
    """Tell what this machine can run: processor, memory, GPUs, detectors, encoders, and which of them is used and why.

    Loads no weights and changes nothing.
    """
    with reporting(False, debug):
        from ..measure.doctor import examine

        report = examine(models)
        if as_json:
            print(json.dumps(report, ensure_ascii=False))
            return
        console = Console(highlight=False)
        marks = {"yes": "[green]yes[/green]", "slow": "[yellow]slow[/yellow]", "no": "[red]no[/red]"}
        machine = Table("what", "found", box=None, header_style="bold", padding=(0, 2))
        for name, found in report["machine"].items():
            machine.add_row(name, escape(str(found)))
        backends = Table("for", "backend", "there", "used", "why", box=None, header_style="bold", padding=(0, 2))
        for b in report["backends"]:
            backends.add_row(
                b["for"],
                b["name"],
                marks["yes" if b["available"] else "no"],
                "●" if b["used"] else "",
                escape(b["why"]),
            )
        jobs = Table("job", "can run", "why", box=None, header_style="bold", padding=(0, 2))
        for job in report["jobs"]:
            jobs.add_row(job["name"], marks[job["verdict"]], escape(job["why"]))
        for table in (machine, backends, jobs):
            console.print(table)
            console.print()
