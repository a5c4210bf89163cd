// What a user of OpenAI's JavaScript client does: asks, streams, and runs into errors. Prints what it got as JSON.
//   node client.mjs PATH_OF_THE_CLIENT BASE_URL
const { default: OpenAI } = await import(process.argv[2]);

const client = new OpenAI({ baseURL: process.argv[3], apiKey: "none", maxRetries: 0, timeout: 20_000 });
const ask = { model: "scripted", messages: [{ role: "user", content: "Find a safe path." }] };
const got = {};

const { message } = (await client.chat.completions.create(ask)).choices[0];
got.answer = [message.reasoning_content, message.content];

const streamed = ["", ""];
for await (const chunk of await client.chat.completions.create({ ...ask, stream: true })) {
  streamed[0] += chunk.choices[0].delta.reasoning_content ?? "";
  streamed[1] += chunk.choices[0].delta.content ?? "";
}
got.streamed = streamed;

const stream = client.responses.stream({ model: "scripted", input: "Find a safe path." });
got.responses = (await stream.finalResponse()).output_text;

got.models = [];
for await (const model of client.models.list()) got.models.push(model.id);

const failing = {
  unknown_model: () => client.chat.completions.create({ ...ask, model: "gpt-9" }),
  tools: () => client.chat.completions.create({ ...ask, tools: [{ type: "function", function: { name: "f" } }] }),
};
for (const [name, call] of Object.entries(failing)) {
  got[name] = await call().then(() => "no error", (error) => [error.constructor.name, error.code, error.param]);
}
console.log(JSON.stringify(got));
