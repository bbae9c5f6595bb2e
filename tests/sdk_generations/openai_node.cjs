// What openai's Node SDK makes of a gateway, as JSON. Arguments: address, key, name of the run.
"use strict";
const { OpenAI } = require("openai");
const { VERSION } = require("openai/version");

const { URL, KEY, RUN, ask, errorOf, timed, ofEach, ids } = require("./common.cjs");

const WEATHER = {
  type: "function",
  function: {
    name: "get_weather",
    description: "Weather of a city",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
};

const client = (apiKey = KEY, maxRetries = 0) => new OpenAI({ baseURL: `${URL}/v1`, apiKey, maxRetries });
const sdk = client();
const say = (body) => sdk.chat.completions.create(body);
const streamed = (body) =>
  sdk.chat.completions.stream({ ...body, stream_options: { include_usage: true } }).finalChatCompletion();

const told = (completion) => ({
  text: completion.choices[0].message.content,
  model: completion.model,
  stop: completion.choices[0].finish_reason,
  usage: [completion.usage.prompt_tokens, completion.usage.completion_tokens, completion.usage.total_tokens],
});

async function chunks(body) {
  const found = [];
  for await (const chunk of await say({ ...body, stream: true })) found.push(chunk);
  return found;
}

async function withoutUsage(model) {
  const found = await chunks(ask(model));
  return {
    text: found.map((chunk) => chunk.choices[0].delta.content ?? "").join(""),
    stops: found.map((chunk) => chunk.choices[0].finish_reason).filter(Boolean),
    usage: found.map((chunk) => chunk.usage).filter(Boolean),
    ids: new Set(found.map((chunk) => chunk.id)).size,
  };
}

async function toolLoop(model, say) {
  const messages = [{ role: "user", content: 'Use get_weather for "Paris".' }];
  const calls = [];
  const stops = [];
  for (;;) {
    const choice = (await say(ask(model, "", { messages, tools: [WEATHER] }))).choices[0];
    stops.push(choice.finish_reason);
    const asked = choice.message.tool_calls ?? [];
    if (!asked.length) return { calls, stops, text: choice.message.content };
    calls.push(...asked.map((call) => [call.function.name, JSON.parse(call.function.arguments)]));
    messages.push(choice.message);
    messages.push(...asked.map((call) => ({ role: "tool", tool_call_id: call.id, content: "It is sunny." })));
  }
}

async function runner(model) {
  const run = ({ city }) => `It is sunny in ${city}.`;
  const tool = { ...WEATHER, function: { ...WEATHER.function, function: run, parse: JSON.parse } };
  const body = { ...ask(model, 'Use get_weather for "Paris".'), tools: [tool] };
  return await sdk.chat.completions.runTools(body).finalContent();
}

const thought = ({ choices: [{ message }] }) => ({ thinking: message.reasoning_content, then: message.content });

// From the chunks: the SDK adds up no fields that it does not know.
async function streamedThought(body) {
  const deltas = (await chunks(body)).map((chunk) => chunk.choices[0].delta);
  return {
    thinking: deltas.map((delta) => delta.reasoning_content ?? "").join(""),
    then: deltas.map((delta) => delta.content ?? "").join(""),
  };
}

const error = errorOf((raised) => raised.error);

(async () => {
  const reasoning_effort = "high";
  const facts = {
    version: VERSION,
    whole: await ofEach(async (model) => told(await say(ask(model)))),
    streamed: await ofEach(async (model) => told(await streamed(ask(model)))),
    "without usage": await ofEach(withoutUsage),
    several: (await Promise.all(Array.from({ length: 5 }, () => streamed(ask("told-gpt"))))).map((c) => told(c).text),
    tools: await ofEach((model) => toolLoop(model, say)),
    "streamed tools": await ofEach((model) => toolLoop(model, streamed)),
    runner: await ofEach(runner),
    thinking: await ofEach(async (model) => thought(await say(ask(model, "Hi", { reasoning_effort })))),
    "streamed thinking": await ofEach((model) => streamedThought(ask(model, "Hi", { reasoning_effort }))),
    models: await ids(sdk.models.list()),
    model: (await sdk.models.retrieve("told-gpt")).id,
    "request id": (await say(ask("told-gpt")))._request_id,
    errors: {
      "wrong key": await error(() => client("sk-wrong-0123456789").chat.completions.create(ask("told-gpt"))),
      "unknown model": await error(() => say(ask("nobody-knows-it"))),
      "unknown model in the list": await error(() => sdk.models.retrieve("nobody-knows-it")),
      "wrong value": await error(() => say(ask("told-gpt", "Hi", { temperature: "hot" }))),
      "too long for the upstream": await error(() => say(ask("long-gpt"))),
      "too long for the other upstream": await error(() => say(ask("long-claude"))),
      "too large": await error(() => say(ask("told-gpt", "x".repeat(33 * 2 ** 20)))),
      rate: await error(() => say(ask("practice/told", "[[practice:429]]"))),
      overloaded: await error(() => say(ask("practice/told", "[[practice:529]]"))),
      "overloaded, streaming": await error(() => chunks(ask("practice/told", "[[practice:529]]"))),
      "nobody left": await error(() => say(ask("gone-model"))),
    },
    broken: {
      "cut by practice": await error(() => chunks(ask("practice/told", "[[practice:cut]]"))),
      "garbage of practice": await error(() => chunks(ask("practice/told", "[[practice:garbage]]"))),
      cut: await error(() => chunks(ask("cut-gpt"))),
      "cut, the other upstream": await error(() => chunks(ask("cut-claude"))),
      overloaded: await error(() => chunks(ask("dies-gpt"))),
      "overloaded, the other upstream": await error(() => chunks(ask("dies-claude"))),
    },
    retries: {
      waited: await timed(error(() => client(KEY, 1).chat.completions.create(ask(`practice/${RUN}`, "[[practice:429]]")))),
      recovered: told(await client(KEY, 1).chat.completions.create(ask(`shaky-${RUN}`))),
      "gave up": await error(() => client(KEY, 2).chat.completions.create(ask(`gone-${RUN}`))),
    },
  };
  console.log(JSON.stringify(facts));
})();
