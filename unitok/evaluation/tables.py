"""Reports side by side: what may stand in one table, and the table, for terminals and for the README."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from unitok.evaluation.report import Report, read_report
from unitok.files import replacing


class Column(NamedTuple):
    """How one figure stands in a table.

    Attributes:
        title: its heading; an arrow says which way is better.
        scale: 100 for shares that are shown in per cent.
        digits: after the point.
    """

    title: str
    scale: float = 1
    digits: int = 2


COLUMNS = {
    "bits_per_image": Column("bits/image", digits=0),
    "bits_per_pixel": Column("bits/pixel", digits=3),
    "rFID": Column("rFID ↓"),
    "rFD": Column("{} ↓"),  # each rFD-<network> under its own name
    "psnr": Column("PSNR dB ↑"),
    "ssim": Column("SSIM ↑", digits=3),
    "lpips": Column("LPIPS ↓", digits=3),
    "l1": Column("L1 ↓", digits=4),
    "codebook_usage": Column("usage %", 100, 1),
    "codebook_perplexity": Column("perplexity", digits=0),
    "top1": Column("top-1 % ↑", 100, 1),
    "top1_low": Column("95 % from", 100, 1),
    "top1_high": Column("to", 100, 1),
    "top5": Column("top-5 % ↑", 100, 1),
    "chance": Column("chance %", 100, 1),
    "text_to_image_r1": Column("text→image R@1 % ↑", 100, 1),
    "text_to_image_r5": Column("R@5", 100, 1),
    "text_to_image_r10": Column("R@10", 100, 1),
    "image_to_text_r1": Column("image→text R@1 % ↑", 100, 1),
    "image_to_text_r5": Column("R@5", 100, 1),
    "image_to_text_r10": Column("R@10", 100, 1),
    "knn_codes": Column("kNN codes % ↑", 100, 1),
    "knn_encoder": Column("kNN encoder %", 100, 1),
    "linear_codes": Column("linear codes % ↑", 100, 1),
    "linear_encoder": Column("linear encoder %", 100, 1),
    "parameters": Column("parameters", digits=0),
    "encode_gflops": Column("encode GFLOP", digits=1),
    "decode_gflops": Column("decode GFLOP", digits=1),
}


def compare(reports: list[Path], *, force: bool = False) -> None:
    """Print reports as one table; reports of unlike protocols are refused, as their figures say nothing together.

    Args:
        reports: JSONs of `unitok eval`.
        force: put them in one table all the same, with the protocol of each beside it.

    Raises:
        ValueError: unlike protocols, with the first field that differs.
    """
    found = [read_report(path) for path in reports]
    for report, path in zip(found[1:], reports[1:], strict=True):
        if report.protocol_id != found[0].protocol_id and not force:
            field = difference(found[0], report)
            raise ValueError(
                f"{path} follows protocol {report.protocol_id} and {reports[0]} follows {found[0].protocol_id}: "
                f"they differ in {field}. Figures of unlike protocols do not compare; --force prints them all the same"
            )
    print(table(found, show_protocol=force))


def difference(first: Report, second: Report) -> str:
    """The first field in which two protocols differ, with both values."""
    for field in first.protocol:
        if first.protocol[field] != second.protocol.get(field):
            return f"{field}: {_short(first.protocol[field])} against {_short(second.protocol.get(field))}"
    return "nothing"


def by_protocol(reports: Sequence[Report]) -> dict[str, list[Report]]:
    """Reports in groups that may each stand in one table, in the order of their first appearance; most bits first."""
    groups: dict[str, list[Report]] = defaultdict(list)
    for report in reports:
        groups[report.protocol_id].append(report)
    return {
        key: sorted(group, key=lambda report: -float(report.figures.get("bits_per_image", 0)))
        for key, group in groups.items()
    }


def cells(reports: Sequence[Report], show_protocol: bool = False) -> list[list[str]]:
    """Heading and rows; a column that no report has is left out, a figure that one lacks is a dash."""
    names = [name for known in COLUMNS for name in _figures_of(known, reports)]
    heading = ["tokenizer", *(COLUMNS[_known(name)].title.format(name) for name in names)]
    rows = [
        [report.tokenizer, *(_cell(report, name) for name in names), *([report.protocol_id] if show_protocol else [])]
        for report in reports
    ]
    return [heading + (["protocol"] if show_protocol else []), *rows]


def table(reports: Sequence[Report], show_protocol: bool = False) -> str:
    """A Markdown table of the reports, with the protocol's id and count under it."""
    lines = cells(reports, show_protocol)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]

    def written(line: list[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    text = "\n".join([written(lines[0]), rule, *map(written, lines[1:])])
    return text if show_protocol else f"{text}\n\n{caption(reports[0])}"


def caption(report: Report) -> str:
    """One line that says what a table was measured on."""
    protocol, devices = report.protocol, report.about["device"]
    resize = f"shorter side {protocol['resize']} ({protocol['filter']}), " if protocol["resize"] else ""
    networks = ", ".join(protocol["networks"]) or "none"
    if protocol["kind"] == "speed":
        return f"Protocol `{report.protocol_id}`: speed on noise of {protocol['crop']} px; {devices}."
    return (
        f"Protocol `{report.protocol_id}`: {protocol['kind']}, {protocol['count']} photos "
        f"(sha256 {protocol['data'][:10]}), {resize}middle {protocol['crop']} px, networks: {networks}."
    )


def write_between_markers(page: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- name -->` and `<!-- /name -->` in a Markdown page.

    Raises:
        ValueError: the page has no such pair of markers.
    """
    opening, closing = f"<!-- {name} -->", f"<!-- /{name} -->"
    pattern = re.compile(f"{re.escape(opening)}.*?{re.escape(closing)}", re.DOTALL)
    old = page.read_text()
    if not pattern.search(old):
        raise ValueError(f"{page} has no place for this table: write {opening} and {closing} where it belongs")
    with replacing(page) as temporary:
        temporary.write_text(pattern.sub(lambda _: f"{opening}\n{text}\n{closing}", old))


def _figures_of(known: str, reports: Sequence[Report]) -> list[str]:
    if known != "rFD":
        return [known] if any(known in report.figures for report in reports) else []
    return sorted({name for report in reports for name in report.figures if name.startswith("rFD-")})


def _known(name: str) -> str:
    return "rFD" if name.startswith("rFD-") else name


def _cell(report: Report, name: str) -> str:
    column, value = COLUMNS[_known(name)], report.figures.get(name)
    return "-" if value is None else f"{value * column.scale:,.{column.digits}f}"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
