"use strict";
(() => {
  // Names, URLs and messages come from outside: they are added to the page as text only, never as markup.
  const byId = (id) => document.getElementById(id);
  const blocks = [...document.querySelectorAll("script[data-rows]")];
  const total = blocks.reduce((sum, block) => sum + Number(block.dataset.rows), 0);
  const view = { state: "all", words: [], group: null, sort: null, down: false, page: 0, size: 50 };
  const TOLD = 16; // blocks between updates of the status: painting the page takes longer than reading a block
  const files = [];
  let found = [];
  let loaded = false;
  let turn = 0;

  const count = (number) => number.toLocaleString("en-US");
  const pause = () => new Promise((resume) => setTimeout(resume));

  function element(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
    return made;
  }

  function size(bytes) {
    if (bytes === null || bytes === undefined) return "";
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let power = 0;
    for (; bytes >= 1024 && power < units.length - 1; power++) bytes /= 1024;
    return `${power ? bytes.toFixed(1) : bytes} ${units[power]}`;
  }

  function duration(seconds) {
    if (!seconds) return seconds === 0 ? "0 s" : "";
    if (seconds >= 60) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
    const [unit, part] = seconds >= 1 ? ["s", 1] : seconds >= 1e-3 ? ["ms", 1e-3] : ["µs", 1e-6];
    return `${Number((seconds / part).toPrecision(3))} ${unit}`;
  }

  const two = (number) => String(number).padStart(2, "0");
  function local(at) {
    const time = new Date(at * 1000);
    const day = [time.getFullYear(), two(time.getMonth() + 1), two(time.getDate())].join("-");
    return `${day} ${[time.getHours(), time.getMinutes(), time.getSeconds()].map(two).join(":")}`;
  }
  const utc = (at) => new Date(at * 1000).toISOString().replace("T", " ").replace(/\.\d+Z$/, " UTC");
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "local time";
  const both = (at) => (zone === "UTC" ? utc(at) : `${local(at)} ${zone}; ${utc(at)}`);

  // Rows: a block is a gzip member in base64. The table keeps only the fields that it shows, to save memory; details are
  // decompressed again on request.

  async function unpacked(block) {
    const packed = Uint8Array.fromBase64?.(block.textContent) ?? Uint8Array.from(atob(block.textContent), (letter) => letter.charCodeAt(0));
    const unpacking = new DecompressionStream("gzip");
    const writer = unpacking.writable.getWriter();
    const [text] = await Promise.all([new Response(unpacking.readable).text(), writer.write(packed), writer.close()]);
    return text.trimEnd().split("\n");
  }

  function listed(row, block, place) {
    const spent = Object.values(row.seconds);
    return {
      block, place, order: files.length, id: row.id, name: row.name, url: row.url,
      state: row.status === "failed" ? "failed" : row.cached ? "before" : "ok",
      stage: row.stage, kind: row.error_class, message: row.message ?? "",
      bytes: row.bytes, spent: spent.length ? spent.reduce((sum, one) => sum + one) : null,
      attempts: row.attempts, at: row.at || null,
    };
  }

  const states = { ok: "ok", failed: "failed", before: "already done" };
  const failure = (file) => (file.state === "failed" ? `${file.stage}: ${file.kind}: ${file.message}` : "");
  const text = (file) => (file.text ??= [file.id, file.name, file.url, failure(file)].join("\n").toLowerCase());
  const fits = (file) =>
    (view.state === "all" || file.state === view.state || (view.state === "ok" && file.state === "before")) &&
    (!view.group || (file.state === "failed" && (file.stage ?? "") === view.group.stage && (file.kind ?? "") === view.group.kind)) &&
    view.words.every((word) => text(file).includes(word));

  const natural = (word) => word.toLowerCase().replace(/\d+/g, (digits) => digits.padStart(12, "0"));
  function key(file) {
    if (!view.sort) return null;
    const value = view.sort === "failure" ? failure(file) : file[view.sort];
    return typeof value === "string" ? natural(value) || null : value;
  }

  function sorted(several) {
    if (!view.sort) return several;
    const way = view.down ? -1 : 1;
    const none = several.filter(([value]) => value === null || value === undefined);
    const some = several.filter(([value]) => value !== null && value !== undefined);
    some.sort(([one, first], [other, second]) => (one < other ? -way : one > other ? way : first.order - second.order));
    return [...some, ...none];
  }

  // A search runs in slices, so that the page stays responsive, and a new search stops the current one.

  async function select(page = 0) {
    const mine = ++turn;
    const fitting = [];
    for (let begin = 0; begin < files.length; begin += 5000) {
      if (begin) await pause();
      if (mine !== turn) return;
      for (const file of files.slice(begin, begin + 5000)) if (fits(file)) fitting.push([key(file), file]);
    }
    found = sorted(fitting).map(([, file]) => file);
    view.page = page;
    show();
  }

  function show() {
    const pages = Math.max(1, Math.ceil(found.length / view.size));
    view.page = Math.min(Math.max(0, view.page), pages - 1);
    const first = view.page * view.size;
    const part = found.slice(first, first + view.size);
    document.querySelector("#table tbody").replaceChildren(...part.map(line));
    const range = part.length ? `Files ${count(first + 1)} to ${count(first + part.length)} of ${count(found.length)}` : "No file matches";
    byId("status").textContent = loaded ? range : `${range}; ${count(files.length)} of ${count(total)} files loaded`;
    byId("page").value = view.page + 1;
    byId("page").max = pages;
    byId("pages").textContent = `of ${count(pages)}`;
    for (const button of document.querySelectorAll("#pager button")) {
      const stuck = ["first", "previous"].includes(button.dataset.page) ? view.page === 0 : view.page === pages - 1;
      button.setAttribute("aria-disabled", stuck);
    }
  }

  function line(file) {
    const link = element("a", { href: `#file=${encodeURIComponent(file.id)}`, title: file.id }, file.id);
    return element("tr", {},
      element("td", {}, element("span", { class: `status ${file.state}` }, states[file.state])),
      element("th", { scope: "row" }, link),
      element("td", { title: file.name }, file.name),
      element("td", { class: "url", title: file.url }, element("bdi", { dir: "ltr" }, file.url)),
      element("td", { title: failure(file) }, failure(file)),
      element("td", { class: "number" }, size(file.bytes)),
      element("td", { class: "number" }, duration(file.spent)),
      element("td", { class: "number" }, String(file.attempts)),
      element("td", { title: file.at ? utc(file.at) : "" }, file.at ? local(file.at) : ""));
  }

  function countStates() {
    const counts = { all: files.length, ok: 0, failed: 0, before: 0 };
    for (const file of files) counts[file.state]++;
    counts.ok += counts.before;
    for (const place of document.querySelectorAll("[data-count]")) place.textContent = count(counts[place.dataset.count]);
  }

  async function load() {
    let coming = blocks.length && unpacked(blocks[0]);
    for (const [number, block] of blocks.entries()) {
      const lines = await coming;
      coming = blocks[number + 1] && unpacked(blocks[number + 1]);
      JSON.parse(`[${lines.join()}]`).forEach((row, place) => files.push(listed(row, block, place)));
      if (!number) show(found = files.slice());
      else if (number % TOLD === 0) byId("status").textContent = `${count(files.length)} of ${count(total)} files loaded`;
    }
    loaded = true;
    countStates();
    await select();
    document.documentElement.dataset.loaded = String(files.length);
    await follow();
  }

  // The details of a file.

  // Numbers that JavaScript cannot represent exactly keep their original text.
  const exact = (_, value, context) =>
    typeof value === "number" && context?.source && JSON.rawJSON && String(value) !== context.source ? JSON.rawJSON(context.source) : value;

  function pairs(entries) {
    const given = entries.filter(([, value]) => value !== null && value !== undefined && value !== "");
    return element("dl", { class: "pairs" }, ...given.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
  }

  const kinds = { "pre-process": "pre-processor", process: "processor", "post-process": "post-processor" };
  function stageRow(row, stage) {
    const steps = row.plugins.filter((step) => step.kind === kinds[stage]);
    const spent = row.seconds[stage];
    const failed = row.status === "failed" && row.stage === stage;
    const note = failed ? row.error_class : spent === undefined ? (stage === "download" && row.cached ? "already done" : "not run") : "ok";
    return element("tr", {},
      element("th", { scope: "row" }, stage),
      element("td", {}, steps.map((step) => step.name).join(", ") || (stage === "download" ? "by the URL's scheme" : "none")),
      element("td", {}, steps.map((step) => step.version).join(", ")),
      element("td", { class: "number" }, duration(spent)),
      element("td", {}, element("span", { class: failed ? "status failed" : note === "ok" ? "status ok" : "" }, note)));
  }

  function stageTable(row) {
    const used = ["download", "pre-process", "process", "post-process"].filter(
      (stage) => stage === "download" || row.stage === stage || stage in row.seconds || row.plugins.some((step) => step.kind === kinds[stage]));
    const heads = ["Stage", "Plugin", "Version", "Time", "Outcome"].map((head) =>
      element("th", { scope: "col", class: head === "Time" ? "number" : "" }, head));
    return element("div", { class: "scroll" }, element("table", {},
      element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...used.map((stage) => stageRow(row, stage)))));
  }

  function titled(title, ...content) {
    return [element("h3", {}, title), ...content];
  }

  function details(file, row) {
    const close = element("button", { type: "button" }, "Close");
    close.addEventListener("click", () => byId("details").close());
    const turns = [["Previous", -1], ["Next", 1]].map(([label, way]) => {
      const button = element("button", { type: "button", "aria-label": `${label} file in the table` }, label);
      const other = found[found.indexOf(file) + way];
      button.setAttribute("aria-disabled", !found.includes(file) || !other);
      button.addEventListener("click", () => other && location.replace(`#file=${encodeURIComponent(other.id)}`));
      return button;
    });
    const state = element("span", { class: `status ${file.state}` }, file.state === "before" ? "ok, already done" : states[file.state]);
    const facts = pairs([
      ["name", row.name], ["URL", row.url], ["size", row.bytes === null ? "" : `${count(row.bytes)} bytes (${size(row.bytes)})`],
      ["type", row.content_type || row.media_type], ["warning", row.warning],
      ["SHA-256", row.sha256 && element("code", {}, row.sha256)], ["attempts", String(row.attempts)], ["HTTP status", row.http_status && String(row.http_status)],
      ["ended", row.at ? both(row.at) : ""], ["done by run", row.run], ["key", element("code", {}, row.key)],
    ]);
    const failed = row.status === "failed" ? titled(`Failed: ${row.stage}, ${row.error_class}`, element("pre", {}, row.message ?? ""),
      ...(row.traceback ? [element("h4", {}, "Traceback"), element("pre", {}, row.traceback)] : [])) : [];
    const note = row.whole ? [element("p", { class: "notice" },
      `The record of this file has ${size(row.whole)}: its result is omitted here, and a long message or traceback is shortened. The full record is in results.jsonl.`)] : [];
    const result = row.result === null || row.result === undefined ? [] : titled("Result", element("pre", {}, JSON.stringify(row.result, null, 2)));
    return [element("header", {}, element("h2", { id: "details-title" }, row.id), state, ...turns, close),
      facts, ...note, ...failed, ...titled("Stages", stageTable(row)), ...result];
  }

  async function follow() {
    const dialog = byId("details");
    const asked = /^#file=(.*)$/.exec(location.hash);
    if (!asked) return dialog.open && dialog.close();
    const id = decoded(asked[1]);
    const file = files.find((one) => one.id === id);
    if (!file) return loaded && (byId("status").textContent = `This page does not contain file ${id}`);
    const held = document.activeElement?.getAttribute("aria-label");
    const written = (await unpacked(file.block))[file.place];
    dialog.replaceChildren(...details(file, { ...JSON.parse(written), result: JSON.parse(written, exact).result }));
    if (!dialog.open) dialog.showModal();
    [...dialog.querySelectorAll("button")].find((button) => held && button.getAttribute("aria-label") === held)?.focus();
    dialog.scrollTop = 0;
  }

  function decoded(part) {
    try { return decodeURIComponent(part); } catch { return part; }
  }

  // Event handlers.

  function sortBy(button) {
    view.down = view.sort === button.dataset.sort && !view.down;
    view.sort = button.dataset.sort;
    for (const head of document.querySelectorAll("#table thead th")) head.removeAttribute("aria-sort");
    button.closest("th").setAttribute("aria-sort", view.down ? "descending" : "ascending");
    select();
  }

  function only(group) {
    view.group = group;
    byId("group").hidden = !group;
    byId("group").querySelector("strong").textContent = group ? `${group.stage}: ${group.kind}` : "";
    select();
  }

  function turnTo(where) {
    const last = Math.ceil(found.length / view.size) - 1;
    view.page = { first: 0, previous: view.page - 1, next: view.page + 1, last }[where];
    show();
  }

  function listen() {
    let waiting = 0;
    byId("search").addEventListener("input", (event) => {
      clearTimeout(waiting);
      view.words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
      waiting = setTimeout(select, 120);
    });
    byId("controls").addEventListener("submit", (event) => event.preventDefault());
    byId("states").addEventListener("change", (event) => { view.state = event.target.value; select(); });
    byId("rows").addEventListener("change", (event) => { view.size = Number(event.target.value); view.page = 0; show(); });
    byId("page").addEventListener("change", (event) => { view.page = Math.trunc(Number(event.target.value)) - 1; show(); });
    byId("pager").addEventListener("click", (event) => event.target.dataset.page && turnTo(event.target.dataset.page));
    byId("table").tHead.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) sortBy(button);
    });
    byId("group").querySelector("button").addEventListener("click", () => only(null));
    for (const button of document.querySelectorAll("button.show")) {
      button.hidden = false;
      button.addEventListener("click", () => { only(button.dataset); byId("files").scrollIntoView(); byId("table").closest(".scroll").focus({ preventScroll: true }); });
    }
    byId("details").addEventListener("close", () => history.replaceState(null, "", location.href.split("#")[0]));
    addEventListener("hashchange", follow);
  }

  for (const time of document.querySelectorAll("time")) time.textContent = both(Date.parse(time.dateTime) / 1000);
  byId("zone").textContent = zone;
  byId("browser").hidden = false;
  listen();
  load().catch((error) => {
    byId("status").textContent = `This browser cannot decompress the list of files (${error.message}); they are in results.jsonl`;
  });
})();
