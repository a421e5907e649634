"""One HTML page out of many reports: tables, rate plots, pictures; nothing on it is fetched from elsewhere."""

import base64
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from unitok.evaluation.plots import Point, scatter
from unitok.evaluation.report import Report, read_report
from unitok.evaluation.tables import by_protocol, caption, cells, table, write_between_markers
from unitok.files import replacing

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums }
th, td { padding: .25em .7em; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
th { border-bottom: 2px solid #444; white-space: nowrap }
.plots { display: flex; flex-wrap: wrap; gap: 1em } .warning { color: #a33; max-width: 60em }
details { margin: .5em 0 } pre { overflow: auto; background: #f6f6f4; padding: .7em } img { max-width: 100% }
"""
QUALITIES = {
    "rFID": "rFID (lower is better)",
    "psnr": "PSNR in dB (higher is better)",
    "ssim": "SSIM (higher is better)",
}


def report(reports: list[Path], output: Path = Path("report.html"), readme: Path | None = None) -> None:
    """Reports -> one self-contained page; with --readme also the tables between that page's markers.

    Args:
        reports: JSONs of `unitok eval`; each protocol gets a table of its own.
        output: the page.
        readme: a Markdown page with pairs of markers `<!-- table PROTOCOL_ID -->` and `<!-- /table PROTOCOL_ID -->`.
    """
    found = [read_report(path) for path in reports]
    text = page(found, [path.parent for path in reports])
    output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(output) as temporary:
        temporary.write_text(text)
    print(f"{output}: {len(found)} reports, {len(by_protocol(found))} protocols, {len(text) / 1e6:.1f} MB")
    if readme is not None:
        update_readme(readme, found)


def update_readme(readme: Path, reports: Sequence[Report]) -> None:
    """Write the table of each protocol that the page has markers for.

    Raises:
        ValueError: the page has no markers for any of them.
    """
    groups = {f"table {key}": group for key, group in by_protocol(reports).items()}
    wanted = {name: group for name, group in groups.items() if f"<!-- {name} -->" in readme.read_text()}
    if not wanted:
        raise ValueError(f"{readme} has no markers for these reports; write e.g. <!-- {next(iter(groups))} -->")
    for name, group in wanted.items():
        write_between_markers(readme, name, table(group))


def page(reports: Sequence[Report], folders: Sequence[Path]) -> str:
    """The HTML of reports whose pictures lie in these folders."""
    places = {id(report): folder for report, folder in zip(reports, folders, strict=True)}
    groups = list(by_protocol(reports).values())
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Tokenizers compared</title>',
        f"<style>{STYLE}</style></head><body><h1>Tokenizers compared</h1>",
        "<p>Only what stands in one table was measured alike. Fractions are shown in per cent.</p>",
    ]
    for group in groups:
        parts += _section(group, places)
    parts += _semantics(reports)
    return "".join([*parts, "</body></html>\n"])


def _section(group: list[Report], places: dict[int, Path]) -> list[str]:
    heading, *rows = cells(group)
    title, note = group[0].protocol["kind"].capitalize(), caption(group[0]).replace("`", "")
    parts = [f"<h2>{escape(title)}</h2><p>{escape(note)}</p><table><tr>"]
    parts += [f"<th>{escape(cell)}</th>" for cell in heading]
    parts += ["</tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    parts.append("</table>")
    parts += [f'<p class="warning">{escape(text)}</p>' for text in sorted({w for r in group for w in r.warnings})]
    qualities = dict(QUALITIES)
    qualities |= {name: f"{name} (lower is better)" for r in group for name in r.figures if name.startswith("rFD-")}
    parts.append('<div class="plots">')
    for name, title in qualities.items():
        points = [
            Point(r.tokenizer, r.figures["bits_per_image"], r.figures[name])
            for r in group
            if name in r.figures and r.figures.get("bits_per_image", 0) > 0
        ]
        if len(points) > 1:
            parts.append(scatter(f"Rate and distortion: {name}", title, points))
    parts.append("</div>")
    for one in group:
        parts.append(_details(one, places[id(one)]))
    return parts


def _semantics(reports: Sequence[Report]) -> list[str]:
    """The rate-semantics plot of each protocol with zero-shot accuracy."""
    parts = []
    for group in by_protocol(reports).values():
        points = [
            Point(r.tokenizer, r.figures["bits_per_image"], 100 * r.figures["top1"])
            for r in group
            if "top1" in r.figures and r.figures.get("bits_per_image", 0) > 0
        ]
        if points:
            title = f"Rate and semantics ({group[0].protocol_id})"
            parts.append(scatter(title, "zero-shot top-1 in %", points))
    return ["<h2>Rate and semantics</h2>", *parts] if parts else []


def _details(one: Report, folder: Path) -> str:
    picture = ""
    if one.picture and (folder / one.picture).is_file():
        data = base64.b64encode((folder / one.picture).read_bytes()).decode()
        picture = f'<img alt="{escape(one.tokenizer)}: best, median, worst" src="data:image/png;base64,{data}">'
    excluded = f"<p>Excluded: {escape('; '.join(one.excluded))}</p>" if one.excluded else ""
    about = escape(json.dumps({"about": one.about, "protocol": one.protocol}, indent=1))
    opened = " open" if picture else ""
    facts = f"<details><summary>protocol and machine</summary><pre>{about}</pre></details>"
    return f"<details{opened}><summary>{escape(one.tokenizer)}</summary>{picture}{excluded}{facts}</details>"
