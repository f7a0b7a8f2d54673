"""The style sheet of the status page. Nothing in it comes from elsewhere, and it names nothing outside the page.

Each colour is defined once for a light and once for a dark screen. Text has a contrast of at least 4.5:1 with all that
it is written on, and the marks of charts at least 3:1 (WCAG 2.2, 1.4.3 and 1.4.11); a test computes that.
"""

from cc_slurm_adapter.daemon.markup import Markup

STYLE = Markup("""
:root {
  color-scheme: light dark;
  --ground: #f4f5f7; --surface: #ffffff; --rule: #dfe3e8; --gap: #eceef1;
  --text: #1a2027; --quiet: #566270;
  --good: #17693f; --good-ground: #e5f4ec;
  --warning: #7a4d00; --warning-ground: #fdf1d8;
  --error: #ad1f1f; --error-ground: #fdeaea;
  --lag: #b4510f; --bar: #2f6db3;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #0f1318; --surface: #181e25; --rule: #2d3641; --gap: #212933;
    --text: #e7ebf0; --quiet: #a3aebb;
    --good: #63cd98; --good-ground: #15301f;
    --warning: #f0bd5e; --warning-ground: #35280f;
    --error: #ff9c94; --error-ground: #3c1a1a;
    --lag: #f09a54; --bar: #6ea8e5;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 72rem; padding: clamp(1.25rem, 4vw, 3rem) clamp(1rem, 4vw, 2.5rem);
  background: var(--ground); color: var(--text); overflow-wrap: anywhere;
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif;
}
h1, h2, h3, p, dl, dd, ol, ul { margin: 0; padding: 0; }
h1 { font-size: clamp(1.75rem, 5vw, 2.5rem); line-height: 1.15; letter-spacing: -.02em; margin: .35rem 0 .5rem; }
h2 { font-size: 1.125rem; margin-bottom: .75rem; }
h3 { font-size: 1.0625rem; }
section { margin-top: 2.25rem; }
.quiet, .who, footer { color: var(--quiet); font-size: .875rem; }
.lead { font-size: 1.0625rem; max-width: 75ch; }
.card { background: var(--surface); border: 1px solid var(--rule); border-radius: .75rem; padding: 1.25rem; }
.badge {
  display: inline-block; border-radius: 1rem; padding: .05rem .65rem; font-size: .8125rem; font-weight: 600;
  white-space: nowrap; color: var(--quiet); border: 1px solid var(--rule);
}
.good { color: var(--good); }
.warning { color: var(--warning); }
.error { color: var(--error); }
.badge.good { background: var(--good-ground); border-color: transparent; }
.badge.warning { background: var(--warning-ground); border-color: transparent; }
.badge.error { background: var(--error-ground); border-color: transparent; }

.faults { list-style: none; display: grid; gap: .75rem; }
.faults li { background: var(--surface); border: 1px solid var(--rule); border-radius: .75rem; padding: 1rem 1.25rem; }
.faults li.fault-error { border-left: .3rem solid var(--error); }
.faults li.fault-warning { border-left: .3rem solid var(--warning); }
.faults .text { font-weight: 600; margin: .4rem 0 .15rem; }
.row { display: flex; flex-wrap: wrap; gap: .25rem .75rem; align-items: baseline; }

.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; }
.tiles > div {
  background: var(--surface); border: 1px solid var(--rule); border-radius: .75rem; padding: .9rem 1.25rem;
  display: flex; flex-direction: column-reverse; justify-content: flex-end;
}
.tiles dt { color: var(--quiet); font-size: .875rem; }
.tiles dd { font-size: clamp(1.25rem, 6vw, 1.75rem); line-height: 1.2; font-weight: 600; white-space: nowrap; }
.tiles dd { font-variant-numeric: tabular-nums; }

.stack { display: grid; gap: .75rem; }
.destination { display: grid; grid-template-columns: minmax(13rem, 1fr) minmax(0, 2.2fr); gap: 1.25rem 2.25rem; }
.destination > div { min-width: 0; }
.facts { display: grid; grid-template-columns: minmax(min-content, 1fr) fit-content(65%); gap: .3rem 1.25rem; }
.facts { font-size: .9375rem; margin-top: .75rem; }
.facts dt { color: var(--quiet); overflow-wrap: break-word; }
.facts dd { text-align: right; font-variant-numeric: tabular-nums; }
.why { margin-top: .6rem; font-size: .9375rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr)); gap: .75rem; }
.share { height: .4rem; margin-top: .9rem; border-radius: .2rem; }

svg { display: block; width: 100%; }
.panel { display: grid; grid-template-columns: 3.75rem minmax(0, 1fr); gap: .2rem .6rem; }
.panel + .panel { margin-top: .9rem; }
.panel p { grid-column: 2; font-size: .875rem; color: var(--quiet); }
.panel p::before {
  content: ""; display: inline-block; width: .65rem; height: .65rem; border-radius: .15rem; margin-right: .45rem;
}
.panel p strong { color: var(--text); font-weight: 600; }
.panel.lag p::before { background: var(--lag); }
.panel.deliveries p::before { background: var(--bar); }
.panel.lag svg { height: 7rem; }
.panel.deliveries svg { height: 4rem; }
.axis, .time { display: flex; color: var(--quiet); font-size: .75rem; line-height: 1; }
.axis { flex-direction: column; justify-content: space-between; text-align: right; margin: -.35rem 0; }
.time { position: relative; margin: .5rem 0 0 4.35rem; }
.time span { flex: 1 0 0; }
.time span:not(:first-child):not(:last-child) { transform: translateX(-.5em); }
.time span:last-child { position: absolute; right: 0; }
.note { margin: .6rem 0 0 4.35rem; font-size: .8125rem; color: var(--quiet); }
.line { fill: none; stroke: var(--lag); stroke-width: 2; stroke-linejoin: round; vector-effect: non-scaling-stroke; }
.area { fill: var(--lag); fill-opacity: .14; }
.bar { fill: var(--bar); }
.gap { fill: var(--gap); }
.guide, .base { stroke: var(--rule); stroke-width: 1; vector-effect: non-scaling-stroke; }
.base { stroke: var(--quiet); }
.hint { fill: transparent; }
g:hover > .hint { fill: var(--text); fill-opacity: .1; }
.used { fill: var(--bar); }
.unused { fill: var(--rule); }

table { width: 100%; border-collapse: collapse; font-size: .9375rem; }
caption { text-align: left; color: var(--quiet); font-size: .875rem; padding-bottom: .6rem; }
th, td { text-align: left; vertical-align: baseline; padding: .5rem 1rem .5rem 0; border-top: 1px solid var(--rule); }
th, td.short { overflow-wrap: break-word; }
th.long { overflow-wrap: anywhere; width: 60%; }
th.short, td.short { white-space: nowrap; }
.failure td { border-top: 0; padding-top: 0; color: var(--error); }
thead th { border-top: 0; padding-top: 0; color: var(--quiet); font-weight: 500; font-size: .8125rem; }
tbody th { font-weight: 500; }
th:last-child, td:last-child { padding-right: 0; }
th.number, td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
summary { cursor: pointer; font-weight: 600; }
details[open] summary { margin-bottom: 1rem; }
footer { margin-top: 2.5rem; padding-top: 1rem; border-top: 1px solid var(--rule); }

@media (max-width: 46rem) {
  .destination { grid-template-columns: minmax(0, 1fr); }
  .tiles { grid-template-columns: 1fr 1fr; }
  .card, .tiles > div, .faults li { padding-left: 1rem; padding-right: 1rem; }
  .panel p { grid-column: 1 / -1; margin-bottom: .35rem; }
  .panel { grid-template-columns: 2.75rem minmax(0, 1fr); }
  .time, .note { margin-left: 3.35rem; }
  .optional { display: none; }
  th, td { padding-right: .6rem; }
}
""")
