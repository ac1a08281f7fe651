// The page of the laboratory: what is shown, and what answers to it.

const lab = { set: null, fit: null, judge: null, temperature: 1, fitted: 1, nBins: 15 };
const element = (id) => document.getElementById(id);
const percent = (value) => (100 * value).toFixed(2);
const SIZE = 260, LEFT = 34, TOP = 14, BARS = 42;

function drawn(name, attributes, content = "") {
  const all = Object.entries(attributes).map(([key, value]) => `${key}="${value}"`);
  return `<${name} ${all.join(" ")}>${content}</${name}>`;
}

function diagram(rows, nBins) {
  const { bins, ece } = measure(rows, nBins);
  const x = (value) => LEFT + value * SIZE, y = (value) => TOP + (1 - value) * SIZE;
  const width = 1 / nBins, base = TOP + SIZE + 22 + BARS;
  const most = Math.max(...bins.map((bin) => bin.n));
  const parts = [
    drawn("text", { x: x(0.5), y: 10, "text-anchor": "middle" }, `ECE ${percent(ece)} %`),
    drawn("path", { class: "axis", d: `M${x(0)} ${y(1)}V${y(0)}H${x(1)}` }),
    drawn("path", { class: "axis diagonal", d: `M${x(0)} ${y(0)}L${x(1)} ${y(1)}` }),
  ];
  for (const tick of [0, 0.5, 1]) {
    parts.push(
      drawn("text", { x: x(tick), y: y(0) + 14, "text-anchor": "middle" }, tick),
      drawn("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, tick));
  }
  const band = chanceBand(rows, nBins);
  bins.forEach((bin, b) => {
    if (bin.n === 0) return;
    const [low, high] = band[b];
    parts.push(drawn("rect", { class: "chance", x: x(b * width), y: y(high),
      width: width * SIZE, height: Math.max(y(low) - y(high), 1) }));
  });
  bins.forEach((bin, b) => {
    if (bin.n === 0) return;
    const confidence = bin.confidence / bin.n, accuracy = bin.hits / bin.n;
    const told = `${bin.n.toLocaleString("en")} rows: ${percent(confidence)} % sure, `
      + `${percent(accuracy)} % right`;
    const faint = bin.n < 10 ? 0.35 : 1;
    const height = (bin.n / most) * BARS;
    parts.push(drawn("g", { opacity: faint },
      drawn("line", { class: "gap", x1: x(confidence), x2: x(confidence),
        y1: y(confidence), y2: y(accuracy) })
      + drawn("circle", { class: "point", cx: x(confidence), cy: y(accuracy), r: 4 })
      + `<title>${told}</title>`),
      drawn("rect", { class: "bar", x: x(b * width) + 0.5, y: base - height,
        width: width * SIZE - 1, height }, `<title>${told}</title>`));
  });
  parts.push(drawn("text", { x: x(0.5), y: base + 14, "text-anchor": "middle" },
    "confidence, and how many rows have it"));
  return drawn("svg", { viewBox: `0 0 ${SIZE + LEFT + 16} ${base + 20}`, role: "img",
    "aria-label": `Reliability diagram, ECE ${percent(ece)} %` }, parts.join(""));
}

function methodRows() {
  const { fit, judge, fitted, nBins } = lab;
  const learned = summarise(fit), judged = summarise(judge);
  return {
    "as it comes": judged,
    "temperature": summarise(judge, fitted),
    "isotonic, top probability": replaceTop(judged, fitIsotonic(learned)),
    "histogram, top probability": replaceTop(judged, fitHistogram(learned, nBins)),
  };
}

function showMethods() {
  const all = Object.entries(methodRows()).map(
    ([name, rows]) => [name, measure(rows, lab.nBins, 100)]);
  const least = Math.min(...all.map(([, { nll }]) => nll));
  element("methods").innerHTML = all.map(([name, m]) => {
    const [low, high] = m.interval.map(percent);
    const cells = [percent(m.accuracy),
      `${percent(m.ece)} <span class="interval">${low} to ${high}</span>`,
      m.nll.toFixed(4), m.brier.toFixed(4)];
    return `<tr${m.nll === least ? ' class="best"' : ""}><th>${name}</th>`
      + `${cells.map((cell) => `<td>${cell}</td>`).join("")}</tr>`;
  }).join("");
}

function showTemperature() {
  const rows = summarise(lab.judge, lab.temperature);
  element("temperature").value = Math.log(lab.temperature);
  element("temperature-value").textContent = lab.temperature.toFixed(3);
  element("bins-value").textContent = lab.nBins;
  element("after").innerHTML = diagram(rows, lab.nBins);
}

function showAll() {
  const before = summarise(lab.judge), m = measure(before, lab.nBins);
  element("before").innerHTML = diagram(before, lab.nBins);
  const over = m.confidence > m.accuracy ? "too sure" : "not sure enough";
  element("verdict").textContent =
    `${lab.set.n.toLocaleString("en")} rows of ${lab.set.K} classes. The classifier says `
    + `it is ${percent(m.confidence)} % sure and is right ${percent(m.accuracy)} % of the `
    + `time: it is ${over}. The temperature that fits is ${lab.fitted.toFixed(3)}.`;
  element("python").textContent = "from skcalib import TemperatureScaling\n"
    + "calibrator = TemperatureScaling().fit(logits[::2], y[::2])\n"
    + `calibrator.temperature_  # ${lab.fitted.toFixed(6)}\n`
    + "# skcalib compare --logits val.npz";
  showTemperature();
  showMethods();
  element("result").hidden = false;
}

// Returns what a test compares with the library.
function open(columns) {
  lab.set = makeSet(columns, element("probabilities").checked);
  [lab.fit, lab.judge] = halves(lab.set);
  lab.fitted = lab.temperature = fitTemperature(lab.fit);
  showAll();
  const methods = Object.entries(methodRows()).map(([name, rows]) => {
    const { accuracy, ece, nll, brier } = measure(rows, lab.nBins);
    return [name, { accuracy, ece, nll, brier }];
  });
  return { temperature: lab.fitted, methods: Object.fromEntries(methods) };
}

async function attempt(work) {
  element("mistake").textContent = "";
  try {
    return await work();
  } catch (error) {
    element("mistake").textContent = error.message;
    return null;
  }
}

const openFile = (file) => attempt(async () => open(await readFile(file)));

async function openModel(file) {
  return attempt(async () => {
    const bytes = new Uint8Array(await file.arrayBuffer());
    const model = divideScores(bytes, lab.temperature);
    const link = element("download");
    link.href = URL.createObjectURL(new Blob([model]));
    link.textContent = `Save calibrated.onnx, divided by ${lab.temperature.toFixed(3)}`;
    link.hidden = false;
    return model;
  });
}

element("file").onchange = (event) => openFile(event.target.files[0]);
element("model").onchange = (event) => openModel(event.target.files[0]);
element("example").onclick = () => attempt(() => {
  element("probabilities").checked = false;
  return open(exampleRows());
});
element("fitted").onclick = () => {
  lab.temperature = lab.fitted;
  showTemperature();
};
element("temperature").oninput = (event) => {
  lab.temperature = Math.exp(Number(event.target.value));
  showTemperature();
};
element("bins").oninput = (event) => {
  lab.nBins = Number(event.target.value);
  showAll();
};
element("drop").ondragover = (event) => {
  event.preventDefault();
  element("drop").classList.add("over");
};
element("drop").ondragleave = () => element("drop").classList.remove("over");
element("drop").ondrop = (event) => {
  event.preventDefault();
  element("drop").classList.remove("over");
  const [file] = event.dataTransfer.files;
  return file.name.endsWith(".onnx") && lab.set ? openModel(file) : openFile(file);
};
