// Columns of the table, and conditions on them in a search.

// A column is late if it is left out where there is little room.
function keyColumns() {
  return META.by.map((name, j) => ({
    id: "key" + j,
    label: name,
    value: (b) => core["key" + j][b],
    text: (b) => keyPart(b, j),
    kind: "key",
    width: "minmax(56px, 0.7fr)",
  }));
}

const SIZE_COLUMN = {
  id: "n", label: "samples", value: (b) => core.n[b], text: (b) => counted(core.n[b]), kind: "num", width: "62px",
};
const TOTAL_COLUMN = {
  id: "total", label: "weight", title: "Sum of the sample weights", value: (b) => core.total[b],
  text: (b) => (Number.isFinite(core.total[b]) ? counted(Number(core.total[b].toPrecision(5))) : NOTHING),
  kind: "num late", width: "72px",
};
const K_COLUMN = {
  id: "k", label: "K", value: (b) => core.k[b], text: (b) => core.k[b] || NOTHING, kind: "num", width: "30px",
};
const FAMILY_COLUMN = {
  id: "family", label: "family", value: (b) => (core.k[b] ? core.family[b] : NaN),
  text: (b) => (core.k[b] ? META.families[core.family[b]] : NOTHING), kind: "family late", width: "70px",
};
const STATUS_COLUMN = {
  id: "status", label: "status", value: (b) => core.status[b], text: statusOf, kind: "status",
  width: "minmax(92px, 0.8fr)",
};
const CRITERION_COLUMNS = IS_TEST
  ? [{
      id: "value", label: "p of next K", title: "p-value of the chosen K against the next", value: (b) => core.value[b],
      text: (b) => probability(core.value[b]), kind: "num late", width: "80px",
    }]
  : [{
      id: "value", label: CRITERION, value: (b) => core.value[b], text: (b) => number(core.value[b]), kind: "num late",
      width: "80px",
    }, {
      id: "lead", label: "lead", title: `By how much ${CRITERION} of the next best K is higher`,
      value: (b) => core.lead[b], text: (b) => number(core.lead[b]), kind: "num late", width: "64px",
    }];
const CHECK_COLUMNS = [{
  id: "p", label: "p", title: "Smallest p-value of the residuals, adjusted for the number of tests",
  value: (b) => core.p[b], text: (b) => probability(core.p[b]), kind: "num p", width: "56px",
}, {
  id: "overlap", label: "overlap", title: "Largest overlap of two components, from 0 to 1",
  value: (b) => (core.k[b] > 1 ? core.overlap[b] : NaN),
  text: (b) => (core.k[b] > 1 ? number(core.overlap[b], 2) : NOTHING), kind: "num late", width: "56px",
}, {
  id: "flags", label: "flags", value: (b) => -bits(core.flags[b]), text: () => "", kind: "flags",
  width: "minmax(150px, 2fr)",
}];

let columns = [];

function makeColumns() {
  columns = [
    ...keyColumns(),
    SIZE_COLUMN,
    ...(core.total ? [TOTAL_COLUMN] : []),
    K_COLUMN,
    ...(META.families.length > 1 ? [FAMILY_COLUMN] : []),
    STATUS_COLUMN,
    ...(META.criterion ? CRITERION_COLUMNS : []),
    ...CHECK_COLUMNS,
  ];
}

function bits(v) {
  let n = 0;
  for (; v; v &= v - 1) n++;
  return n;
}

// A search is words: conditions such as p<0.01, and parts of keys. A group must pass all of them.
const CONDITION = /^(n|k|p|lead|overlap|value|weight|aicc|aic|bic|icl|cv)(<=|>=|<|>|=)(-?[\d.]+(?:e-?\d+)?)$/i;
const NAMES = { weight: "total", aicc: "value", aic: "value", bic: "value", icl: "value", cv: "value" };
const COMPARED = {
  "<": (u, v) => u < v,
  ">": (u, v) => u > v,
  "<=": (u, v) => u <= v,
  ">=": (u, v) => u >= v,
  "=": (u, v) => u === v,
};
let keyTexts = []; // of each group, in lower case

function matcher() {
  const tests = state.q.toLowerCase().split(/\s+/).filter(Boolean).map(asTest);
  return (b) => tests.every((test) => test(b));
}

function asTest(word) {
  const found = word.match(CONDITION);
  const values = found && core[NAMES[found[1]] || found[1]];
  if (!values) return (b) => keyTexts[b].includes(word);
  const compare = COMPARED[found[2]];
  const limit = Number(found[3]);
  return (b) => compare(values[b], limit);
}
