// Progressive enhancement only: every page is complete without this file.
"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // One open menu at a time; a click elsewhere or Escape closes it.
  document.addEventListener("click", (event) => {
    for (const menu of all("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const menu of all("details.menu[open]")) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });

  // A button that was pressed says so, and cannot be pressed twice; a download leaves its page where it is.
  const busy = (button, yes = true) => {
    button.setAttribute("aria-busy", String(yes));
    button.setAttribute("aria-disabled", String(yes));
  };
  document.addEventListener("submit", (event) => {
    if (event.defaultPrevented || !event.submitter) return;
    if (event.submitter.getAttribute("aria-busy") === "true") event.preventDefault();
    else {
      busy(event.submitter);
      setTimeout(busy, 6000, event.submitter, false);
    }
  });
  addEventListener("pageshow", (event) => {
    if (event.persisted) all("[aria-busy]").forEach((button) => busy(button, false));
  });

  // A button of a long list leads back to the same place of it.
  const place = `place ${location.pathname}`;
  addEventListener("pagehide", () => sessionStorage.setItem(place, JSON.stringify([scrollY, Date.now()])));
  const [top, when] = JSON.parse(sessionStorage.getItem(place) || "[0, 0]");
  if (document.querySelector("main > .notice, #run > .notice") && Date.now() - when < 20000) scrollTo(0, top);

  // Light, dark, or the system's, without loading the page again.
  document.addEventListener("submit", (event) => {
    const form = event.target.closest("[data-theme-switch]");
    if (!form || event.submitter?.name !== "theme") return;
    event.preventDefault();
    const data = new FormData(form, event.submitter);
    const theme = data.get("theme");
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    all("[name=theme]", form).forEach((button) => button.setAttribute("aria-pressed", String(button === event.submitter)));
    fetch(form.action, { method: "POST", body: data, redirect: "manual" }).catch(() => {});
  }, true);

  const button = (text) => {
    const made = document.createElement("button");
    made.type = "button";
    made.className = "button slim";
    made.textContent = text;
    return made;
  };

  // Passwords can be looked at, code can be copied, a choice saves itself, a time says itself exactly.
  const enhance = (root) => {
    for (const time of all("time", root)) time.title = new Date(time.dateTime).toLocaleString();
    for (const box of all("[data-reveal]", root)) {
      const input = box.querySelector("input"), toggle = button(box.dataset.reveal);
      toggle.classList.add("quiet");
      toggle.setAttribute("aria-controls", input.id);
      toggle.onclick = () => {
        const hidden = input.type === "password";
        input.type = hidden ? "text" : "password";
        toggle.textContent = hidden ? box.dataset.conceal : box.dataset.reveal;
      };
      box.append(toggle);
    }
    if (navigator.clipboard) for (const box of all("[data-copy]", root)) {
      const copy = button(box.dataset.copy);
      copy.onclick = async () => {
        await navigator.clipboard.writeText(box.querySelector("pre").textContent);
        copy.textContent = box.dataset.copied;
        setTimeout(() => (copy.textContent = box.dataset.copy), 2000);
      };
      box.append(copy);
    }
    for (const select of all("[data-autosubmit]", root)) {
      all("button", select.form).forEach((submit) => (submit.hidden = true));
      select.onchange = () => select.form.requestSubmit();
    }
  };

  // What another script has put into the page.
  document.addEventListener("fresh", (event) => enhance(event.target));

  enhance(document);
})();
