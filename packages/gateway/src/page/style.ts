/** The style of the page: light or dark like the reader's system, and in one column on a phone. */
export const style = `
:root { color-scheme: light dark; --ink: #1b2430; --soft: #5b6774; --line: #dde3ea; --paper: #f6f8fa; --card: #fff;
  --fill: #2f6feb; --button: #1f5fd6; --low: #c9372c; --warn: #9a6700; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6ebf1; --soft: #9aa7b4; --line: #2d3743; --paper: #0f141a; --card: #161d26; --fill: #5b93ff;
    --low: #ff7b72; --warn: #e3b341; }
}
* { box-sizing: border-box; }
[hidden] { display: none; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.45 system-ui, sans-serif; }
header, main { max-width: 76rem; margin: 0 auto; padding: 0 1rem; }
header { display: flex; align-items: baseline; justify-content: space-between; gap: 1rem; padding-top: 1rem; }
h1 { font-size: 1.25rem; margin: 0; }
h2 { font-size: .95rem; margin: 0 0 .6rem; }
#state { margin: 0; color: var(--soft); }
#state.lost { color: var(--low); }
section { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .9rem 1rem; margin: 1rem 0; }
form { width: min(30rem, 100% - 2rem); margin: 3rem auto; padding: 1.2rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .5rem; }
form label { font-weight: 600; }
form div { display: flex; flex-wrap: wrap; gap: .5rem; margin: .6rem 0; }
form input { flex: 1 1 12rem; min-width: 0; font: inherit; color: inherit; background: var(--paper); padding: .45rem .6rem;
  border: 1px solid var(--soft); border-radius: .35rem; }
form button { font: inherit; color: #fff; background: var(--button); padding: .45rem .9rem; border: 0; border-radius: .35rem;
  cursor: pointer; }
form input:focus-visible, form button:focus-visible, form select:focus-visible { outline: 2px solid var(--fill); outline-offset: 2px; }
form p { font-size: .9rem; }
form.line { display: flex; flex-wrap: wrap; align-items: center; gap: .4rem .6rem; width: auto; margin: 0 0 .6rem; padding: 0; border: 0; }
form.line[hidden] { display: none; }
form.line label { display: flex; align-items: center; gap: .4rem; font-weight: 400; font-size: .9rem; color: var(--soft); }
form.line input { flex: 0 1 11rem; }
form.line select { font: inherit; color: inherit; background: var(--paper); padding: .45rem .6rem; border: 1px solid var(--soft);
  border-radius: .35rem; }
#requests table { font-size: .85rem; }
#requests td.name { max-width: 12.5rem; }
form.line .wrong { flex-basis: 100%; min-height: 0; }
.wrong { margin: 0 0 .4rem; color: var(--low); min-height: 1.45em; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)); gap: .5rem 1rem; }
.figures div { display: flex; flex-direction: column; }
.figures b { font-size: 1.5rem; font-variant-numeric: tabular-nums; }
.figures span, .none, .soft { color: var(--soft); }
.none { margin: 0; overflow-wrap: anywhere; }
.pool + .pool { border-top: 1px solid var(--line); margin-top: .8rem; padding-top: .8rem; }
.pool h3 { font-size: .9rem; margin: 0 0 .3rem; overflow-wrap: anywhere; }
.pool h3 .soft { font-weight: 400; }
.pool p { margin: .2rem 0; }
.level { display: grid; grid-template-columns: 8rem 1fr; gap: .2rem .8rem; align-items: center; margin: .35rem 0; }
.level .text { grid-column: 2; color: var(--soft); font-variant-numeric: tabular-nums; font-size: .85rem; }
.level .who { overflow-wrap: anywhere; }
.buttons button { font: inherit; font-size: .85rem; color: inherit; background: var(--paper); padding: .15rem .5rem; margin-right: .4rem;
  border: 1px solid var(--soft); border-radius: .35rem; cursor: pointer; }
.buttons button:focus-visible { outline: 2px solid var(--fill); outline-offset: 2px; }
#cancelling { margin: .6rem 0 0; }
.bar { position: relative; display: flex; height: .6rem; border-radius: .3rem; background: var(--line); overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--fill); }
.bar i.held { opacity: .4; }
.bar i.mark { position: absolute; width: 3px; margin-left: -1px; background: var(--ink); }
.bar.low i { background: var(--low); }
.pause { color: var(--warn); }
.scroll { overflow-x: auto; }
#waiting, #events, #tickets { max-height: 22rem; overflow-y: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 500; }
td.name { max-width: 18rem; overflow: hidden; text-overflow: ellipsis; }
#events td:nth-child(3) { min-width: 9rem; white-space: normal; overflow-wrap: anywhere; }
.number { text-align: right; }
svg { display: block; width: 100%; height: 2.6rem; border-bottom: 1px solid var(--line); }
svg rect { fill: var(--fill); }
.row { display: grid; grid-template-columns: 11rem 1fr 9rem; gap: .2rem .8rem; align-items: end; margin: .35rem 0; font-size: .85rem;
  color: var(--soft); font-variant-numeric: tabular-nums; }
.row.tokens svg { height: 4rem; }
.row.rejected rect { fill: var(--low); }
.row.waited rect { fill: var(--warn); }
.axis { display: flex; justify-content: space-between; margin: 0 9.8rem 0 11.8rem; color: var(--soft); font-size: .8rem; }
@media (max-width: 40rem) { .level { grid-template-columns: 1fr; } .level .text { grid-column: 1; }
  .row { grid-template-columns: 1fr auto; } td.name { max-width: 9rem; } .row svg { grid-column: 1 / -1; grid-row: 2; } .axis { margin: 0; }
  #filter label { flex: 1 1 100%; justify-content: space-between; } #filter input, #filter select { flex: 0 1 70%; } }
summary { display: grid; grid-template-columns: 1.2em 1fr; cursor: pointer; }
summary::before { content: "\\25b8"; }
details[open] > summary::before { content: "\\25be"; }
summary h2 { margin: 0; }
details[open] > summary h2 { margin-bottom: .6rem; }
pre { margin: .4rem 0; padding: .5rem .6rem; background: var(--paper); overflow-x: auto; user-select: all; }
`
