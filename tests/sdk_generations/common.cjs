// What both Node scripts do alike. Arguments of the scripts: address, key, name of the run.
"use strict";

const [URL, KEY, RUN] = process.argv.slice(2);
const KINDS = { anthropic: "told-claude", openai: "told-gpt", practice: "practice/told" };

const ask = (model, prompt = "Hi", more = {}) => ({
  model,
  max_tokens: 2000,
  messages: [{ role: "user", content: prompt }],
  ...more,
});

// `inner`: where in the SDK's error the gateway's stands.
const errorOf = (inner) => async (call) => {
  try {
    await call();
  } catch (raised) {
    const { type = null, message = null, code = null } = inner(raised) ?? {};
    return {
      class: raised.constructor.name,
      status: raised.status ?? null,
      type,
      message,
      code,
      request_id: (raised.requestID ?? "").startsWith("req_"),
    };
  }
  return { class: null };
};

// Of a promise that has just begun.
async function timed(told) {
  const began = performance.now();
  return { ...(await told), seconds: (performance.now() - began) / 1000 };
}

async function ofEach(told) {
  const facts = {};
  for (const [kind, model] of Object.entries(KINDS)) facts[kind] = await told(model);
  return facts;
}

async function ids(page) {
  const found = [];
  for await (const model of page) found.push(model.id);
  return found;
}

module.exports = { URL, KEY, RUN, ask, errorOf, timed, ofEach, ids };
