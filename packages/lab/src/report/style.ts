/** The style of a report's page. */
import { variables } from "./theme.ts"

export const style = `
:root{color-scheme:light dark}
${variables(":root")}
*{box-sizing:border-box}
html{scroll-behavior:smooth}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1120px;margin:0 auto;padding:24px 16px 64px}
h1{font-size:26px;line-height:1.2;margin:8px 0 4px}
h2{font-size:20px;margin:40px 0 4px;padding-top:16px;border-top:1px solid var(--line)}
h3{font-size:14px;margin:0 0 6px;font-weight:600}
p{margin:4px 0 12px}
.muted{color:var(--muted)}
.verdict{font-size:18px;line-height:1.45;margin:14px 0;max-width:62em}
section .verdict{font-size:16px;margin:8px 0 14px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:10px;margin:14px 0;padding:0;list-style:none}
.tiles li{background:var(--panel);border:1px solid var(--line);border-radius:8px;padding:10px 12px}
.tiles b{display:block;font-size:21px;line-height:1.25;font-variant-numeric:tabular-nums}
.tiles span{color:var(--muted);font-size:12.5px;line-height:1.35;display:block}
.tiles .good b{color:var(--good)}
.tiles .bad b{color:var(--bad)}
.facts{margin:14px 0;font-size:13px}
.facts dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:2px 14px;margin:8px 0 0}
.facts dt{color:var(--muted)}
.facts dd{margin:0;overflow-wrap:anywhere}
summary{cursor:pointer}
.scenario{border-top:1px solid var(--line)}
.scenario>summary{padding:10px 0;line-height:1.4}
.scenario>summary h2{display:inline;border:0;margin:0 6px 0 0;padding:0;font-size:16px}
.scenario>summary span{font-size:13px}
code{font-size:12px;overflow-wrap:anywhere}
nav{display:flex;flex-wrap:wrap;gap:6px 14px;margin:12px 0}
a{color:var(--c1)}
:focus-visible{outline:2px solid var(--c1);outline-offset:2px}
.scroll{overflow-x:auto;-webkit-overflow-scrolling:touch;background:linear-gradient(270deg,var(--paper) 40%,transparent) right/48px 100% no-repeat local,linear-gradient(270deg,var(--wait),transparent) right/20px 100% no-repeat scroll}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:13px;width:100%;white-space:nowrap}
th,td{padding:4px 10px;text-align:right;border-bottom:1px solid var(--line);vertical-align:top}
th:first-child{text-align:left;position:sticky;left:0;background:var(--paper)}
thead th{color:var(--muted);font-weight:600;vertical-align:bottom}
tbody th{font-weight:400}
tr.us th,tr.us td{font-weight:600}
.why{display:block;color:var(--muted);font-size:11.5px;line-height:1.3;font-weight:400;white-space:normal;max-width:300px}
.whys{display:none;font-size:13px;margin:6px 0}
.whys.always{display:block}
.whys dt{font-weight:600}
.whys dd{margin:0 0 4px;color:var(--muted)}
td.bad,td.lost{color:var(--bad)}
.matrix td small{color:var(--muted);display:block;font-size:11px;line-height:1.1}
.matrix td.near{color:var(--good)}
.matrix thead a{color:inherit}
.matrix thead th{white-space:normal}
figure{margin:0;min-width:0;background:var(--panel);border:1px solid var(--line);border-radius:8px;padding:14px}
figure>div{min-height:60px}
figcaption{color:var(--muted);font-size:12.5px;margin-top:6px}
.grid{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:16px;margin:16px 0}
.wide{grid-column:1/-1}
label{font-size:13px;color:var(--muted)}
select{font:inherit;font-size:14px;color:var(--ink);background:var(--panel);border:1px solid var(--line);border-radius:6px;padding:3px 6px;margin-left:6px}
.key{display:inline-flex;align-items:center;vertical-align:middle;gap:5px;margin-right:12px;white-space:nowrap}
.key i{width:12px;height:12px;border-radius:2px;display:inline-block}
.key i.line{height:3px}
.key i.dot{width:8px;height:8px;border-radius:50%}
.key i.hollow{background:none!important;border:1.5px dashed var(--bad)}
svg{display:block;max-width:100%;overflow:visible}
.figures{margin-top:8px}
.figures .scroll{max-height:320px;overflow:auto;margin-top:8px}
.figures td{text-align:left}
@media (max-width:760px){
.grid{grid-template-columns:minmax(0,1fr)}
main{padding:12px 12px 48px}
figure{padding:10px}
h1{font-size:22px}
.verdict{font-size:16px}
.tiles{grid-template-columns:repeat(2,minmax(0,1fr))}
.facts dl{grid-template-columns:minmax(0,1fr);gap:0}
.facts dd{margin-bottom:6px}
.why{display:none}
.whys{display:block}
th,td{padding:4px 7px}
nav a,summary,select{min-height:32px;display:inline-flex;align-items:center}
summary{display:list-item}
}
@media print{
.choose,.figures,.whys,nav{display:none}
figure,.tiles li,tr{break-inside:avoid}
h2,h3{break-after:avoid}
.key i,.tiles b{print-color-adjust:exact}
.scroll{overflow:visible;background:none}
table{font-size:9px;white-space:normal}
th,td{padding:3px 4px}
th:first-child{position:static}
}
`
