// Uses the model `bot` through openai-node, and prints what it got as JSON.
const { OpenAI, NotFoundError } = require("openai");

const QUESTION = "what does thing 7 cost?";
const CHAT = { model: "bot", messages: [{ role: "user", content: QUESTION }], temperature: 0, max_completion_tokens: 16 };
const RESPONSE = { model: "bot", input: QUESTION, temperature: 0, max_output_tokens: 16 };
const PARAMETERS = {
  type: "object",
  properties: { thing: { type: "string", enum: ["kettle"] } },
  required: ["thing"],
  additionalProperties: false,
};

async function main(baseURL, apiKey) {
  const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
  const models = [];
  for await (const model of client.models.list()) models.push(model.id);
  const missing = await client.models.retrieve("other").catch((error) => error);
  const chat = await client.chat.completions.create(CHAT);
  let streamed = "";
  for await (const chunk of await client.chat.completions.create({ ...CHAT, stream: true })) {
    streamed += chunk.choices[0].delta.content ?? "";
  }
  const called = await client.chat.completions.create({
    ...CHAT,
    temperature: 2, // The model is random: at 0 it may never end the JSON.
    max_completion_tokens: undefined,
    tools: [{ type: "function", function: { name: "look_up", parameters: PARAMETERS, strict: true } }],
    tool_choice: { type: "function", function: { name: "look_up" } },
  });
  const response = await client.responses.create(RESPONSE);
  const events = [];
  const stream = client.responses.stream(RESPONSE);
  for await (const event of stream) events.push(event.type);
  console.log(JSON.stringify({
    models,
    model: (await client.models.retrieve("bot@first")).id,
    missing_model: [missing instanceof NotFoundError, missing.code, missing.param],
    chat: [chat.model, chat.choices[0].message.content],
    chat_stream: streamed,
    chat_tool: called.choices[0].message.tool_calls.map((call) => call.function),
    response: [response.model, response.output_text, response.status],
    response_stream: events,
    response_stream_text: (await stream.finalResponse()).output_text,
  }));
}

main(...process.argv.slice(2));
