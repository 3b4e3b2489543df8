"""The page of what fuzzing found."""

from __future__ import annotations

HEAD = """# Fuzzing

<!-- written by 'make fuzz'; run it to have your own -->

Every parser of `freehold scan` under [atheris](https://github.com/google/atheris), which changes bytes and keeps what
reaches new code. It begins with the corpus in `tests/assets` (attack files, near-misses and their members), with
what the parsers' tests judge and what earlier runs kept; inputs have up to 64 KiB. `make fuzz` writes this page.

A parser fails where an exception escapes it, where it gives up by a fault of its own (`scan.fault`), where the bytes
parsed, passed and unjudged do not add up to the file, where the digest is not that of the bytes, where something is
imported, opened or run (which the sealed process could not do), where one input takes more than 5 s of processor time
or 128 MiB of memory, and where one does not come back within 25 s.

"executions" are all inputs, "judged" those that the parser took for its own. "reached" is the part of the parser's
lines and branches that the kept inputs run through; "slowest" and "peak" are of these inputs, outside the fuzzer, the
peak being the whole process's.

"""


def render(results: dict[str, dict], every: list[str]) -> str:
    """The whole page, with the parsers of ``every`` that have no result named."""
    lacking = [name for name in every if name not in results]
    said = f"Not run so far: {', '.join(lacking)}.\n\n" if lacking else ""
    return HEAD + table(results) + "\n\n" + said + findings(results)


def table(results: dict[str, dict]) -> str:
    """A row for each parser."""
    lines = [
        "| parser | date | seconds | executions | judged | reached | kept inputs | slowest, s | peak, MB | found |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {name} | {one['date']} | {one['seconds']:,} | {one['executions']:,} | {one['judged']:,} | "
        f"{one['reached']}% | {one['inputs']:,} | {one['slowest_s']:.2f} | {one['peak_mb']} | {len(one['found'])} |"
        for name, one in results.items()
    ]
    return "\n".join(lines)


def findings(results: dict[str, dict]) -> str:
    """What was found, or that nothing was."""
    lines = ["## Found", ""]
    for name, one in results.items():
        lines += [f"- **{name}**: {_said(found)}" for found in one["found"]]
    return "\n".join([*lines, *([] if len(lines) > 2 else ["Nothing."]), ""])


def _said(found: dict) -> str:
    alone = {True: " It happens outside the fuzzer too.", False: " It does not happen outside the fuzzer."}
    parts = [f"{found['kind']} ({found['says']})." if found["says"] else f"{found['kind']}"]
    parts += [alone[found["again"]]] if "again" in found else []
    parts += [f" {found['bytes']} bytes, called `{found['name']}`."] if "bytes" in found else []
    parts += [f" `{found['hex']}`"] if found.get("hex") else []
    return "".join(parts)
