// What @anthropic-ai/sdk makes of a gateway, as JSON. Arguments: address, key, name of the run.
"use strict";
const { Anthropic } = require("@anthropic-ai/sdk");
const { VERSION } = require("@anthropic-ai/sdk/version");

const { URL, KEY, RUN, ask, errorOf, timed, ofEach, ids } = require("./common.cjs");

const WEATHER = {
  name: "get_weather",
  description: "Weather of a city",
  input_schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};
const thinking = { type: "enabled", budget_tokens: 1024 };

const client = (apiKey = KEY, maxRetries = 0) => new Anthropic({ baseURL: URL, apiKey, maxRetries });
const sdk = client();
const say = (body) => sdk.messages.create(body);
const streamed = (body) => sdk.messages.stream(body).finalMessage();

const text = (message) => message.content.map((block) => (block.type === "text" ? block.text : "")).join("");

const told = (message) => ({
  text: text(message),
  blocks: message.content.map((block) => block.type),
  model: message.model,
  stop: message.stop_reason,
  usage: [message.usage.input_tokens, message.usage.cache_read_input_tokens, message.usage.output_tokens],
});

async function rawEvents(model) {
  const kinds = [];
  for await (const event of await sdk.messages.create({ ...ask(model), stream: true }))
    if (kinds.at(-1) !== event.type) kinds.push(event.type);
  return kinds;
}

async function toolLoop(model, say) {
  const messages = [{ role: "user", content: 'Use get_weather for "Paris".' }];
  const calls = [];
  const stops = [];
  for (;;) {
    const reply = await say(ask(model, "", { messages, tools: [WEATHER] }));
    stops.push(reply.stop_reason);
    const asked = reply.content.filter((block) => block.type === "tool_use");
    if (!asked.length) return { calls, stops, text: text(reply) };
    calls.push(...asked.map((block) => [block.name, block.input]));
    const results = asked.map((block) => ({ type: "tool_result", tool_use_id: block.id, content: "It is sunny." }));
    messages.push({ role: "assistant", content: reply.content }, { role: "user", content: results });
  }
}

async function runner(model) {
  const tool = { ...WEATHER, run: ({ city }) => `It is sunny in ${city}.`, parse: (input) => input };
  const loop = sdk.beta.messages.toolRunner({ ...ask(model, 'Use get_weather for "Paris".'), tools: [tool] });
  try {
    return text(await loop.runUntilDone());
  } catch (raised) {
    return String(raised);
  }
}

const thought = (message) => ({
  thinking: message.content[0].thinking,
  signed: typeof message.content[0].signature === "string",
  then: text(message),
});

const error = errorOf((raised) => raised.error?.error);

(async () => {
  const messages = ask("told-claude").messages;
  const facts = {
    version: VERSION,
    whole: await ofEach(async (model) => told(await say(ask(model)))),
    streamed: await ofEach(async (model) => told(await streamed(ask(model)))),
    events: await ofEach(rawEvents),
    several: (await Promise.all(Array.from({ length: 5 }, () => streamed(ask("told-claude"))))).map(text),
    tools: await ofEach((model) => toolLoop(model, say)),
    "streamed tools": await ofEach((model) => toolLoop(model, streamed)),
    runner: await ofEach(runner),
    thinking: await ofEach(async (model) => thought(await say(ask(model, "Hi", { thinking })))),
    "streamed thinking": await ofEach(async (model) => thought(await streamed(ask(model, "Hi", { thinking })))),
    beta: told(await sdk.beta.messages.create({ ...ask(`beta-${RUN}`), betas: ["context-1m-2025-08-07"] })),
    counted: (await sdk.messages.countTokens({ model: "told-claude", messages })).input_tokens,
    "beta counted": (await sdk.beta.messages.countTokens({ model: "told-claude", messages })).input_tokens,
    models: await ids(sdk.models.list({ limit: 2 })),
    model: (await sdk.models.retrieve("told-claude")).id,
    "request id": (await say(ask("told-claude")))._request_id,
    errors: {
      "wrong key": await error(() => client("sk-wrong-0123456789").messages.create(ask("told-claude"))),
      "unknown model": await error(() => say(ask("nobody-knows-it"))),
      "unknown model in the list": await error(() => sdk.models.retrieve("nobody-knows-it")),
      "wrong value": await error(() => say(ask("told-claude", "Hi", { max_tokens: -1 }))),
      "too long for the upstream": await error(() => say(ask("long-claude"))),
      "too long for the other upstream": await error(() => say(ask("long-gpt"))),
      "too large": await error(() => say(ask("told-claude", "x".repeat(33 * 2 ** 20)))),
      rate: await error(() => say(ask("practice/told", "[[practice:429]]"))),
      overloaded: await error(() => say(ask("practice/told", "[[practice:529]]"))),
      "overloaded, streaming": await error(() => streamed(ask("practice/told", "[[practice:529]]"))),
      "nobody left": await error(() => say(ask("gone-model"))),
    },
    broken: {
      "cut by practice": await error(() => streamed(ask("practice/told", "[[practice:cut]]"))),
      "garbage of practice": await error(() => streamed(ask("practice/told", "[[practice:garbage]]"))),
      cut: await error(() => streamed(ask("cut-claude"))),
      "cut, the other upstream": await error(() => streamed(ask("cut-gpt"))),
      overloaded: await error(() => streamed(ask("dies-claude"))),
      "overloaded, the other upstream": await error(() => streamed(ask("dies-gpt"))),
    },
    retries: {
      waited: await timed(error(() => client(KEY, 1).messages.create(ask(`practice/${RUN}`, "[[practice:429]]")))),
      recovered: told(await client(KEY, 1).messages.create(ask(`shaky-${RUN}`))),
      "gave up": await error(() => client(KEY, 2).messages.create(ask(`gone-${RUN}`))),
    },
  };
  console.log(JSON.stringify(facts));
})();
