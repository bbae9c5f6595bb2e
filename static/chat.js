// /chat: the answer as it comes. The form carries the conversation, as it does without this script. A file of its own,
// because no other page needs it.
"use strict";
(() => {
  document.addEventListener("submit", async (event) => {
    const form = event.target.closest("[data-chat]");
    const { message, conversation } = form?.elements || {};
    if (!form || !message.value.trim()) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    const send = form.querySelector("button.primary"), busy = (yes) => send.setAttribute("aria-busy", String(yes));
    if (send.getAttribute("aria-busy") === "true") return;
    const part = (turn, name) => turn.querySelector(name);
    const add = (role) => {
      form.querySelector(".turns").append(document.getElementById(`turn-${role}`).content.cloneNode(true));
      return form.querySelector(".turns").lastElementChild;
    };
    form.querySelectorAll(".notice").forEach((old) => old.remove());
    const language = document.querySelector(".looks [name=language]");
    if (language) language.parentElement.hidden = true; // it leads to an empty conversation
    const mine = message.value, turn = add("user"), stop = form.querySelector("[data-stop]"), halt = new AbortController();
    part(turn, ".text").textContent = mine;
    const answer = add("assistant"), blocks = [], said = part(answer, ".text"), line = part(answer, ".facts-line");
    const thinking = part(answer, ".thinking"), raw = part(answer, "pre"), log = part(line, "a");
    line.hidden = thinking.hidden = true;
    const fail = (words, id) => {
      const note = document.createElement("p");
      note.className = "error";
      note.setAttribute("role", "alert");
      note.textContent = words;
      said.after(note);
      if (id) log.href = `/logs/${id}`;
      line.hidden = !id;
    };
    const on = {
      content_block_start: (data) => { blocks[data.index] = { ...data.content_block }; },
      content_block_delta: ({ index, delta }) => {
        for (const name of ["text", "thinking", "signature"]) if (delta[name] !== undefined) blocks[index][name] = (blocks[index][name] || "") + delta[name];
        if (delta.text) said.append(delta.text);
        if (delta.thinking) { thinking.hidden = false; part(thinking, ".said").append(delta.thinking); }
      },
      error: (data) => fail(data.error.message, data.request_id),
      opus: (data) => { part(line, "span").textContent = data.said; log.href = data.log; line.hidden = false; },
    };
    const hear = (text) => {
      const name = text.match(/^event: (.*)/m), data = text.match(/^data: (.*)/m);
      if (!name || !data) return;
      if (name[1] !== "opus") raw.append(`${text}\n\n`);
      on[name[1]]?.(JSON.parse(data[1]));
    };
    let id;
    busy(true);
    stop.hidden = false;
    stop.onclick = () => halt.abort();
    const body = new FormData(form);
    message.value = "";
    try {
      const response = await fetch(location.href, { method: "POST", body, headers: { Accept: "text/event-stream" }, signal: halt.signal });
      id = response.headers.get("request-id");
      // Signed out, or the page is too old: what a form is told then leads on, and nothing is lost.
      if ([400, 401].includes(response.status) && response.headers.get("content-type").startsWith("text/html")) {
        message.value = mine;
        return form.submit();
      }
      if (!response.ok) {
        const found = await response.json().catch(() => ({}));
        throw Object.assign(new Error(found.error?.message || response.statusText), { id: found.request_id });
      }
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let rest = "", piece = await reader.read(); !piece.done; piece = await reader.read()) {
        const events = (rest + piece.value).split("\n\n");
        rest = events.pop();
        events.forEach(hear);
      }
    } catch (error) {
      if (error.name !== "AbortError") fail(error.message, error.id || id);
      else if (id) { log.href = `/logs/${id}`; line.hidden = false; }
    }
    const content = blocks.filter((block) => block && (block.text || block.signature));
    if (content.length) conversation.value = JSON.stringify([...JSON.parse(conversation.value), { role: "user", content: mine }, { role: "assistant", content }]);
    else message.value = mine;
    busy(false);
    stop.hidden = true;
    message.focus();
  }, true);
})();
