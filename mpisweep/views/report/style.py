"""The style sheet of the report: light and dark, for narrow and wide screens, and for print."""

from __future__ import annotations

__all__ = ["STYLE"]

#: Figures are drawn on white; on a dark screen their lightness is inverted, and black becomes the paper.
STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --paper: #ffffff; --soft: #f2f4f7; --line: #d4d9e0;
  --dim: #57606a; --mark: #fff3d1; --found: #0a4f94; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --paper: #15181d; --soft: #21262d; --line: #3b424c; --dim: #a5afbb;
    --mark: #3b3218; --found: #7db8f0; }
  figure svg, figure img { filter: invert(1) hue-rotate(180deg); mix-blend-mode: screen; }
}
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 1.5rem auto 4rem; padding: 0 1rem;
  color: var(--ink); background: var(--paper); }
h1 { font-size: 1.6rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.8rem 0 .4rem; }
p, ul { margin: .5rem 0; overflow-wrap: anywhere; } ul { padding-left: 1.2rem; }
.found { font-size: 1.15rem; line-height: 1.4; border-left: .25rem solid var(--found); padding-left: .8rem;
  margin: 1rem 0; }
.note, figcaption, caption { color: var(--dim); font-size: .9rem; text-align: left; }
.box { overflow-x: auto; margin: .6rem 0; }
.box:focus-visible { outline: 2px solid var(--found); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; vertical-align: top; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th:first-child { padding-left: .3rem; text-align: left; }
th.text, td.text { text-align: left; } tbody th { font-weight: inherit; }
td.prose { white-space: normal; min-width: 14rem; overflow-wrap: anywhere; }
tr.total td, tr.total th { font-weight: 600; border-bottom: 0; }
tr.baseline td, tr.baseline th { background: var(--mark); }
pre { background: var(--soft); padding: .7rem .8rem; margin: 0; width: max-content; min-width: 100%;
  box-sizing: border-box; font: 13px/1.45 ui-monospace, monospace; }
code { font: .9em ui-monospace, monospace; }
figure { margin: .6rem 0; } figure svg, figure img { display: block; width: 100%; max-width: 58rem;
  min-width: 36rem; height: auto; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
@page { margin: 14mm; }
@media print {
  body { font-size: 9.5pt; max-width: none; margin: 0; padding: 0; }
  h2, h3 { break-after: avoid; } figure, tr, .found { break-inside: avoid; }
  thead { display: table-header-group; } .box { overflow: visible; }
  th, td { padding: .12rem .4rem; white-space: normal; } td.prose { min-width: 0; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; width: auto; font-size: 8pt; }
  section > p { break-after: avoid; }
  figure svg, figure img { width: auto; min-width: 0; max-width: 100%; max-height: 88mm; }
  tr.baseline td, tr.baseline th, pre { print-color-adjust: exact; }
}
"""
