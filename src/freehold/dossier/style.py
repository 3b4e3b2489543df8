"""The style of the page: one column, light and dark, screen and paper. Nothing is fetched, so the fonts are the
reader's own; colours are those of the pictures (`chart.svg`)."""

from freehold.chart import svg

STYLE = """
:root {
  color-scheme: light dark;
  --ground: #ffffff; --ink: #1b1f24; --soft: #59636e; --rule: #e2e6ea; --tint: #f6f7f8;
  --good: #0a6b4a; --bad: #b42318; --open: #7a5a00; --link: #1f5f8b;
  --serif: "Iowan Old Style", "Palatino Linotype", Palatino, "URW Palladio L", P052, "TeX Gyre Pagella", "Book Antiqua",
    Georgia, serif;
  --sans: system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif;
  --mono: ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --ground: #15181c; --ink: #e6e9ed; --soft: #9ba5b0; --rule: #2b3036; --tint: #1c2025;
    --good: #56c596; --bad: #ff8f85; --open: #e3b84d; --link: #7fb8e0;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; scroll-padding-top: 1.5rem; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 1.0625rem/1.6 var(--serif);
  text-rendering: optimizeLegibility; }
main { max-width: 45rem; margin: 0 auto; padding: 4.5rem 1.5rem 5rem; }
h1, h2, h3, p, ul, ol, dl, dd, figure, table { margin: 0; }
h1, h2 { font-weight: 600; line-height: 1.18; letter-spacing: -0.012em; text-wrap: balance; overflow-wrap: anywhere; }
h1 { font-size: 2.35rem; margin-top: 0.9rem; }
h2 { font-size: 1.6rem; }
h2 .no { color: var(--soft); font-weight: 400; margin-right: 0.35em; font-variant-numeric: lining-nums; }
h3 { font: 650 0.95rem/1.4 var(--sans); margin-top: 2.6rem; }
p + p, ul + p, p + ul { margin-top: 0.8rem; }
p, li { text-wrap: pretty; overflow-wrap: break-word; }
a { color: var(--link); text-decoration-thickness: 1px; text-underline-offset: 0.16em; }
code { font: 0.86em/1.5 var(--mono); overflow-wrap: anywhere; }
small { font: inherit; font-size: 0.82rem; }
.eyebrow { font: 0.86rem/1.4 var(--sans); color: var(--soft); display: flex; flex-wrap: wrap; gap: 0.2rem 0.9rem;
  align-items: baseline; }
.eyebrow strong { color: var(--ink); font-weight: 650; }
.outcome { font: 650 0.95rem/1.4 var(--sans); margin-top: 2.4rem; display: flex; gap: 0.5em; align-items: baseline; }
.non-inferior { color: var(--good); }
.inferior { color: var(--bad); }
.undecided { color: var(--open); }
.plain { font-size: 1.16rem; line-height: 1.55; margin-top: 1.1rem; }
.sentence { color: var(--soft); margin-top: 0.8rem; font-style: italic; }
figure { margin-top: 2.2rem; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { font: 0.82rem/1.5 var(--sans); color: var(--soft); margin-top: 0.7rem; }
.narrow { display: none !important; }
.keys { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.2rem, 1fr)); gap: 0 1.6rem; margin-top: 2rem; }
.keys > div { border-top: 1px solid var(--rule); padding: 0.7rem 0 1.1rem; min-width: 0; }
.keys dt { font: 0.8rem/1.35 var(--sans); color: var(--soft); }
.keys dt a { color: inherit; text-decoration: none; }
.keys dt a:hover { text-decoration: underline; }
.keys dd { overflow-wrap: anywhere; }
.keys .value { font-size: 1.3rem; line-height: 1.3; margin-top: 0.15rem;
  font-variant-numeric: tabular-nums lining-nums; }
.keys .note { font: 0.8rem/1.4 var(--sans); color: var(--soft); }
.against { margin-top: 1.6rem; padding: 1.1rem 1.3rem 1.2rem; background: var(--tint); border-radius: 3px; }
.against h2 { font: 650 0.95rem/1.4 var(--sans); letter-spacing: 0; }
.against ul { margin-top: 0.4rem; font-size: 0.98rem; line-height: 1.5; }
ul.points { padding-left: 1.1rem; }
ul.points li { margin-top: 0.45rem; padding-left: 0.15rem; }
ul.points li::marker { color: var(--soft); content: "–  "; }
nav { margin-top: 3rem; font: 0.95rem/1.5 var(--sans); }
nav ol { columns: 2; column-gap: 2.4rem; padding: 0; list-style: none; counter-reset: chapter; }
nav li { break-inside: avoid; padding: 0.28rem 0; counter-increment: chapter; display: flex; gap: 0.7rem; }
nav li::before { content: counter(chapter); color: var(--soft); min-width: 1.3em; text-align: right;
  font-variant-numeric: tabular-nums; }
nav a { color: inherit; text-decoration: none; }
nav a:hover { text-decoration: underline; }
section.chapter { margin-top: 4.2rem; padding-top: 1.5rem; border-top: 1px solid var(--rule); }
section.chapter > h2 + * { margin-top: 1.1rem; }
.part > * + * { margin-top: 1rem; }
.part + .part { margin-top: 2.6rem; }
.part + .part > h3:first-child { margin-top: 0; }
table { border-collapse: collapse; width: 100%; font: 0.9rem/1.5 var(--sans); font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: baseline; padding: 0.5rem 0.9rem 0.5rem 0; overflow-wrap: anywhere; }
th:last-child, td:last-child { padding-right: 0; }
tbody tr { border-top: 1px solid var(--rule); }
table.figures tr:first-child { border-top: 0; }
table.figures th { font-weight: 400; color: var(--soft); width: 33%; }
table.figures .how { color: var(--soft); font-size: 0.78rem; text-align: right; white-space: nowrap; width: 1%; }
table.figures small { display: block; color: var(--soft); line-height: 1.45; }
table.figures .absent { color: var(--open); }
.how a, caption a { color: inherit; }
.how a { margin-left: 0.45em; }
.rows { overflow-x: auto; margin-top: 1.7rem; }
.rows:focus-visible { outline: 2px solid var(--link); outline-offset: 3px; }
caption { text-align: left; font-weight: 650; padding-bottom: 0.45rem; caption-side: top; }
caption small { font-weight: 400; color: var(--soft); margin-left: 0.5em; }
thead th { font-weight: 400; color: var(--soft); font-size: 0.9em; padding-bottom: 0.35rem; white-space: nowrap; }
.rows tbody th { font-weight: 400; }
.rows th, .rows td { overflow-wrap: break-word; }
.rows .number { text-align: right; white-space: nowrap; width: 1%; padding-left: 0.9rem; }
tr.under { border-top: 0; }
tr.under td { padding: 0 0 0.9rem; }
tr.under dl { display: grid; grid-template-columns: 5.6rem 1fr; gap: 0.15rem 0.9rem; border-left: 2px solid var(--rule);
  padding-left: 0.9rem; }
tr.under dt { color: var(--soft); font-size: 0.8rem; line-height: 1.6; }
tr.under dd { font-family: var(--serif); font-size: 0.95rem; }
p.more { font: 0.82rem/1.5 var(--sans); color: var(--soft); margin-top: 0.5rem; }
.redo { font: 0.82rem/1.6 var(--sans); color: var(--soft); margin-top: 2.2rem; padding: 0.55rem 0 0.6rem 0.9rem;
  border-left: 2px solid var(--rule); }
.redo ol { padding: 0; list-style: none; }
.redo li { display: flex; gap: 0.7em; align-items: baseline; }
.redo code { color: var(--ink); }
.redo code span { display: inline-block; max-width: 100%; }
.redo .letter { min-width: 0.8em; }
footer { margin-top: 4.2rem; padding-top: 1.2rem; border-top: 1px solid var(--rule); font: 0.82rem/1.6 var(--sans);
  color: var(--soft); overflow-wrap: anywhere; }
@media screen and (max-width: 40rem) {
  body { font-size: 1rem; }
  main { padding: 2.2rem 1.15rem 3rem; }
  h1 { font-size: 1.75rem; }
  h2 { font-size: 1.4rem; }
  .plain { font-size: 1.06rem; }
  .wide { display: none !important; }
  .narrow { display: block !important; }
  .keys { grid-template-columns: 1fr 1fr; gap: 0 1.1rem; }
  .keys .value { font-size: 1.15rem; }
  nav ol { columns: 1; }
  section.chapter { margin-top: 3rem; }
  table.figures, table.figures tbody, table.figures tr, table.figures th, table.figures td { display: block;
    width: auto; }
  table.figures tr { padding: 0.5rem 0; position: relative; }
  table.figures th, table.figures td { padding: 0; }
  table.figures th { padding-right: 7rem; font-size: 0.86rem; }
  table.figures .how { position: absolute; top: 0.5rem; right: 0; width: auto; }
  thead th { white-space: normal; }
  .rows .number { white-space: normal; min-width: 4.2rem; }
  th, td { padding-right: 0.6rem; }
  tr.under dl { grid-template-columns: 1fr; gap: 0; }
  tr.under dt { margin-top: 0.35rem; }
}
@page { size: A4; margin: 17mm 20mm 19mm;
  @bottom-left { content: "Freehold dossier"; font: 8pt sans-serif; color: #59636e; }
  @bottom-right { content: counter(page) " / " counter(pages); font: 8pt sans-serif; color: #59636e; } }
@media print {
  body { font-size: 10pt; line-height: 1.45; }
  main { max-width: none; padding: 0; }
  a { color: inherit; text-decoration: none; }
  h1 { font-size: 21pt; }
  h2 { font-size: 15pt; }
  h3 { font-size: 9.5pt; margin-top: 6mm; }
  .eyebrow, figcaption, .redo, footer, p.more { font-size: 8pt; }
  .outcome { font-size: 9.5pt; margin-top: 5mm; }
  .plain { font-size: 11pt; line-height: 1.45; margin-top: 3mm; }
  .sentence { margin-top: 2mm; }
  figure { margin-top: 6mm; break-inside: avoid; }
  .keys { grid-template-columns: repeat(4, 1fr); gap: 0 6mm; margin-top: 6mm; }
  .keys > div { padding: 2mm 0 3mm; }
  .keys dt, .keys .note { font-size: 7.5pt; }
  .keys .value { font-size: 12pt; }
  .against { margin-top: 4mm; padding: 3mm 4mm; background: none; border: 1px solid var(--rule); break-inside: avoid; }
  .against h2 { font-size: 9.5pt; }
  .against ul { font-size: 9pt; line-height: 1.4; }
  nav { display: none; }
  .first { break-after: page; }
  section.chapter { margin-top: 9mm; padding-top: 5mm; }
  .first + nav + section.chapter { margin-top: 0; border-top: 0; padding-top: 0; }
  h2, h3, caption, thead { break-after: avoid; }
  tr, .redo, .keys > div, li { break-inside: avoid; }
  .redo { break-before: avoid; margin-top: 5mm; }
  footer { break-before: avoid; margin-top: 5mm; padding-top: 3mm; }
  tr:has(+ tr.under) { break-after: avoid; }
  table { font-size: 8.5pt; }
  table.figures .how { font-size: 7pt; }
  table.figures small, caption small { font-size: 7.5pt; }
  th, td { padding-top: 1.1mm; padding-bottom: 1.1mm; }
  tr.under dd { font-size: 9pt; }
  .rows { overflow: visible; margin-top: 4mm; }
}
"""

WHOLE = " ".join((STYLE + svg.STYLE).split())
