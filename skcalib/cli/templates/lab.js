// The page of the laboratory: what is shown, and what answers to it.

const lab = { set: null, fit: null, judge: null, temperature: 1, fitted: 1, nBins: 15 };
const element = (id) => document.getElementById(id);

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
  element("after").innerHTML = diagram(binSums(rows, lab.nBins));
}

function showAll() {
  const before = summarise(lab.judge), m = measure(before, lab.nBins);
  element("before").innerHTML = diagram(m.bins);
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
