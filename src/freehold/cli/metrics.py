"""The figures of the running server, as /metrics has them. The guide says what one would want to be woken for."""

from __future__ import annotations

import argparse
import sys

from freehold.cli import local


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``freehold metrics``."""
    parser.add_argument("--json", action="store_true", help="each figure with its labels, as a list")


def run(arguments: argparse.Namespace) -> int:
    """Print the page."""
    running = local.home_of(arguments).running()
    page = local.call(running, "GET", "/metrics", timeout=30).read().decode()
    if arguments.json:
        local.print_json(_figures(page))
    else:
        sys.stdout.write(page)
    return 0


def _figures(page: str) -> list[dict[str, object]]:
    from prometheus_client.parser import text_string_to_metric_families

    return [
        {"name": sample.name, "labels": dict(sample.labels), "value": sample.value}
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    ]
