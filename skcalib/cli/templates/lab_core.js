// What the laboratory computes, without the page: files, fits, measures.
// Formulas are those of the library, which a test compares.

// ---- Files: .npy, .npz and .csv to columns of numbers ----

const KINDS = {
  f4: Float32Array, f8: Float64Array, i1: Int8Array, u1: Uint8Array, i2: Int16Array,
  u2: Uint16Array, i4: Int32Array, u4: Uint32Array, i8: BigInt64Array,
  u8: BigUint64Array, b1: Uint8Array,
};

// Texts of `size` characters, each as four bytes, with zeros behind shorter ones.
function readTexts(bytes, size) {
  const codes = new Uint32Array(bytes.slice().buffer);
  return Array.from({ length: codes.length / size }, (_, i) => String.fromCodePoint(
    ...codes.subarray(i * size, (i + 1) * size).filter((code) => code > 0)));
}

function readNpy(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (String.fromCharCode(...bytes.slice(1, 6)) !== "NUMPY") {
    throw new Error("This is not a NumPy file.");
  }
  const long = bytes[6] > 1;
  const size = long ? view.getUint32(8, true) : view.getUint16(8, true);
  const start = long ? 12 : 10;
  const header = new TextDecoder("latin1").decode(bytes.subarray(start, start + size));
  const [, order, kind] = header.match(/'descr':\s*'([<>|=])(\w+)'/) ?? [];
  const shape = header.match(/'shape':\s*\(([^)]*)\)/)[1].split(",")
    .filter((text) => text.trim()).map(Number);
  if (order === "<" && /^U[1-9]/.test(kind) && shape.length === 1) {
    return { shape, values: readTexts(bytes.subarray(start + size), kind.slice(1)) };
  }
  const Kind = KINDS[kind];
  if (Kind === undefined || order === ">") {
    throw new Error(`Arrays of type ${kind ?? header} are not read; save numbers.`);
  }
  // A copy, so that the numbers lie where their type may begin.
  const read = new Kind(bytes.slice(start + size).buffer);
  const values = Kind.name.startsWith("Big") ? Float64Array.from(read, Number) : read;
  return { shape, values: header.includes("'fortran_order': True")
    ? lastAxisFirst(values, shape) : values };
}

// Values whose first axis runs fastest, put so that the last one does.
function lastAxisFirst(values, shape) {
  const steps = shape.map((_, axis) => shape.slice(0, axis).reduce((a, b) => a * b, 1));
  const out = new values.constructor(values.length);
  for (let i = 0; i < out.length; i++) {
    let rest = i, from = 0;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      from += (rest % shape[axis]) * steps[axis];
      rest = Math.floor(rest / shape[axis]);
    }
    out[i] = values[from];
  }
  return out;
}

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream();
  const inflated = stream.pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(inflated).arrayBuffer());
}

async function readNpz(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let end = bytes.length - 22;
  while (end >= 0 && view.getUint32(end, true) !== 0x06054b50) end--;
  if (end < 0) throw new Error("This archive is damaged.");
  const arrays = {};
  let entry = view.getUint32(end + 16, true);
  for (let left = view.getUint16(end + 10, true); left > 0; left--) {
    const packed = view.getUint16(entry + 10, true) === 8;
    const size = view.getUint32(entry + 20, true);
    const lengths = [28, 30, 32].map((at) => view.getUint16(entry + at, true));
    const name = new TextDecoder().decode(
      bytes.subarray(entry + 46, entry + 46 + lengths[0]));
    const local = view.getUint32(entry + 42, true);
    const data = local + 30 + view.getUint16(local + 26, true)
      + view.getUint16(local + 28, true);
    const raw = bytes.subarray(data, data + size);
    arrays[name.replace(/\.npy$/, "")] = readNpy(packed ? await inflate(raw) : raw);
    entry += 46 + lengths[0] + lengths[1] + lengths[2];
  }
  return arrays;
}

const LABELS = ["y", "label", "labels", "y_true", "target", "targets", "class",
  "ground_truth"];
const SCORES = ["logits", "scores", "probabilities", "proba", "probs", "predictions"];
const INPUTS = ["inputs", "input", "x", "images", "image", "features"];
const FLOOR = 1e-12; // Of probabilities, before their logarithm.

function readCsv(text) {
  const lines = text.split(/\r?\n/).filter((line) => line.trim());
  const cut = lines[0].includes(";") ? ";" : lines[0].includes("\t") ? "\t" : ",";
  const rows = lines.map((line) => line.split(cut).map(
    (cell) => cell.trim().replace(/^"(.*)"$/, "$1")));
  checkCells(rows);
  const header = rows[0].every(isNumber) ? null : rows.shift();
  if (header !== null) checkHeader(header);
  const found = (header ?? []).findIndex((name) => LABELS.includes(name.toLowerCase()));
  const at = found >= 0 ? found : rows[0].length - 1;
  const scoresOf = (row) => row.filter((_, k) => k !== at);
  const labels = rows.map((row) => row[at]);
  const names = header && scoresOf(header);
  if (names !== null) checkScores(names, rows.map(scoresOf), labels);
  const values = rows.flatMap((row) => scoresOf(row).map(Number));
  return { labels, names,
    scores: { shape: [rows.length, rows[0].length - 1], values } };
}

const isNumber = (text) => text.trim() !== "" && !Number.isNaN(Number(text));

function checkCells([first, ...rows]) {
  for (const [i, row] of rows.entries()) {
    if (row.length !== first.length) {
      throw new Error(`Line ${i + 2} has ${row.length} cells, and the first line `
        + `${first.length}. Every column needs a name, or none.`);
    }
    if (row.includes("")) throw new Error(`Line ${i + 2} has an empty cell.`);
  }
}

function checkHeader(header) {
  const unnamed = header.indexOf("");
  if (unnamed >= 0) {
    throw new Error(`Column ${unnamed + 1} has no name. If it is an index saved by `
      + "pandas, write the file with index=False.");
  }
  const twice = header.find((name, k) => header.indexOf(name) < k);
  if (twice !== undefined) throw new Error(`Two columns are called ${twice}.`);
}

// What an index and the predicted class are called that were saved as columns.
const INDEX = new RegExp("^(unnamed.*|__index_level_\\d+__|level_\\d+|#|no\\.?|nr\\.?|rows?"
  + "|row_?names?|(.*[ _.-])?(id|idx|index|number)"
  + "|(row|sample|image|record|item|user)id)$", "i");
const PREDICTION = new RegExp("^(y_?hat|arg_?max"
  + "|(y[ _.-]?)?pred(s|icted|ictions?)?([ _.-]?(class|label))?)$", "i");

function checkScores(names, rows, labels) {
  names.forEach((name, k) => {
    const cells = rows.map((row) => Number(row[k]));
    if (labels.includes(name) || !cells.every(Number.isInteger)) return;
    const areNumbered = cells.length > 1 && new Set(cells).size === cells.length;
    const told = INDEX.test(name) && areNumbered ? "numbers the rows"
      : PREDICTION.test(name) && names.length > 2 ? "holds predicted classes" : null;
    if (told !== null) {
      throw new Error(`The column ${name} ${told}, and no scores. Leave it out.`);
    }
  });
}

function labelName(arrays) {
  const names = Object.keys(arrays);
  return names.find((name) => LABELS.includes(name.toLowerCase()))
    ?? names.find((name) => arrays[name].shape.length === 1);
}

const isScoreName = (name) => SCORES.includes(name.toLowerCase());

function labelsOf(arrays) {
  const name = labelName(arrays);
  if (name === undefined) {
    throw new Error(`The file holds ${Object.keys(arrays).join(", ") || "nothing"}. It `
      + "needs the labels in an array called y.");
  }
  return Array.from(arrays[name].values, String);
}

function splitArrays(arrays) {
  const labels = labelsOf(arrays), names = Object.keys(arrays);
  const matrices = names.filter((name) => arrays[name].shape.length === 2);
  const score = matrices.find(isScoreName) ?? matrices[0];
  if (score === undefined) {
    throw new Error(`The file holds ${names.join(", ")}. It needs a matrix of scores, or `
      + "the network that takes these inputs: drop its .onnx as well.");
  }
  return { labels, scores: arrays[score] };
}

// Rows of scores and the column of the true class of each.
function makeSet({ labels, scores, names = null }, areProbabilities = false) {
  const [n, K] = scores.shape;
  if (n !== labels.length) {
    throw new Error(`${n} rows of scores and ${labels.length} labels do not match.`);
  }
  if (K < 2) throw new Error("One column of scores is not enough: give one a class.");
  const z = Float64Array.from(scores.values);
  for (let i = 0; i < z.length; i++) {
    if (!Number.isFinite(z[i]) || (areProbabilities && z[i] < 0)) {
      throw new Error(`Row ${Math.floor(i / K)} holds ${z[i]}.`);
    }
    if (areProbabilities) z[i] = Math.log(Math.max(z[i], FLOOR));
  }
  return { z, codes: codesOf(labels, names, K), n, K };
}

// The column of each label: that of its name, that of its number, or in sorted order.
function codesOf(labels, header, K) {
  const areNumbers = labels.every(isNumber);
  const plain = (text) => (areNumbers && isNumber(text) ? String(Number(text)) : text);
  const texts = labels.map(plain), present = [...new Set(texts)];
  const areColumns = areNumbers
    && present.every((y) => Number.isInteger(Number(y)) && y >= 0 && y < K);
  let names = namedColumns(present, bareNames(header ?? [], present, plain), areColumns);
  if (names === null && areColumns) return Int32Array.from(texts, Number);
  if (names === null) {
    names = areNumbers ? present.sort((a, b) => a - b) : present.sort();
    if (names.length !== K) {
      throw new Error(`${names.length} different labels do not match ${K} columns.`);
    }
  }
  const column = new Map(names.map((name, k) => [name, k]));
  return Int32Array.from(texts, (text) => column.get(text));
}

// The names of columns if they are those of the labels; null where none is.
function namedColumns(present, names, areColumns) {
  const known = new Set(names), numbers = names.map((_, k) => String(k));
  const missing = present.filter((label) => !known.has(label));
  const areNumbered = names.every((name, k) => name === numbers[k]);
  if (missing.length === present.length || areNumbered) return null;
  if (missing.length > 0) {
    throw new Error(`The labels ${missing.slice(0, 6).join(", ")} are not among the `
      + `columns ${names.slice(0, 6).join(", ")}, and others are. Rename the columns.`);
  }
  if (areColumns && !numbers.every((number) => known.has(number))) {
    throw new Error(`The labels ${present.slice(0, 6).join(", ")} may be names or numbers `
      + `of the columns ${names.slice(0, 6).join(", ")}. Rename the columns.`);
  }
  return names;
}

// Names without what all begin and end with, where the rest are all labels or numbers.
function bareNames(header, present, plain) {
  const names = header.map(plain), wanted = new Set(present);
  if (names.length < 2 || names.some((name) => wanted.has(name))) return names;
  const backwards = header.map((name) => [...name].reverse().join(""));
  for (const i of cutsOf(header)) {
    for (const j of cutsOf(backwards)) {
      const rest = header.map((name) => plain(name.slice(i, name.length - j)));
      const known = new Set(rest);
      const areAll = known.size === wanted.size || rest.every((_, k) => known.has(String(k)));
      if (areAll && present.every((label) => known.has(label))) return rest;
    }
  }
  return names;
}

// The lengths of common beginnings that end in a sign such as _; 0 is the first.
function cutsOf([first, ...others]) {
  const cuts = [0];
  for (let k = 1; k <= first.length; k++) {
    if (!others.every((name) => name.startsWith(first.slice(0, k)))) break;
    if (!/[\p{L}\p{N}]/u.test(first[k - 1])) cuts.push(k);
  }
  return cuts;
}

// Labels and scores of a table; the arrays of an .npz, which may be inputs as well.
async function readFile(file) {
  const name = file.name.toLowerCase();
  if (name.endsWith(".csv") || name.endsWith(".tsv")) {
    return { columns: readCsv(await file.text()) };
  }
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (name.endsWith(".npz")) return { arrays: await readNpz(bytes) };
  throw new Error(`${file.name} is neither .csv nor .npz nor .onnx.`);
}

// ---- Rows ----

function pick(set, rows) {
  const z = new Float64Array(rows.length * set.K);
  rows.forEach((row, i) => {
    z.set(set.z.subarray(row * set.K, (row + 1) * set.K), i * set.K);
  });
  const codes = Int32Array.from(rows, (row) => set.codes[row]);
  return { z, codes, n: rows.length, K: set.K };
}

// Every other row fits, the rest judges.
function halves(set) {
  const even = [], odd = [];
  for (let i = 0; i < set.n; i++) (i % 2 ? odd : even).push(i);
  return [pick(set, even), pick(set, odd)];
}

// Give the top class another probability; the others share the rest as before.
function replaceTop(rows, curve) {
  const out = Object.fromEntries(
    Object.entries(rows).map(([key, v]) => [key, v.slice ? v.slice() : v]));
  for (let i = 0; i < rows.n; i++) {
    const p = rows.top[i], q = curve(rows, i);
    const rest = rows.left[i] > 0 ? (1 - q) / rows.left[i] : 0;
    const second = rows.K === 2 ? 1 - q : rows.second[i] * rest;
    out.truth[i] = rows.hit[i] ? q : rows.truth[i] * rest;
    out.squares[i] = q * q + (rows.squares[i] - p * p) * rest * rest;
    const changes = second > q || (second === q && rows.before[i] === 1);
    out.top[i] = changes ? second : q;
    out.second[i] = changes ? q : second;
    out.hit[i] = changes ? rows.hit2[i] : rows.hit[i];
    out.hit2[i] = changes ? rows.hit[i] : rows.hit2[i];
  }
  return out;
}

// ---- Fits ----

const PRIOR = 8; // Rows that speak for T = 1 beforehand.

// Newton's method on the logarithm of 1/T, kept inside a bracket.
function fitTemperature({ z, codes, n, K }) {
  const slope = (u) => {
    const beta = Math.exp(u);
    let first = 0, second = 0;
    for (let i = 0; i < n; i++) {
      const at = i * K;
      let top = -Infinity;
      for (let k = 0; k < K; k++) if (z[at + k] > top) top = z[at + k];
      let sum = 0, one = 0, two = 0;
      for (let k = 0; k < K; k++) {
        const t = beta * (z[at + k] - top), e = Math.exp(t);
        sum += e;
        one += e * t;
        two += e * t * t;
      }
      const mean = one / sum, gap = mean - beta * (z[at + codes[i]] - top);
      first += gap;
      second += two / sum - mean * mean + gap;
    }
    const pull = Math.tanh(u / 2);
    return [first / n + (PRIOR / n) * pull,
      second / n + (PRIOR / n) * (1 - pull * pull) / 2];
  };
  let low = -30, high = 30, u = 0;
  for (let turn = 0; turn < 100; turn++) {
    const [value, rise] = slope(u);
    if (value > 0) high = u;
    else low = u;
    let next = u - value / rise;
    if (!(rise > 0) || next <= low || next >= high) next = (low + high) / 2;
    if (Math.abs(next - u) < 1e-10) return Math.exp(-next);
    u = next;
  }
  return Math.exp(-u);
}

function fitHistogram(rows, nBins = 15) {
  const hits = new Float64Array(nBins), counts = new Float64Array(nBins);
  for (let i = 0; i < rows.n; i++) {
    const b = binOf(rows.top[i], nBins);
    counts[b] += 1;
    hits[b] += rows.hit[i];
  }
  return (judged, i) => {
    const b = binOf(judged.top[i], nBins);
    return counts[b] > 0 ? hits[b] / counts[b] : (b + 0.5) / nBins;
  };
}

// Pool adjacent violators over the log-odds of the top class; straight lines between.
function fitIsotonic(rows) {
  const order = Array.from(rows.odds.keys()).sort((a, b) => rows.odds[a] - rows.odds[b]);
  const blocks = [];
  for (const i of order) {
    const at = rows.odds[i], last = blocks[blocks.length - 1];
    if (last !== undefined && last.high === at) {
      last.hits += rows.hit[i];
      last.count += 1;
    } else {
      blocks.push({ low: at, high: at, hits: rows.hit[i], count: 1 });
    }
  }
  const pooled = [];
  for (const block of blocks) {
    pooled.push({ ...block });
    while (pooled.length > 1) {
      const [a, b] = pooled.slice(-2);
      if (a.hits * b.count < b.hits * a.count) break;
      pooled.splice(-2, 2, {
        low: a.low, high: b.high, hits: a.hits + b.hits, count: a.count + b.count,
      });
    }
  }
  const knots = [], values = [];
  for (const { low, high, hits, count } of pooled) {
    knots.push(low);
    values.push(hits / count);
    if (high > low) {
      knots.push(high);
      values.push(hits / count);
    }
  }
  return (judged, i) => {
    const x = judged.odds[i];
    let low = 0, high = knots.length - 1;
    if (x <= knots[0]) return values[0];
    if (x >= knots[high]) return values[high];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (knots[middle] <= x) low = middle;
      else high = middle;
    }
    const share = (x - knots[low]) / (knots[high] - knots[low]);
    return values[low] + share * (values[high] - values[low]);
  };
}

// ---- Measures ----

// The same draws every time (mulberry32).
function randomNumbers(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function quantile(sorted, q) {
  const at = q * (sorted.length - 1), low = Math.floor(at);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (at - low) * (sorted[high] - sorted[low]);
}

// 95 % bootstrap interval of the ECE: percentiles, moved down by what draws exceed it by.
function eceInterval(rows, nBins, draws = 100) {
  const random = randomNumbers(1);
  const value = gapOf(binSums(rows, nBins), rows.n);
  const drawn = [];
  for (let d = 0; d < draws; d++) {
    const weight = new Float64Array(rows.n);
    for (let i = 0; i < rows.n; i++) weight[Math.floor(random() * rows.n)] += 1;
    drawn.push(gapOf(binSums(rows, nBins, weight), rows.n));
  }
  drawn.sort((a, b) => a - b);
  const excess = drawn.reduce((a, b) => a + b, 0) / draws - value;
  return [0.025, 0.975]
    .map((q) => Math.min(Math.max(quantile(drawn, q) - excess, 0), 1));
}

function measure(rows, nBins, draws = 0) {
  let loss = 0, brier = 0, hits = 0, confidence = 0;
  for (let i = 0; i < rows.n; i++) {
    loss -= Math.log(Math.max(rows.truth[i], Number.EPSILON));
    brier += rows.squares[i] - 2 * rows.truth[i] + 1;
    hits += rows.hit[i];
    confidence += rows.top[i];
  }
  const sums = binSums(rows, nBins);
  return {
    accuracy: hits / rows.n,
    confidence: confidence / rows.n,
    ece: gapOf(sums, rows.n),
    interval: draws > 0 ? eceInterval(rows, nBins, draws) : null,
    nll: loss / rows.n,
    brier: brier / rows.n / (rows.K === 2 ? 2 : 1),
    bins: sums,
  };
}

// What a Softmax or a scaled network would say where nobody brought data: rows that are
// too sure by a factor of two, from a seed.
function exampleRows(n = 2000, K = 10) {
  const random = randomNumbers(3);
  const values = [], labels = [];
  for (let i = 0; i < n; i++) {
    let best = -Infinity, y = 0;
    for (let k = 0; k < K; k++) {
      const gauss = Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
      const logit = 2.2 * gauss, noisy = logit - Math.log(-Math.log(random()));
      values.push(2 * logit);
      if (noisy > best) [best, y] = [noisy, k];
    }
    labels.push(String(y));
  }
  return { labels, scores: { shape: [n, K], values } };
}
