// What changes by itself and what saves itself. A file of its own, because few pages need it.
"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const note = (className, textContent, id = "") => Object.assign(document.createElement("p"), { className, textContent, id });
  const tell = (node) => node.dispatchEvent(new Event("fresh", { bubbles: true }));

  // The rows of a list as the server sees them now. What a person ticks, types and stands in stays.
  const renew = (page) => {
    for (const row of all("tr[id]", page)) {
      const old = document.getElementById(row.id);
      if (!old) continue;
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
  const list = document.getElementById("list"), saves = document.getElementById("save"), told = document.getElementById("told");
  if (!saves) return;
  const fields = () => all("[name^=priority-]", list);
  const mark = (field, why, said) => {
    const id = `e${field.name.split("-")[1]}`;
    document.getElementById(id)?.remove();
    if (why) field.after(note("error", why, id));
    field.setAttribute("aria-invalid", Boolean(why));
    field.setAttribute("aria-describedby", id);
    told.textContent = why || said;
  };
  const save = async (field) => {
    const sent = field.value, body = new FormData();
    if (sent === field.defaultValue && field.getAttribute("aria-invalid") !== "true") return;
    body.append("csrf_token", list.csrf_token.value);
    body.append(field.name, sent);
    const headers = { accept: "application/json" };
    const answer = await fetch(list.action, { method: "POST", body, headers, keepalive: true }).catch(() => {});
    if (!answer) return mark(field, told.dataset.lost);
    const id = field.name.split("-")[1], { refused, said } = await answer.json();
    mark(field, refused[id], said);
    if (refused[id]) return;
    field.name = `priority-${id}-${Number(sent)}`;
    field.defaultValue = Number(sent);
  };
  // An answer that says neither, such as a page that explains what is wrong, is shown as it is without a script.
  const ours = new AbortController();
  const give_up = () => {
    ours.abort();
    list.requestSubmit(saves);
  };
  let queue = Promise.resolve();
  const soon = (field) => (queue = queue.then(() => save(field)).catch(give_up));
  saves.hidden = true;
  list.addEventListener("change", (event) => fields().includes(event.target) && soon(event.target), ours);
  list.addEventListener("submit", (event) => {
    if (event.submitter !== saves) return;
    event.preventDefault();
    fields().forEach(soon);
  }, ours);
})();
