// Networks: an ONNX file is read, run by the runtime that the page carries, if it carries
// one, and written with a temperature behind it.

// ---- Protocol buffers ----

function readVarint(bytes, at) {
  let value = 0, scale = 1;
  for (;;) {
    const byte = bytes[at++];
    value += (byte & 127) * scale;
    if (byte < 128) return [value, at];
    scale *= 128;
  }
}

function varint(value) {
  const out = [];
  while (value > 127) {
    out.push((value % 128) | 128);
    value = Math.floor(value / 128);
  }
  return [...out, value];
}

// The fields of a message, each with all of its bytes.
function fields(bytes) {
  const found = [];
  let at = 0;
  while (at < bytes.length) {
    const start = at;
    let key, size;
    [key, at] = readVarint(bytes, at);
    let body = at;
    if (key % 8 === 2) {
      [size, body] = readVarint(bytes, at);
      at = body + size;
    } else if (key % 8 === 0) {
      [, at] = readVarint(bytes, at);
    } else {
      at += key % 8 === 1 ? 8 : 4;
    }
    if (!(at <= bytes.length)) throw new Error("This ONNX file is damaged.");
    const id = Math.floor(key / 8);
    found.push({ id, whole: bytes.subarray(start, at), body: bytes.subarray(body, at) });
  }
  return found;
}

// What lies in a message at the end of a path of fields; undefined if nothing does.
function inside(body, ...ids) {
  return ids.reduce(
    (inner, id) => inner && fields(inner).find((part) => part.id === id)?.body, body);
}

function join(parts) {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let end = 0;
  for (const part of parts) {
    out.set(part, end);
    end += part.length;
  }
  return out;
}

const utf8 = (text) => new TextEncoder().encode(text);
const text = (body) => new TextDecoder().decode(body);

// A field that is a text, a message or a whole number.
function field(id, content) {
  if (typeof content === "number") {
    return Uint8Array.from([...varint(id * 8), ...varint(content)]);
  }
  const body = typeof content === "string" ? utf8(content) : content;
  return join([Uint8Array.from([...varint(id * 8 + 2), ...varint(body.length)]), body]);
}

// ---- Graphs ----

const FLOAT = 1, DOUBLE = 11, FLOATS = [FLOAT, DOUBLE, 10, 16];

function readNode(whole) {
  const parts = fields(whole);
  const names = (id) => parts.filter((part) => part.id === id).map(({ body }) => text(body));
  return { whole, parts, inputs: names(1), outputs: names(2), type: names(4)[0] };
}

function renamed(node, inputs, outputs) {
  return join([
    ...inputs.map((name) => field(1, name)), ...outputs.map((name) => field(2, name)),
    ...node.parts.filter(({ id }) => id > 2).map(({ whole }) => whole),
  ]);
}

function newNode(type, inputs, output, attributes = []) {
  return join([...inputs.map((name) => field(1, name)), field(2, output),
    field(3, output), field(4, type), ...attributes.map((body) => field(5, body))]);
}

// A node and not an initializer, which old files have to list among their inputs.
function constant(name, value, type) {
  const Kind = type === DOUBLE ? Float64Array : Float32Array;
  const raw = new Uint8Array(Kind.of(value).buffer);
  const tensor = join([field(2, type), field(9, raw)]);
  return newNode("Constant", [], name, [join([field(1, "value"), field(5, tensor),
    field(20, 4)])]);
}

// A classifier and its scores: `scores` is its output, `tensor` what is read and divided,
// and `maker` the node between, a softmax or its logarithm; null if there is none.
function readModel(bytes) {
  const top = fields(bytes), graph = top.find(({ id }) => id === 7);
  if (graph === undefined) throw new Error("This is not an ONNX model.");
  const parts = fields(graph.body);
  const nodes = parts.filter(({ id }) => id === 1).map(({ body }) => readNode(body));
  const outputs = parts.filter(({ id }) => id === 12).map(({ body }) => {
    const type = inside(body, 2, 1, 1);
    return { name: text(inside(body, 1)), type: type && readVarint(type, 0)[0] };
  });
  const floats = outputs.filter(({ type }) => FLOATS.includes(type));
  if (floats.length !== 1) {
    throw new Error(`${floats.length} of the outputs ${outputs.map((o) => o.name).join(", ")}`
      + " are tensors of real numbers; the laboratory takes models with one, their scores. "
      + "`skcalib calibrate` takes others.");
  }
  const [{ name: scores, type }] = floats;
  if (type !== FLOAT && type !== DOUBLE) {
    throw new Error(`${scores} is in half precision, too coarse to calibrate. Export the `
      + "model in single precision.");
  }
  const makerOf = (name) => nodes.find((node) => node.outputs.includes(name));
  let maker = makerOf(scores);
  if (maker === undefined) throw new Error(`No node of the model makes its output ${scores}.`);
  while (maker?.type === "Identity") maker = makerOf(maker.inputs[0]);
  if (maker?.type === "Sigmoid") {
    throw new Error(`${scores} holds sigmoids, one for each class or for the second of two; `
      + "the laboratory takes a softmax or logits. `skcalib calibrate` takes others.");
  }
  if (!["Softmax", "LogSoftmax"].includes(maker?.type)) maker = null;
  const tensor = maker === null ? scores : maker.inputs[0];
  return { bytes, top, graph, parts, nodes, outputs, scores, type, tensor, maker };
}

function withGraph({ top, graph }, body, more = []) {
  return join([
    ...top.map((part) => (part === graph ? field(7, body) : part.whole)), ...more]);
}

// The model that also serves what is read.
function servingTensor(model) {
  if (model.outputs.some(({ name }) => name === model.tensor)) return model.bytes;
  return withGraph(model, join([model.graph.body, field(12, field(1, model.tensor))]));
}

const NOTE = "skcalib.calibration";

// The model with its scores divided by T: before the softmax that makes them, else behind
// them, by way of logarithms if they are probabilities. Names and meaning stay.
function divideScores(model, T, areProbabilities = false) {
  const { parts, nodes, scores, type, tensor, maker } = model;
  const taken = new Set(nodes.flatMap((node) => [...node.inputs, ...node.outputs]));
  const free = (name) => (taken.has(name) ? free(`${name}_`) : name);
  const [by, divided, before] = ["temperature", "divided", "scores"].map(
    (name) => free(`skcalib_${name}`));
  const written = [constant(by, T, type)];
  for (const node of nodes) {
    if (node === maker) {
      written.push(newNode("Div", [tensor, by], divided));
      written.push(renamed(node, [divided], node.outputs));
    } else if (maker === null) {
      const [inputs, outputs] = [node.inputs, node.outputs].map(
        (names) => names.map((name) => (name === scores ? before : name)));
      written.push(renamed(node, inputs, outputs));
    } else {
      written.push(node.whole);
    }
  }
  if (maker === null && areProbabilities) {
    const [floor, above, logarithms] = ["floor", "floored", "log"].map(
      (name) => free(`skcalib_${name}`));
    const axis = join([field(1, "axis"), field(3, 1), field(20, 2)]);
    written.push(
      constant(floor, FLOOR, type), newNode("Max", [before, floor], above),
      newNode("Log", [above], logarithms), newNode("Div", [logarithms, by], divided),
      newNode("Softmax", [divided], scores, [axis]));
  } else if (maker === null) {
    written.push(newNode("Div", [before, by], scores));
  }
  const isNote = ({ id, body }) => id === 14 && text(inside(body, 1)) === NOTE;
  const means = { Softmax: "probabilities", LogSoftmax: "log_probabilities" }[maker?.type]
    ?? (areProbabilities ? "probabilities" : "logits");
  const note = JSON.stringify({ method: "TemperatureScaling", learned: { temperature_: T },
    outputs: { [scores]: means }, made_by: "skcalib lab" });
  const body = join([...written.map((node) => field(1, node)),
    ...parts.filter(({ id }) => id !== 1).map(({ whole }) => whole)]);
  return withGraph({ ...model, top: model.top.filter((part) => !isNote(part)) }, body,
    [field(14, join([field(1, NOTE), field(2, note)]))]);
}

// ---- Running ----

const TENSORS = {
  float32: Float32Array, float64: Float64Array, int8: Int8Array, uint8: Uint8Array,
  int16: Int16Array, uint16: Uint16Array, int32: Int32Array, uint32: Uint32Array,
  int64: BigInt64Array, uint64: BigUint64Array, bool: Uint8Array,
};
const BATCH = 64;

// What lies packed in an element of the page.
async function unpacked(id) {
  const packed = document.getElementById(id).textContent;
  const bytes = Uint8Array.from(atob(packed), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

let runtime = null;

async function openRuntime() {
  if (runtime === null) {
    if (document.getElementById("runtime-code") === null) {
      throw new Error("This page carries no runtime, so it cannot run the network. Write "
        + "one that does: npm pack onnxruntime-web, then skcalib lab --onnx-runtime with "
        + "the file that came. Or drop the network's scores with their labels first, and "
        + "the network after them: it is then divided, not run.");
    }
    const code = new Blob([await unpacked("runtime-code")], { type: "text/javascript" });
    const ort = await import(URL.createObjectURL(code));
    ort.env.wasm.numThreads = 1; // More need a server that isolates the page.
    ort.env.wasm.wasmBinary = await unpacked("runtime-wasm");
    runtime = ort;
  }
  return runtime;
}

const shapeText = (shape) => `(${shape.join(", ")})`;

// The array for an input: of its name; of a sole input also one of a usual name, or the only one.
function inputFrom(arrays, { name, shape, type }, isSole) {
  const others = Object.keys(arrays).filter((key) => key !== labelName(arrays));
  const usual = others.find((key) => INPUTS.includes(key.toLowerCase()));
  const key = others.includes(name) ? name
    : isSole ? usual ?? (others.length === 1 ? others[0] : undefined) : undefined;
  if (key === undefined) {
    throw new Error(`The network takes ${name}; the file holds `
      + `${Object.keys(arrays).join(", ")}. Call the array as the network does.`);
  }
  const array = arrays[key], fits = array.shape.length === shape.length
    && shape.every((size, axis) => axis === 0 || !(size > 0) || size === array.shape[axis]);
  if (!fits) {
    throw new Error(`${key} has the shape ${shapeText(array.shape)}; the network's input `
      + `${name} takes ${shapeText(shape)}. If ${key} are scores, call them logits.`);
  }
  if (TENSORS[type] === undefined) {
    throw new Error(`The network's input ${name} is ${type}; numbers can be given.`);
  }
  return { name, type, ...array };
}

// Rows `start` to `end` as a tensor of `size` rows, zeros behind them.
function tensorOf(ort, { type, shape, values }, start, end, size) {
  const width = values.length / shape[0], Kind = TENSORS[type];
  const data = new Kind(size * width);
  const rows = values.subarray(start * width, end * width);
  data.set(Kind.BYTES_PER_ELEMENT === 8 && type !== "float64" ? Array.from(rows, BigInt) : rows);
  return new ort.Tensor(type, data, [size, ...shape.slice(1)]);
}

// Scores of all rows. `tell` hears how many are done.
async function runModel(model, arrays, tell) {
  const ort = await openRuntime();
  const session = await ort.InferenceSession.create(servingTensor(model));
  try {
    const declared = session.inputMetadata;
    const inputs = declared.map((one) => inputFrom(arrays, one, declared.length === 1));
    const n = inputs[0].shape[0], [first] = declared[0].shape;
    const fixed = first > 0 ? first : null;
    let K = 0, values = null;
    for (let start = 0; start < n; start += fixed ?? BATCH) {
      const end = Math.min(start + (fixed ?? BATCH), n);
      const feeds = Object.fromEntries(inputs.map((one) => [
        one.name, tensorOf(ort, one, start, end, fixed ?? end - start)]));
      const { [model.tensor]: { data, dims } } = await session.run(feeds, [model.tensor]);
      if (dims.length < 2 || dims.slice(2).some((size) => size !== 1)) {
        throw new Error(`${model.tensor} has the shape ${shapeText(dims)}; scores have a row `
          + "a sample and a column a class.");
      }
      values ??= new Float64Array(n * (K = dims[1]));
      values.set(data.subarray(0, (end - start) * K), start * K);
      await tell(end, n);
    }
    return { shape: [n, K], values };
  } finally {
    await session.release();
  }
}

// Whether all rows are non-negative and sum to 1.
function sumToOne({ shape: [n, K], values }) {
  const tolerance = 1e-3 * Math.sqrt(K);
  for (let i = 0; i < n; i++) {
    const row = values.subarray(i * K, (i + 1) * K);
    if (!(row.every((p) => p >= -1e-6 && p <= 1 + tolerance)
      && Math.abs(row.reduce((sum, p) => sum + p, 0) - 1) <= tolerance)) return false;
  }
  return true;
}
