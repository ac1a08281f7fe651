"use strict";
// Reliability: what falls into which bin, and its picture. The laboratory and the report
// share it.

const percent = (value) => (100 * value).toFixed(2);
const SIZE = 260, LEFT = 34, TOP = 14, BARS = 42;
// Bins of fewer rows are drawn faint.
const FEW = 10;

// All that measures and maps of the top class need of the softmax of z / T: the largest
// probability, what it leaves, the second, that of the true class, the sum of squares,
// whether the first and the second class are right, and whether the second comes before
// the first, so that it has a tie.
function summarise(set, T = 1) {
  const { z, codes, n, K } = set;
  const of = {};
  for (const key of ["top", "left", "second", "odds", "truth", "squares", "hit",
    "hit2", "before"]) {
    of[key] = new Float64Array(n);
  }
  for (let i = 0; i < n; i++) {
    const at = i * K;
    let first = 0, next = -1;
    for (let k = 1; k < K; k++) {
      if (z[at + k] > z[at + first]) {
        next = first;
        first = k;
      } else if (next < 0 || z[at + k] > z[at + next]) {
        next = k;
      }
    }
    let others = 0, squares = 0;
    for (let k = 0; k < K; k++) {
      const term = Math.exp((z[at + k] - z[at + first]) / T);
      if (k !== first) others += term;
      squares += term * term;
    }
    const total = 1 + others;
    of.top[i] = 1 / total;
    of.left[i] = others / total;
    of.odds[i] = -Math.log(others);
    of.second[i] = Math.exp((z[at + next] - z[at + first]) / T) / total;
    of.truth[i] = Math.exp((z[at + codes[i]] - z[at + first]) / T) / total;
    of.squares[i] = squares / (total * total);
    of.hit[i] = codes[i] === first ? 1 : 0;
    of.hit2[i] = codes[i] === next ? 1 : 0;
    of.before[i] = next < first ? 1 : 0;
  }
  return { ...of, n, K };
}

function binOf(confidence, nBins) {
  // Bins are closed on the right, and their edges are k / nBins to the last bit.
  let b = Math.min(Math.max(Math.ceil(confidence * nBins) - 1, 0), nBins - 1);
  if (b > 0 && confidence <= b / nBins) b--;
  else if (b < nBins - 1 && confidence > (b + 1) / nBins) b++;
  return b;
}

function binSums(rows, nBins, weight = null) {
  const sums = Array.from({ length: nBins }, () => ({ n: 0, confidence: 0, hits: 0 }));
  for (let i = 0; i < rows.n; i++) {
    const w = weight === null ? 1 : weight[i];
    if (w === 0) continue;
    const bin = sums[binOf(rows.top[i], nBins)];
    bin.n += w;
    bin.confidence += w * rows.top[i];
    bin.hits += w * rows.hit[i];
  }
  return sums;
}

function gapOf(sums, n) {
  return sums.reduce((sum, bin) => sum + Math.abs(bin.confidence - bin.hits), 0) / n;
}

// Where a share of hits would lie by chance (95 %), if `p` were their probability.
function chance(n, p) {
  if (n > 1000) {
    const width = 1.96 * Math.sqrt(p * (1 - p) / n);
    return [Math.max(p - width, 0), Math.min(p + width, 1)];
  }
  const q = Math.min(Math.max(p, 1e-12), 1 - 1e-12);
  let logTerm = n * Math.log(1 - q), sum = Math.exp(logTerm), low = 0, high = 0;
  for (let k = 0; sum < 0.975 && k < n; k++) {
    if (sum < 0.025) low = k + 1;
    logTerm += Math.log((n - k) / (k + 1)) + Math.log(q / (1 - q));
    sum += Math.exp(logTerm);
    high = k + 1;
  }
  return [low / n, high / n];
}

function drawn(name, attributes, content = "") {
  const all = Object.entries(attributes).map(([key, value]) => `${key}="${value}"`);
  return `<${name} ${all.join(" ")}>${content}</${name}>`;
}

const across = (value) => LEFT + value * SIZE, up = (value) => TOP + (1 - value) * SIZE;

function axes(ticks = [0, 0.5, 1]) {
  const parts = [
    drawn("path", { class: "axis", d: `M${across(0)} ${up(1)}V${up(0)}H${across(1)}` }),
    drawn("path", {
      class: "axis diagonal", d: `M${across(0)} ${up(0)}L${across(1)} ${up(1)}` }),
  ];
  for (const tick of ticks) {
    parts.push(
      drawn("text", { x: across(tick), y: up(0) + 14, "text-anchor": "middle" }, tick),
      drawn("text", { x: LEFT - 6, y: up(tick) + 4, "text-anchor": "end" }, tick));
  }
  return parts.join("");
}

function toldOf({ n, confidence, hits }) {
  return `${n.toLocaleString("en")} rows: ${percent(confidence / n)} % sure, `
    + `${percent(hits / n)} % right`;
}

// One bin: its band of chance, its gap and point, its bar; all tell its numbers.
function drawnBin(bin, b, width, most, base) {
  const { n } = bin, confidence = bin.confidence / n, accuracy = bin.hits / n;
  const [low, high] = chance(n, confidence);
  const height = (n / most) * BARS, space = Math.min(1, (width * SIZE) / 2);
  return drawn("g", { opacity: n < FEW ? 0.35 : 1 },
    drawn("rect", { class: "chance", x: across(b * width), y: up(high),
      width: width * SIZE, height: Math.max(up(low) - up(high), 1) })
    + drawn("line", { class: "gap", x1: across(confidence), x2: across(confidence),
      y1: up(confidence), y2: up(accuracy) })
    + drawn("circle", { class: "point", cx: across(confidence), cy: up(accuracy), r: 4 })
    + drawn("rect", { class: "bar", x: across(b * width) + space / 2,
      y: base - height, width: width * SIZE - space, height })
    // The whole column answers to the pointer.
    + drawn("rect", { class: "column", x: across(b * width), y: TOP,
      width: width * SIZE, height: base - TOP }, `<title>${toldOf(bin)}</title>`));
}

function diagram(bins, of = "confidence") {
  const total = bins.reduce((sum, { n }) => sum + n, 0);
  const error = `ECE ${percent(gapOf(bins, total))} %`;
  const base = TOP + SIZE + 22 + BARS;
  const most = Math.max(...bins.map((bin) => bin.n));
  const shown = bins.map((bin, b) => (
    bin.n === 0 ? "" : drawnBin(bin, b, 1 / bins.length, most, base)));
  return drawn("svg", { viewBox: `0 0 ${SIZE + LEFT + 16} ${base + 20}`, role: "img",
    "aria-label": `Reliability diagram, ${error}` },
  drawn("text", { x: across(0.5), y: 10, "text-anchor": "middle" }, error) + axes()
    + shown.join("")
    + drawn("text", { x: across(0.5), y: base + 14, "text-anchor": "middle" },
      `${of}, and how many rows have it`));
}
