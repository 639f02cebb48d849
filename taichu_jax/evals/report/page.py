"""The report's frame: one HTML file that needs nothing else, with its style and its few lines of code."""

from __future__ import annotations

import base64
import functools
import html
import pathlib

import numpy as np
import soundfile

MIME = {".png": "image/png", ".webp": "image/webp", ".mp3": "audio/mpeg", ".flac": "audio/flac"}
BARS = 28  # of a drawn recording


def esc(value: object) -> str:
    """Text that is safe between tags and in attributes."""
    return html.escape(str(value), quote=True)


class Media:
    """Embeds files; a recording that is used often is stored once.

    Args:
      folder: RUN/evaluation.
    """

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        self._clips: dict[tuple[str, str], str] = {}
        self._sounds: list[str] = []

    def picture(self, evaluation: str, name: str, label: str = "", cls: str = "") -> str:
        data = _data_uri(self._folder / evaluation / name)
        return f'<img class="{cls}" src="{data}" alt="{esc(label)}" loading="lazy">'

    def clip(self, evaluation: str, name: str, label: str = "play") -> str:
        """A button with the recording's shape."""
        key = (evaluation, name)
        path = self._folder / evaluation / name
        if key not in self._clips:
            self._clips[key] = f"clip{len(self._clips)}"
            self._sounds.append(
                f'<audio id="{self._clips[key]}" preload="none" src="{_data_uri(path)}"></audio>'
            )
        shape, seconds = _shape(path)
        return (
            f'<button class="clip" data-clip="{self._clips[key]}" aria-label="{esc(label)}, '
            f'{seconds:.1f} seconds"><span class="knob"></span>{shape}'
            f"<small>{seconds:.1f} s</small></button>"
        )

    def sounds(self) -> str:
        return "".join(self._sounds)


def page(
    title: str,
    sections: list[tuple[str, str, str]],
    head: str,
    sounds: str,
    footer: str = "Written by <code>launch/evaluate.py</code> from the files of the run; nothing here "
    "was computed anew.",
) -> str:
    """The file's text.

    Args:
      sections: (anchor, title, content).
      head: the content above them.
      sounds: audio elements.
      footer: the line at the end.
    """
    links = "".join(f'<a href="#{a}">{esc(t)}</a>' for a, t, _ in sections)
    body = "".join(
        f'<section id="{a}"><h2>{esc(t)}</h2>{content}</section>' for a, t, content in sections
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{esc(title)}</title><style>{CSS}</style></head><body>'
        f'<header>{head}</header><nav><div>{links}<button id="theme" aria-label="light or dark">'
        f"◐</button></div></nav><main>{body}</main><footer>{footer}</footer>{sounds}<script>{SCRIPT}</script></body></html>\n"
    )


@functools.lru_cache(maxsize=4096)
def _data_uri(path: pathlib.Path) -> str:
    return f"data:{MIME[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


@functools.lru_cache(maxsize=4096)
def _shape(path: pathlib.Path) -> tuple[str, float]:
    """(SVG of the loudness over time, seconds)."""
    wave, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    loud = np.array([np.abs(part).max(initial=0.0) for part in np.array_split(wave[:, 0], BARS)])
    loud = np.maximum(loud / max(loud.max(), 1e-6), 0.08)
    path_data = "".join(
        f"M{3 * i + 1.5} {12 - 11 * x:.1f}v{22 * x:.1f}" for i, x in enumerate(loud)
    )
    return f'<svg viewBox="0 0 {3 * BARS} 24"><path d="{path_data}"/></svg>', len(wave) / rate


CSS = """
:root{color-scheme:light dark;--bg:#f6f5f1;--card:#fff;--ink:#1b1c20;--soft:#62646d;--line:#e3e1da;
--accent:#3d5afe;--accent2:#e8710a;--good:#12805c;--goodbg:#e3f4ec;--bar:#d9dffc;--track:#ecebe5;
--shadow:0 1px 2px #0000000a,0 6px 24px #0000000d;--c0:#3d5afe;--c1:#e8710a;--c2:#12805c;--c3:#a63fd6;
--c4:#c2255c;--c5:#087f8c}
@media(prefers-color-scheme:dark){:root:not([data-theme=light]){--bg:#121317;--card:#1b1d23;--ink:#ecedf1;
--soft:#9a9daa;--line:#2c2f38;--accent:#8c9eff;--accent2:#ffab5e;--good:#5fd3a5;--goodbg:#17352b;
--bar:#333d75;--track:#282b33;--shadow:none;--c0:#8c9eff;--c1:#ffab5e;--c2:#5fd3a5;--c3:#d59bf6;
--c4:#ff86ab;--c5:#5fd0dc}}
:root[data-theme=dark]{color-scheme:dark;--bg:#121317;--card:#1b1d23;--ink:#ecedf1;--soft:#9a9daa;
--line:#2c2f38;--accent:#8c9eff;--accent2:#ffab5e;--good:#5fd3a5;--goodbg:#17352b;--bar:#333d75;
--track:#282b33;--shadow:none;--c0:#8c9eff;--c1:#ffab5e;--c2:#5fd3a5;--c3:#d59bf6;--c4:#ff86ab;
--c5:#5fd0dc}
:root[data-theme=light]{color-scheme:light}
*{box-sizing:border-box}
html{scroll-behavior:smooth;scroll-padding-top:64px}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.55 system-ui,-apple-system,"Segoe UI",
Roboto,"Noto Sans","DejaVu Sans",sans-serif;-webkit-text-size-adjust:100%}
header,main,nav>div,footer{max-width:1180px;margin:0 auto;padding:0 24px}
header{padding-top:56px;padding-bottom:28px}
h1{font-size:clamp(28px,5vw,44px);line-height:1.1;letter-spacing:-.02em;margin:0 0 10px}
h2{font-size:24px;letter-spacing:-.01em;margin:0 0 6px}
h3{font-size:16px;margin:28px 0 10px}
p{margin:0 0 14px;max-width:74ch}
.lead{font-size:17px;color:var(--soft)}
.note{color:var(--soft);font-size:14px}
code{font:.9em ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.badge{display:inline-block;border-radius:99px;padding:2px 12px;font-size:13px;font-weight:600;
background:var(--goodbg);color:var(--good);margin:0 8px 8px 0}
.badge.warn{background:var(--accent2);color:#201200}
.facts{display:flex;flex-wrap:wrap;gap:1px;background:var(--line);
border:1px solid var(--line);border-radius:14px;overflow:hidden;margin-top:20px}
.facts div{background:var(--card);padding:12px 16px;flex:1 1 150px}
.facts dt,.tile small{font-size:12px;line-height:1.4;color:var(--soft)}
.tile small{display:block;margin-top:4px}.tile small b{display:block;font-size:13px;color:var(--ink);
letter-spacing:0;margin-bottom:2px}
.facts dd{margin:0;font-weight:600;overflow-wrap:anywhere}
.facts .wide{flex-basis:100%}.facts .wide dd{font-weight:400}
nav{position:sticky;top:0;z-index:5;background:color-mix(in srgb,var(--bg) 88%,transparent);
backdrop-filter:blur(10px);border-bottom:1px solid var(--line)}
nav>div{display:flex;gap:18px;align-items:center;overflow-x:auto;height:48px;white-space:nowrap}
nav a{color:var(--soft);text-decoration:none;font-size:14px;font-weight:500}
nav a:hover{color:var(--ink)}
#theme{margin-left:auto;border:0;background:none;color:var(--soft);font-size:20px;cursor:pointer}
section{padding:44px 0 40px}
section+section{border-top:1px solid var(--line)}
footer{padding-top:36px;padding-bottom:48px;color:var(--soft);font-size:13px}
.card{background:var(--card);border:1px solid var(--line);border-radius:14px;box-shadow:var(--shadow)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(158px,1fr));gap:14px;margin:22px 0 4px}
.tile{padding:14px 16px}
.tile b{display:block;font-size:28px;line-height:1.2;letter-spacing:-.02em;
font-variant-numeric:tabular-nums}
.tile b i{font-style:normal;font-size:15px;color:var(--soft)}
.grid{display:grid;gap:14px}
.charts{grid-template-columns:repeat(auto-fill,minmax(260px,1fr))}
.chart{padding:12px 14px 6px}
.chart h4{margin:0;font-size:14px;display:flex;justify-content:space-between;gap:8px}
.chart h4 span:first-child{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.chart h4 small{display:block;color:var(--soft);font-weight:400}
.chart h4{align-items:end;min-height:40px}
.chart h4 .warn{background:var(--accent2);color:#201200!important;border-radius:5px;padding:0 6px}
.chart h4 span:last-child{font-variant-numeric:tabular-nums;color:var(--c0)}
.chart svg{display:block;width:100%;height:auto;overflow:visible}
.chart .raw{fill:none;stroke:var(--c0);opacity:.22;stroke-width:1}
.chart .line{fill:none;stroke:var(--c0);stroke-width:1.8;stroke-linejoin:round}
.chart .rule{stroke:var(--line)}.chart text{fill:var(--soft);font-size:9.5px}
.scroll{overflow-x:auto;margin:0 -4px;padding:0 4px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
.card>table,.scroll.card table{border-radius:14px}
th{font-size:12px;color:var(--soft);font-weight:600;text-align:right;padding:10px 12px;white-space:nowrap}
td{padding:8px 12px;border-top:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left}
tr.base td{color:var(--soft)}
tr.total td{font-weight:600}
.num{display:grid;grid-template-columns:52px minmax(56px,1fr);gap:10px;align-items:center}
.num em{font-style:normal}
.meter{position:relative;height:9px;border-radius:5px;background:var(--track);min-width:56px}
.meter i{position:absolute;inset:0 auto 0 0;border-radius:5px;background:var(--c0)}
.base .meter i{background:var(--soft);opacity:.55}
.meter u{position:absolute;top:-3px;bottom:-3px;width:2px;background:var(--accent2)}
.meter s{position:absolute;top:4px;height:1.5px;background:var(--ink);opacity:.7}
.key{display:inline-block;width:2px;height:12px;background:var(--accent2);vertical-align:-1px;
margin:0 4px}
details{margin:12px 0}summary{cursor:pointer;color:var(--accent);font-size:14px;font-weight:500}
.tag{display:inline-flex;align-items:center;gap:5px;font-weight:600}
.tag svg{width:17px;height:17px;fill:none;stroke:currentColor;stroke-width:1.7;stroke-linecap:round;
stroke-linejoin:round}
.tag .arrow{color:var(--soft);font-weight:400}
.mtext{color:var(--c0)}.mimage{color:var(--c2)}.maudio{color:var(--c1)}.off{opacity:.16}
.ask{display:grid;grid-template-columns:190px 1fr;gap:18px;padding:14px;margin-bottom:12px}
.q{border-right:1px solid var(--line);padding-right:18px;display:flex;flex-direction:column;gap:8px}
.q .lang{font-size:12px;color:var(--soft)}
.found{display:grid;grid-template-columns:repeat(auto-fill,minmax(132px,1fr));gap:10px;align-content:start}
.item{position:relative;border:1px solid var(--line);border-radius:10px;padding:9px;display:flex;
flex-direction:column;gap:6px;font-size:13.5px;line-height:1.35;background:var(--card);min-height:64px}
.item.right{border-color:var(--good);background:var(--goodbg);box-shadow:0 0 0 1px var(--good)}
.item.late{border-style:dashed;border-color:var(--good)}
.item .meta{display:flex;justify-content:space-between;font-size:11.5px;color:var(--soft);margin-top:auto;
font-variant-numeric:tabular-nums}
.item.right .meta b{color:var(--good)}
.words{overflow-wrap:anywhere}
.pic{width:100%;max-width:112px;aspect-ratio:1;object-fit:contain;border-radius:8px;background:#fff;
padding:4px;align-self:center;border:1px solid var(--line)}
.rank{display:inline-block;font-size:12px;font-weight:600;border-radius:99px;padding:1px 9px;
background:var(--track);color:var(--soft);align-self:flex-start}
.rank.top{background:var(--goodbg);color:var(--good)}
.clip{display:flex;align-items:center;gap:8px;width:100%;max-width:190px;border:1px solid var(--line);
border-radius:99px;background:var(--bg);color:inherit;padding:4px 10px 4px 5px;cursor:pointer;
font:inherit}
.clip:hover{border-color:var(--c1)}
.knob{flex:none;width:24px;height:24px;border-radius:50%;background:var(--c1);position:relative}
.knob:before{content:"";position:absolute;left:9px;top:6.5px;border:5.5px solid transparent;
border-left:8px solid var(--card);border-right:0}
.clip.on .knob:before{left:8px;top:8px;border:0;width:8px;height:8px;background:var(--card)}
.clip svg{flex:1;min-width:20px;height:20px}.clip path{stroke:var(--c1);stroke-width:1.6;
stroke-linecap:round;fill:none;opacity:.75}
.clip small{font-size:11px;color:var(--soft);white-space:nowrap}
.caps{grid-template-columns:repeat(auto-fill,minmax(330px,1fr))}
.cap{padding:14px;display:grid;grid-template-columns:112px 1fr;gap:14px}
.cap .side{display:flex;flex-direction:column;gap:8px}
.cap dl{margin:0}.cap dt{font-size:12px;color:var(--soft);margin-top:7px}.cap dt:first-child{margin-top:0}
.cap dd{margin:0;overflow-wrap:anywhere}.cap dd.ref{font-weight:600}
.same{background:var(--goodbg);color:var(--good);border-radius:4px;padding:0 3px;margin:0 -3px}
.recs{grid-template-columns:repeat(auto-fill,minmax(330px,1fr))}
.rec{padding:12px;display:grid;grid-template-columns:repeat(3,1fr);gap:8px}
.rec figure,.spec figure{margin:0}.rec figcaption,.spec figcaption{font-size:12px;color:var(--soft);
margin-bottom:3px}
.pixels{width:100%;image-rendering:pixelated;border-radius:6px;display:block;border:1px solid var(--line)}
.specs{grid-template-columns:repeat(auto-fill,minmax(330px,1fr))}
.spec{padding:14px;display:grid;gap:9px}
.spec .pixels{height:92px;width:100%}
.spec .top{display:flex;justify-content:space-between;align-items:center;gap:12px}
.gens{grid-template-columns:repeat(auto-fill,minmax(min(100%,480px),1fr))}
.gen{padding:14px;display:grid;gap:12px;align-content:start}.gen figure{margin:0;min-width:0}
.gen .top{display:flex;justify-content:space-between;gap:12px}.gen .top small{color:var(--soft)}
.gen .top .words{font-weight:600}.gen figcaption{font-size:12px;color:var(--soft);font-weight:400;
display:flex;gap:3px;margin-bottom:3px}.gen .strip{display:grid;gap:8px;
grid-template-columns:repeat(auto-fill,minmax(78px,1fr))}
.gen .strip.audio{grid-template-columns:repeat(auto-fill,minmax(132px,1fr))}
.gen .strip.audio .pixels{height:64px;margin-top:5px}
@media(max-width:680px){header{padding-top:32px}.ask{grid-template-columns:1fr}.q{border-right:0;
padding-right:0;border-bottom:1px solid var(--line);padding-bottom:12px}header,main,nav>div,footer{
padding-left:16px;padding-right:16px}.num{grid-template-columns:46px}.num .meter{display:none}
td,th{padding-left:8px;padding-right:8px}}
@media print{nav,#theme{display:none}details{display:block}}
"""

SCRIPT = """
(()=>{const r=document.documentElement;document.getElementById('theme').onclick=()=>{
const dark=r.dataset.theme?r.dataset.theme==='dark':matchMedia('(prefers-color-scheme:dark)').matches;
r.dataset.theme=dark?'light':'dark'};let on=null;
const stop=()=>{if(on){on.a.pause();on.a.currentTime=0;on.b.classList.remove('on');on=null}};
document.addEventListener('click',e=>{const b=e.target.closest('.clip');if(!b)return;
const again=on&&on.b===b;stop();if(again)return;const a=document.getElementById(b.dataset.clip);
on={a,b};b.classList.add('on');a.onended=stop;a.play()})})()
"""
