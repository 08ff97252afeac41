"use strict";
(() => {
  const { key, faces } = JSON.parse(document.getElementById("data").textContent);
  const LABELS = ["looking", "not looking", "cannot say"];
  const KEYS = { arrowright: 0, l: 0, arrowleft: 1, n: 1, arrowdown: 2, c: 2 };
  const find = name => document.getElementById(name);
  const choices = [...document.querySelectorAll(".buttons button")];
  // In a frame of the page of `app`, which takes the marks.
  const framed = window.parent !== window && location.protocol.startsWith("http");
  let marks = {}; // number of a face -> label
  let past = []; // [number, label before], oldest first
  let at = 0; // the face that is shown
  let unsaved = false, kept = true;

  const warn = text => { find("warning").textContent = text; find("warning").hidden = false; };

  function restore() {
    let found = null;
    try {
      found = JSON.parse(localStorage.getItem(key));
    } catch (error) {
      if (!(error instanceof SyntaxError)) kept = false;
    }
    if (found === null || typeof found !== "object") return;
    const known = number => Number.isInteger(number) && number >= 0 && number < faces.length;
    for (const [number, label] of Object.entries(found.marks || {})) {
      if (known(Number(number)) && LABELS.includes(label)) marks[number] = label;
    }
    const steps = Array.isArray(found.past) ? found.past : [];
    past = steps.filter(step => Array.isArray(step) && known(step[0]) && (step[1] === null || LABELS.includes(step[1])));
    unsaved = found.unsaved === true && Object.keys(marks).length > 0;
  }

  function keep() {
    try {
      localStorage.setItem(key, JSON.stringify({ marks, past, unsaved }));
      kept = true;
    } catch {
      kept = false;
    }
    if (!kept) warn("This browser does not keep marks for files: save labels.csv before you close or reload the page.");
  }

  function clock(seconds) {
    const whole = Math.floor(seconds), two = number => String(number).padStart(2, "0");
    const hours = Math.floor(whole / 3600), rest = `${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
    return `${hours ? `${hours}:` : ""}${rest}.${Math.floor(10 * (seconds - whole))}`;
  }

  function nextUnmarked() {
    for (let step = 0; step < faces.length; step++) {
      const number = (at + step) % faces.length;
      if (!(number in marks)) return number;
    }
    return at;
  }

  function show() {
    const face = faces[at], count = Object.keys(marks).length;
    find("crop").src = face.crop;
    find("crop").alt = `face ${at + 1}`;
    const [left, top, width, height] = face.inside;
    Object.assign(find("frame").style, { left: `${left}%`, top: `${top}%`, width: `${width}%`, height: `${height}%` });
    find("caption").textContent = `face ${at + 1}, track ${face.track}, at ${clock(face.time)}`;
    find("progress").textContent = `${count} of ${faces.length} marked`;
    find("bar").value = count;
    find("undo").disabled = past.length === 0;
    find("save").disabled = count === 0;
    find("done").hidden = count < faces.length;
    for (const button of choices) button.setAttribute("aria-pressed", String(marks[at] === button.dataset.label));
    if (find("overview").open) showOverview();
    new Image().src = faces[(at + 1) % faces.length].crop; // decoded before it is needed
  }

  function showOverview() {
    const tiles = find("faces").children;
    faces.forEach((face, number) => {
      const tile = tiles[number].firstChild, label = marks[number];
      tile.setAttribute("aria-current", String(number === at));
      tile.lastChild.textContent = label || `face ${number + 1}`;
      if (label) tile.dataset.label = label; else delete tile.dataset.label;
    });
  }

  function fillOverview() {
    if (find("faces").children.length) return;
    faces.forEach((face, number) => {
      const tile = document.createElement("button"), image = new Image();
      tile.type = "button";
      image.src = face.crop;
      image.alt = "";
      tile.append(image, document.createElement("span"));
      tile.addEventListener("click", () => { at = number; show(); window.scrollTo(0, 0); });
      const item = document.createElement("li");
      item.append(tile);
      find("faces").append(item);
    });
  }

  function mark(label) {
    past.push([at, at in marks ? marks[at] : null]);
    marks[at] = label;
    unsaved = true;
    keep();
    at = nextUnmarked();
    show();
  }

  function undo() {
    const step = past.pop();
    if (!step) return;
    at = step[0];
    if (step[1] === null) delete marks[at]; else marks[at] = step[1];
    unsaved = true;
    keep();
    show();
  }

  const field = value => (/[",\r\n]|^\s|\s$/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);

  function download(text) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = "labels.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  }

  function save() {
    const numbers = Object.keys(marks).map(Number).sort((a, b) => faces[a].frame - faces[b].frame || a - b);
    if (!numbers.length) return;
    const lines = numbers.map(number => {
      const face = faces[number];
      return [face.time.toFixed(6), String(face.frame), face.track, face.box, marks[number]].map(field).join(",");
    });
    const text = ["time,frame,track,box,label", ...lines, ""].join("\n");
    if (framed) window.parent.postMessage({ labels: text }, location.origin); else download(text);
    unsaved = false;
    keep();
    show();
  }

  for (const button of choices) button.addEventListener("click", () => mark(button.dataset.label));
  find("undo").addEventListener("click", undo);
  find("save").addEventListener("click", save);
  find("overview").addEventListener("toggle", () => { if (find("overview").open) { fillOverview(); showOverview(); } });
  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const name = event.key.toLowerCase();
    if (name in KEYS) mark(LABELS[KEYS[name]]);
    else if (name === "backspace" || name === "u") undo();
    else if (name === "s") save();
    else return;
    event.preventDefault();
  });
  window.addEventListener("beforeunload", event => { if (unsaved && !kept) event.preventDefault(); });

  restore();
  if (framed) find("done").textContent = "All faces are marked. Save, then continue below.";
  if (!kept) warn("This browser does not keep marks for files: save labels.csv before you close or reload the page.");
  at = nextUnmarked();
  document.querySelector("main").hidden = false;
  show();
})();
