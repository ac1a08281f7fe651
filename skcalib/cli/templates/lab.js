// The page of the laboratory: what is shown, and what answers to it.

// `rows` is what the last file of rows holds, `model` the network; `network` is its name
// if the set came from running it.
const lab = { rows: null, model: null, network: null, isBusy: false, set: null,
  areProbabilities: false, fit: null, judge: null, temperature: 1, fitted: 1, nBins: 15 };
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
  showDownload();
}

function showDownload() {
  element("download").hidden = lab.model === null;
  element("download").textContent =
    `Save calibrated.onnx: ${lab.model?.name}, divided by ${lab.temperature.toFixed(3)}`;
}

function showAll() {
  const before = summarise(lab.judge), m = measure(before, lab.nBins);
  element("before").innerHTML = diagram(m.bins);
  const over = m.confidence > m.accuracy ? "too sure" : "not sure enough";
  element("verdict").textContent =
    `${lab.set.n.toLocaleString("en")} rows of ${lab.set.K} classes. The classifier says `
    + `it is ${percent(m.confidence)} % sure and is right ${percent(m.accuracy)} % of the `
    + `time: it is ${over}. The temperature that fits is ${lab.fitted.toFixed(3)}.`;
  let read = "", given = "--logits";
  if (lab.network !== null) {
    read = "from skcalib.frozen import OnnxLogits\n"
      + `logits = OnnxLogits(${JSON.stringify(lab.network)}).fit_transform(X)\n`;
    given = `${lab.network} --inputs`;
  } else if (lab.areProbabilities) {
    read = "from skcalib import logits_from_proba\n"
      + "logits = logits_from_proba(probabilities)\n";
    given = "--probabilities";
  }
  element("python").textContent = `from skcalib import TemperatureScaling\n${read}`
    + "calibrator = TemperatureScaling().fit(logits[::2], y[::2])\n"
    + `calibrator.temperature_  # ${lab.fitted.toFixed(6)}\n`
    + `# skcalib compare ${given} val.npz`;
  showTemperature();
  showMethods();
  element("result").hidden = false;
}

// Returns what a test compares with the library.
function open(columns, areProbabilities = element("probabilities").checked) {
  lab.areProbabilities = areProbabilities;
  lab.set = makeSet(columns, areProbabilities);
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
  if (lab.isBusy) return null;
  lab.isBusy = true;
  element("mistake").textContent = element("doing").textContent = "";
  try {
    return await work();
  } catch (error) {
    element("mistake").textContent = error.message;
    element("doing").textContent = "";
    return null;
  } finally {
    lab.isBusy = false;
  }
}

// Tell what is being done, and let the browser draw it; timers wait where a tab is hidden.
function tell(text) {
  element("doing").textContent = text;
  const { port1, port2 } = new MessageChannel();
  return new Promise((resolve) => {
    port1.onmessage = () => resolve(port1.close());
    port2.postMessage(null);
  });
}

const count = (n) => n.toLocaleString("en");

// The scores that the network gives for the rows of the file.
async function openInputs({ arrays }) {
  const labels = labelsOf(arrays), { name } = lab.model;
  await tell(`Starting ${name} …`);
  const scores = await runModel(lab.model, arrays,
    (done, n) => tell(`${name}: ${count(done)} of ${count(n)} rows`));
  lab.network = name;
  const areProbabilities = lab.model.maker === null && sumToOne(scores);
  if (areProbabilities) scores.values = scores.values.map((p) => Math.max(p, 0));
  return open({ labels, scores }, areProbabilities);
}

// While a network is here, an .npz holds its inputs, unless it names an array of scores.
function openRows() {
  const { columns, arrays } = lab.rows;
  const areInputs = columns === undefined && lab.model !== null
    && !Object.keys(arrays).some(isScoreName);
  if (areInputs) return openInputs(lab.rows);
  lab.network = null;
  return open(columns ?? splitArrays(arrays));
}

async function holdModel(file) {
  const model = readModel(new Uint8Array(await file.arrayBuffer()));
  lab.model = { ...model, name: file.name };
}

const isModel = (file) => file.name.toLowerCase().endsWith(".onnx");

// What is dropped together: rows, a network, or both.
const openFiles = (files) => attempt(async () => {
  const model = files.find(isModel), rows = files.find((file) => !isModel(file));
  if (model !== undefined) await holdModel(model);
  if (rows !== undefined) {
    [lab.rows, lab.set] = [null, null];
    element("result").hidden = true;
    lab.rows = await readFile(rows);
  } else if (lab.set !== null && lab.network === null) {
    return showDownload(); // The scores are here: it is divided, not run.
  } else if (lab.rows === null) {
    return tell(`${model.name} is here. Drop an .npz of its inputs and labels.`);
  }
  return openRows();
});

const openFile = (file) => openFiles([file]);

const writeModel = () => divideScores(lab.model, lab.temperature,
  lab.areProbabilities);

element("file").onchange = (event) => openFiles([...event.target.files]);
element("model").onchange = (event) => openFiles([...event.target.files]);
element("download").onclick = () => attempt(() => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([writeModel()]));
  link.download = "calibrated.onnx";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
});
element("example").onclick = () => attempt(() => {
  element("probabilities").checked = false;
  lab.rows = lab.network = lab.model = null;
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
  return openFiles([...event.dataTransfer.files]);
};
