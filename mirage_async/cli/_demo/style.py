"""How the demo's page looks: one stylesheet, for light and dark, for telephones and walls."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f5f4f1; --card: #ffffff; --mat: #eceae5; --line: #dfdcd5; --ink: #1f2023; --soft: #66676c; --bad: #b3261e;
  --tone: 42%; --pale: 92%;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #131417; --card: #1c1e22; --mat: #0e0f11; --line: #2e3137; --ink: #ececee; --soft: #9b9da5; --bad: #ff8a80;
    --tone: 70%; --pale: 20%;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
header, main, footer { max-width: 88rem; margin: 0 auto; padding: 0 clamp(1rem, 3vw, 2.5rem); }
header { padding-top: clamp(1.5rem, 4vw, 3rem); }
h1 { margin: 0; font-size: clamp(1.6rem, 3.5vw, 2.4rem); line-height: 1.15; letter-spacing: -.02em;
  text-wrap: balance; }
header .lead { margin: .6rem 0 0; max-width: 46rem; color: var(--soft); }
.totals { display: flex; flex-wrap: wrap; gap: 1px; margin: 1.5rem 0 0;
  background: var(--line); border: 1px solid var(--line); border-radius: 12px; overflow: hidden; }
.totals div { flex: 1 0 8rem; padding: .7rem 1rem; background: var(--card); }
.totals dt { color: var(--soft); font-size: .8rem; }
.totals dd { margin: 0; font-size: 1.35rem; font-weight: 650; font-variant-numeric: tabular-nums; }
.avatar { margin: 1rem 0 0; padding: .7rem 1rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 12px; overflow-wrap: anywhere; }
h2 { display: flex; align-items: baseline; gap: .6rem; margin: 2.2rem 0 .8rem; font-size: 1.15rem;
  text-transform: capitalize; color: hsl(var(--hue) 55% var(--tone)); }
h2 small { color: var(--soft); font-size: .85rem; font-weight: 400; text-transform: none; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); gap: 1.1rem; }
figure { display: flex; flex-direction: column; margin: 0; background: var(--card); border: 1px solid var(--line);
  border-radius: 12px; overflow: hidden; }
.mat { position: relative; display: grid; place-items: center; aspect-ratio: 4 / 3; padding: .7rem;
  background: var(--mat); }
.mat img { position: absolute; inset: .7rem; width: calc(100% - 1.4rem); height: calc(100% - 1.4rem);
  object-fit: contain; filter: drop-shadow(0 1px 3px rgb(0 0 0 / .3)); }
a.mat:focus-visible { outline: 3px solid hsl(var(--hue) 60% 50%); outline-offset: -3px; }
.none { color: var(--bad); font-size: .9rem; text-align: center; overflow-wrap: anywhere; }
figcaption { display: flex; flex: 1; flex-direction: column; gap: .6rem; padding: .8rem 1rem 1rem; }
.prompt { margin: 0; text-wrap: pretty; overflow-wrap: anywhere; }
.tags { display: flex; flex-wrap: wrap; gap: .3rem; margin: 0; padding: 0; list-style: none; font-size: .78rem; }
.tags li { padding: .05rem .5rem; border-radius: 99px; color: var(--soft); border: 1px solid var(--line); }
.tags li:first-child { color: hsl(var(--hue) 55% var(--tone)); background: hsl(var(--hue) 50% var(--pale));
  border-color: transparent; }
.time { position: relative; height: 6px; margin-top: auto; border-radius: 3px; background: var(--mat);
  overflow: hidden; }
.time i { position: absolute; inset: 0 auto 0 0; min-width: 2px; background: hsl(var(--hue) 60% 52%); }
.time i.queued { opacity: .35; }
.time i.saved { background: var(--soft); }
.facts { display: grid; grid-template-columns: repeat(4, 1fr); gap: .5rem .4rem; margin: 0; font-size: .78rem; }
.facts dt { color: var(--soft); }
.facts dd { margin: 0; font-variant-numeric: tabular-nums; }
.facts .wide { grid-column: span 3; min-width: 0; }
code { font: .95em ui-monospace, monospace; overflow-wrap: anywhere; }
footer { padding-top: 2rem; padding-bottom: 2.5rem; color: var(--soft); font-size: .85rem; }
"""
