// What changes by itself and what saves itself. A file of its own, because few pages need it.
"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const note = (className, textContent, id = "") => Object.assign(document.createElement("p"), { className, textContent, id });
  const tell = (node) => node.dispatchEvent(new Event("fresh", { bubbles: true }));

  const list = document.getElementById("list");
  // The rows of a list as the server sees them now. What a person ticks, types and stands in stays.
  const renew = (page) => {
    for (const old of all("#list tr[id]")) {
      const row = page.getElementById(old.id);
      if (!row) {
        old.className = "dim";
        old.querySelector(".state").textContent = list.dataset.gone;
        continue;
      }
      old.className = row.className;
      [...row.cells].forEach((cell, n) => cell.querySelector("input") || old.cells[n].replaceWith(cell));
      tell(old);
    }
    document.querySelector(".figures")?.replaceWith(page.querySelector(".figures") || "");
  };

  // What changes by itself is asked for again until it says that it is done; ever more slowly while nobody answers.
  const watch = async (box) => {
    for (let wait = 1500; box.dataset.watch;) {
      await new Promise((done) => setTimeout(done, wait));
      if (document.hidden) continue;
      let answer, text;
      try {
        answer = await fetch(box.dataset.watch, { signal: AbortSignal.timeout(20000) });
        text = await answer.text();
        if (!answer.ok) throw new Error(answer.status);
      } catch {
        wait = Math.min(wait * 1.5, 60000);
        if (!box.querySelector(".lost")) box.append(note("lost muted", box.dataset.lost));
        continue;
      }
      if (answer.redirected) return location.assign(answer.url);
      wait = 1500;
      const page = new DOMParser().parseFromString(text, "text/html"), fresh = page.getElementById(box.id);
      if (!fresh?.dataset.watch) renew(page);
      if (!fresh) return box.remove();
      box.className = fresh.className;
      box.dataset.watch = fresh.dataset.watch || "";
      if (fresh.innerHTML === box.innerHTML) continue;
      box.replaceChildren(...fresh.childNodes);
      tell(box);
    }
  };
  all("[data-watch]").forEach(watch);

  // A priority is saved when it was changed, one after the other; the page and whoever types in it stay where they are.
  const saves = document.getElementById("save"), told = document.getElementById("told");
  if (!saves) return;
  const fields = () => all("[name^=priority-]", list);
  const is_changed = (field) => field.value.trim() !== field.name.replace(/^priority-\d+-/, "");
  // What waits for its turn, and what was not saved: that needs the button.
  const waiting = new Set(), stuck = new Set(fields().filter(is_changed));
  const mark = (field, why, said) => {
    const id = `e${field.name.split("-")[1]}`;
    document.getElementById(id)?.remove();
    if (why) field.after(note("error", why, id));
    field.setAttribute("aria-invalid", Boolean(why));
    field.setAttribute("aria-describedby", id);
    stuck[why ? "add" : "delete"](field);
    told.textContent = why || (stuck.size || [...waiting].some(is_changed) ? "" : said);
    saves.hidden = !stuck.size && saves !== document.activeElement;
  };
  const form = (field) => new URLSearchParams({ csrf_token: list.csrf_token.value, [field.name]: field.value });
  const save = async (field) => {
    if (!waiting.delete(field)) return;
    if (!is_changed(field)) return stuck.has(field) && mark(field, "", "");
    const sent = field.value, how = { method: "POST", headers: { accept: "application/json" }, keepalive: true };
    const answer = await fetch(list.action, { ...how, body: form(field), signal: AbortSignal.timeout(20000) }).catch(() => {});
    if (!answer) return mark(field, told.dataset.lost);
    const id = field.name.split("-")[1], { refused, said } = await answer.json();
    if (!refused[id]) field.name = `priority-${id}-${Number(sent)}`;
    mark(field, refused[id], said);
  };
  // An answer that says neither, such as a page that explains what is wrong, is shown as it is without a script.
  const ours = new AbortController();
  const give_up = () => {
    ours.abort();
    list.requestSubmit(saves);
  };
  let queue = Promise.resolve();
  const soon = (field) => {
    told.textContent = "";
    waiting.add(field);
    queue = queue.then(() => save(field)).catch(give_up);
  };
  saves.hidden = !stuck.size;
  list.addEventListener("change", (event) => fields().includes(event.target) && soon(event.target), ours);
  list.addEventListener("submit", (event) => {
    if (event.submitter !== saves) return waiting.clear();  // the form has them all
    event.preventDefault();
    fields().forEach(soon);
  }, ours);
  // Whoever leaves does not wait for an answer.
  addEventListener("pagehide", () => waiting.forEach((field) => navigator.sendBeacon(list.action, form(field))));
})();
