// The page of the report: what is shown, and what answers to it.

const data = JSON.parse(document.getElementById("data").textContent);
const element = (id) => document.getElementById(id);
const shown = { view: 0, nBins: data.bins, temperature: data.sample?.temperature };

const escaped = (text) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

// Joins narrow bins, of which a whole number make one that is shown.
function joined(table, nBins) {
  const bins = Array.from({ length: nBins }, () => ({ n: 0, confidence: 0, hits: 0 }));
  for (const [narrow, n, confidence, hits] of table) {
    const bin = bins[Math.floor(narrow / (data.narrow / nBins))];
    bin.n += n;
    bin.confidence += confidence;
    bin.hits += hits;
  }
  return bins;
}

function readSample({ logits, classes, step, codes }) {
  const bytes = Uint8Array.from(atob(logits), (character) => character.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const z = Float64Array.from(
    { length: bytes.length / 2 }, (_, i) => step * view.getInt16(2 * i, true));
  return { z, codes: Int32Array.from(codes), n: codes.length, K: classes };
}

const sample = data.sample === null ? null : readSample(data.sample);

// Of the sample at a temperature: the top class, or the probability of one class.
function sampleRows() {
  const rows = summarise(sample, shown.temperature);
  if (shown.view === 0) return rows;
  const k = data.sample.columns[shown.view - 1], { z, codes, n, K } = sample;
  for (let i = 0; i < n; i++) {
    let sum = 0;
    for (let j = 0; j < K; j++) sum += Math.exp(z[i * K + j] / shown.temperature);
    rows.top[i] = Math.exp(z[i * K + k] / shown.temperature) / sum;
    rows.hit[i] = codes[i] === k ? 1 : 0;
  }
  return rows;
}

function showTemperature() {
  if (sample === null) return;
  element("temperature").value = Math.log(shown.temperature);
  element("temperature-value").textContent = shown.temperature.toFixed(3);
  element("alone").innerHTML = diagram(binSums(sampleRows(), shown.nBins), named());
}

const named = () => (
  shown.view === 0 ? "confidence" : escaped(`probability of ${data.classes[shown.view - 1]}`));

function showDiagrams() {
  for (const name of ["before", "after"]) {
    element(name).innerHTML = diagram(
      joined(data.views[name][shown.view], shown.nBins), named());
  }
  element("class").value = shown.view;
  element("bins-value").textContent = shown.nBins;
  showTemperature();
}

// Both curves of a class in a small picture; a click shows it large.
function small(k) {
  const marks = ["before", "after"].map((name) => {
    const bins = joined(data.views[name][k + 1], data.bins).filter(({ n }) => n > 0);
    return bins.map((bin) => {
      const { n, confidence, hits } = bin;
      return drawn("circle", { class: `${name} point`, cx: across(confidence / n),
        cy: up(hits / n), r: name === "after" ? 9 : 7, opacity: n < FEW ? 0.3 : 1 },
      `<title>${name}, ${toldOf(bin)}</title>`);
    }).join("");
  });
  const label = escaped(data.classes[k]);
  return `<button class="small" data-view="${k + 1}"><span>${label}</span>`
    + drawn("svg", { viewBox: `0 0 ${SIZE + LEFT + 16} ${SIZE + TOP + 24}`, role: "img",
      "aria-label": `Reliability of ${label}` }, axes([0, 1]) + marks.join("")) + "</button>";
}

const views = ["the predicted class", ...data.classes.map((name) => `class ${name}`)];
element("class").innerHTML = views.map(
  (name, k) => `<option value="${k}">${escaped(name)}</option>`).join("");
element("class").onchange = (event) => {
  shown.view = Number(event.target.value);
  showDiagrams();
};
element("bins").max = data.choices.length - 1;
element("bins").value = data.choices.indexOf(data.bins);
element("bins").oninput = (event) => {
  shown.nBins = data.choices[event.target.value];
  showDiagrams();
};
if (sample === null) {
  for (const part of document.querySelectorAll(".of-sample")) part.remove();
} else {
  element("temperature").oninput = (event) => {
    shown.temperature = Math.exp(Number(event.target.value));
    showTemperature();
  };
}
element("small").innerHTML = data.classes.map((_, k) => small(k)).join("");
for (const button of document.querySelectorAll(".small")) {
  button.onclick = () => {
    shown.view = Number(button.dataset.view);
    showDiagrams();
    element("diagrams").scrollIntoView({ behavior: "smooth" });
  };
}
for (const part of document.querySelectorAll(".scripted")) part.hidden = false;
showDiagrams();
