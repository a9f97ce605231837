"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const tip = document.getElementById("tip");
const words = (value, percent) => value === null || value === undefined ? "–"
  : percent ? (100 * value).toPrecision(3) + "%" : String(Number(value.toPrecision(4)));

function hover(svg) {
  const chart = data[svg.dataset.chart];
  const [left, right, top, bottom] = svg.dataset.plot.split(" ").map(Number);
  const from = Number(svg.dataset.from), to = Number(svg.dataset.to);
  const xs = [...new Set(chart.x.flat())].sort((a, b) => a - b);
  const at = x => left + (x - from) / (to - from) * (right - left);
  const cursor = svg.querySelector("line").cloneNode();
  let place = xs.length - 1;
  cursor.setAttribute("class", "cursor");
  cursor.setAttribute("y1", top);
  cursor.setAttribute("y2", bottom);
  const nearest = wanted => xs.reduce((best, x, i) => Math.abs(x - wanted) < Math.abs(xs[best] - wanted) ? i : best, 0);
  const hide = () => { tip.hidden = true; cursor.remove(); };
  const show = () => {
    const x = xs[place], lines = [chart.x_label + " " + Number(x.toPrecision(6))];
    for (const line of chart.lines) {
      const i = chart.x[line.x].indexOf(x);
      if (i < 0) continue;
      const spread = line.low && line.low[i] !== null
        ? " [" + words(line.low[i], chart.percent) + ", " + words(line.high[i], chart.percent) + "]" : "";
      lines.push(line.label + ": " + words(line.y[i], chart.percent) + spread);
    }
    tip.textContent = lines.join("\n");
    cursor.setAttribute("x1", at(x));
    cursor.setAttribute("x2", at(x));
    svg.append(cursor);
    tip.hidden = false;
    const box = svg.getBoundingClientRect(), scale = box.width / svg.viewBox.baseVal.width;
    const wide = document.documentElement.clientWidth, px = box.left + at(x) * scale;
    tip.style.left = Math.max(4, px + tip.offsetWidth + 12 > wide ? px - tip.offsetWidth - 10 : px + 10) + "px";
    tip.style.top = Math.max(4, box.top + 8) + "px";
  };
  svg.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    place = nearest(from + (x - left) / (right - left) * (to - from));
    show();
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", event => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") hide();
    if (step === undefined) return;
    event.preventDefault();
    place = Math.min(Math.max(place + step, 0), xs.length - 1);
    show();
  });
  svg.setAttribute("tabindex", "0");
}

function toggles(figure) {
  for (const item of figure.querySelectorAll(".legend li")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...item.childNodes);
    item.append(button);
    button.setAttribute("aria-pressed", "true");
    button.addEventListener("click", () => {
      const off = item.classList.toggle("off");
      button.setAttribute("aria-pressed", String(!off));
      const colour = [...item.classList].find(name => /^c\d$/.test(name));
      for (const group of figure.querySelectorAll("svg g." + colour)) group.toggleAttribute("hidden", off);
    });
  }
}

for (const svg of document.querySelectorAll("svg[data-chart]")) hover(svg);
for (const figure of document.querySelectorAll("figure")) toggles(figure);
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open]):not(.all)")];
  for (const one of closed) one.open = true;
});
addEventListener("afterprint", () => { for (const one of closed) one.open = false; });
