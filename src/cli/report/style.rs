//! How pages and charts look.

/// Colours and lines of charts.
pub const CHARTS: &str = "\
:root,svg{--paper:#fff;--card:#f7f8fa;--ink:#1b1f24;--dim:#5b6570;--rule:#d9dde2;--h0:#2b6cb0;--h1:#6ea8dc;--h2:#b9d7f0;--h3:#e6eaee;--h4:#fde3b5;--h5:#fbbf6b;--h6:#f08a3c;--h7:#d9480f;--h8:#8f1d0a;--s0:#7a8591;--s1:#c77c02;--s2:#a3508a;--s3:#0072b2;--s4:#00815d;--s5:#b5261e;--s6:#6b5bd2}
@media screen and (prefers-color-scheme:dark){:root,svg{--paper:#14171a;--card:#1c2126;--ink:#e6e9ec;--dim:#9aa5b0;--rule:#39414a;--h0:#58a6f0;--h1:#3c78b0;--h2:#2b5075;--h3:#2d343b;--h4:#5e4b22;--h5:#95691c;--h6:#d4861f;--h7:#ff7f3f;--h8:#ffc4ae;--s0:#8f9aa6;--s1:#f0a830;--s2:#d68abf;--s3:#56b4e9;--s4:#3ecf9e;--s5:#ff7a6e;--s6:#a99bff}}
svg{font:11px system-ui,sans-serif;color-scheme:light dark}
svg text{fill:var(--ink)}
svg .name{fill:var(--dim)}
svg .title{font-size:13px;font-weight:600}
.end{text-anchor:end}
.mid{text-anchor:middle}
.paper{fill:var(--paper)}
.cells{shape-rendering:crispEdges;stroke-width:1}
.h0{--c:var(--h0)}.h1{--c:var(--h1)}.h2{--c:var(--h2)}.h3{--c:var(--h3)}.h4{--c:var(--h4)}.h5{--c:var(--h5)}.h6{--c:var(--h6)}.h7{--c:var(--h7)}.h8{--c:var(--h8)}.bar{--c:var(--s3)}
[class^=h],.bar{fill:var(--c)}
.cells path{fill:none;stroke:var(--c)}
.over{fill-opacity:0}
.bar :hover{opacity:.7}
.over :hover{stroke:var(--ink)}
.axis,.across{fill:none;stroke:var(--rule)}
.mark{stroke:var(--ink);stroke-dasharray:4 3}
.line{fill:none;stroke-width:1.5}
.s0 .line{stroke:var(--s0);stroke-dasharray:2 2}.s1 .line{stroke:var(--s1)}.s2 .line{stroke:var(--s2);stroke-dasharray:7 3}.s3 .line{stroke:var(--s3);stroke-width:2.5}.s4 .line{stroke:var(--s4)}.s5 .line{stroke:var(--s5)}.s6 .line{stroke:var(--s6);stroke-dasharray:9 3 2 3}.bound .line{stroke:var(--ink);stroke-dasharray:4 3}
.limit .line{stroke-width:1.5;stroke-dasharray:4 3}
circle{r:2.5px;fill-opacity:0}
circle:hover{fill-opacity:1;fill:var(--ink)}
";

/// All else of a page.
pub const PAGE: &str = r#"*{box-sizing:border-box}
html{scroll-padding:1rem 0 7rem}
body{margin:0 auto;max-width:1180px;padding:1rem;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif;color-scheme:light dark}
h1{font-size:1.5rem;margin:.3rem 0}
h2{font-size:1.15rem;margin:2rem 0 .3rem}
p{margin:.3rem 0;max-width:75ch;overflow-wrap:anywhere}
.dim,figcaption span{color:var(--dim)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:.6rem;margin:1rem 0;padding:0}
.tiles div{background:var(--card);border:1px solid var(--rule);border-radius:8px;padding:.6rem .8rem}
.tiles dt{color:var(--dim);font-size:.85rem}
.tiles dd{margin:0;font-size:1.3rem;font-weight:600}
.tiles dd small{display:block;font-size:.8rem;font-weight:400;color:var(--dim)}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(430px,100%),1fr));gap:1rem}
figure{margin:0;background:var(--card);border:1px solid var(--rule);border-radius:8px;padding:.7rem;min-width:0}
figure,.plot,tr,.tiles div{break-inside:avoid}
h2,figcaption{break-after:avoid}
figure.wide{grid-column:1/-1}
figure svg{display:block;width:100%;height:auto}
.plot{position:relative;max-width:520px}
.keys label{position:static;pointer-events:none}
.keys input{appearance:none;position:absolute;margin:0;padding:0;border:0;background:none;pointer-events:none;left:calc(var(--l) + var(--i)*var(--w)/var(--n));top:var(--t);width:calc(var(--w)/var(--n));height:var(--h)}
.keys input:focus{outline:2px solid var(--ink);outline-offset:1px;z-index:1}
.keys span{display:none;max-width:1180px}
.keys input:focus+span,.grid tbody:focus-within tr+tr{position:fixed;z-index:2;left:0;right:0;bottom:0;margin:0 auto;padding:.4rem 1rem;background:var(--paper);color:var(--ink);border:1px solid var(--ink);font-size:.85rem}
.keys input:focus+span{display:block}
.grid{position:absolute;display:block;left:var(--l);top:var(--t);width:var(--w);height:var(--h)}
.grid tbody{position:absolute;display:block;left:0;right:0;top:calc(var(--i)/var(--n)*100%);height:calc(100%/var(--n))}
.grid tr{position:absolute;display:flex;inset:0;counter-reset:g -1}
.grid th,.grid td{flex:1;min-width:0;padding:0;border:0;line-height:0}
.grid td{position:relative;counter-increment:g}
.grid input{inset:0;width:100%;height:100%}
.grid b{display:none;font-weight:400;pointer-events:none;white-space:normal}
.grid td:hover{outline:1px solid var(--ink);z-index:1}
.grid td:hover b{display:block;position:absolute;bottom:calc(100% + 5px);left:50%;transform:translateX(-50%);width:max-content;max-width:4.75rem;padding:.1rem .35rem;background:var(--paper);color:var(--ink);border:1px solid var(--ink);border-radius:4px;font-size:.75rem;line-height:1.3;text-align:left}
.grid td:hover b::before{content:var(--r)}
.gpus td:hover b::before{content:var(--r)"G"counter(g)" "}
.grid tbody:focus-within{z-index:2}
.grid tbody:focus-within tr+tr{inset:auto 0 0;max-width:1180px;max-height:40vh;overflow:auto;flex-wrap:wrap;gap:0 .6rem;pointer-events:none}
.grid tbody:focus-within tr+tr::before{content:var(--r);font-weight:600}
.grid tbody:focus-within td{flex:none;line-height:1.4}
.grid tbody:focus-within td:empty{display:none}
.grid tbody:focus-within b{display:inline;font-size:.85rem}
.gpus tbody:focus-within td:nth-child(8n+1) b::before{content:"G"counter(g)": ";color:var(--dim)}
figure.wide .scroll{overflow-x:auto}
figure.wide .plot{max-width:940px;min-width:600px}
figcaption{font-weight:600;margin-bottom:.3rem}
figcaption span{display:block;font-weight:400;font-size:.85rem}
details{margin-top:.4rem;font-size:.85rem}
summary{cursor:pointer;color:var(--dim)}
.table{max-height:24rem;overflow:auto}
table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums}
th,td{padding:.1rem .6rem .1rem 0;text-align:right;border-bottom:1px solid var(--rule);white-space:nowrap}
th:first-child,td:first-child{text-align:left}
.key{display:flex;flex-wrap:wrap;gap:.2rem .9rem;padding:0;margin:.4rem 0;list-style:none;font-size:.85rem}
.key svg{width:14px;height:14px;vertical-align:-2px;margin-right:.3rem}
pre{background:var(--card);border:1px solid var(--rule);border-radius:8px;margin:.4rem 0;padding:.6rem;overflow-x:auto}
@media print{pre{white-space:pre-wrap}body{max-width:none;padding:0;font-size:11px}figure,.tiles div{border-color:#999}.keys{display:none}details:not([open])>summary{display:none}.table{max-height:none}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"#;
