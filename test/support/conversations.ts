/** Long requests of each protocol, as real clients send them: tools, their calls and results, content blocks, images. */

const schema = {
  type: "object",
  properties: {
    path: { type: "string", description: "An absolute path" },
    limit: { type: "integer", minimum: 1 },
    mode: { type: "string", enum: ["text", "binary"] }
  },
  required: ["path"],
  additionalProperties: false
}
const tools = Array.from({ length: 100 }, (_, index) => ({
  name: `tool_${index}`,
  description: "Reads a file.",
  schema
}))
const named = tools.map(({ description, name, schema: parameters }) => ({ name, description, parameters }))
const input = (turn: number) => ({ path: `/home/me/code/file-${turn}.ts`, limit: 2_000, mode: "text" })

/** A turn in Anthropic's form: each message has two or three blocks. */
const messages = (turn: number) => [
  {
    role: "assistant",
    content: [
      { type: "text", text: "I will look." },
      { type: "tool_use", id: `toolu_01A${turn}`, name: "tool_7", input: input(turn) },
      { type: "tool_use", id: `toolu_01B${turn}`, name: "tool_8", input: input(turn) }
    ]
  },
  {
    role: "user",
    content: ["A", "B"].map((call) => ({
      type: "tool_result",
      tool_use_id: `toolu_01${call}${turn}`,
      content: [{ type: "text", text: 'export const x = "\\n"\n' }],
      cache_control: { type: "ephemeral" }
    }))
  }
]

const chat = (turn: number) => [
  {
    role: "assistant",
    content: null,
    tool_calls: ["A", "B"].map((call) => ({
      id: `call_${call}${turn}`,
      type: "function",
      function: { name: "tool_7", arguments: JSON.stringify(input(turn)) }
    }))
  },
  { role: "tool", tool_call_id: `call_A${turn}`, content: [{ type: "text", text: "export const x = 1" }] }
]

const items = (turn: number) => [
  { type: "function_call", call_id: `call_${turn}`, name: "tool_7", arguments: JSON.stringify(input(turn)) },
  {
    type: "message",
    role: "user",
    content: [
      { type: "input_text", text: "And this one?" },
      { type: "input_text", text: "Or this?" }
    ]
  }
]

const contents = (turn: number) => [
  { role: "model", parts: [{ text: "I will look." }, { functionCall: { name: "tool_7", args: input(turn) } }] },
  { role: "user", parts: [{ functionResponse: { name: "tool_7", response: { result: `line ${turn}`, ok: true } } }] }
]

const each = <A>(length: number, turn: (index: number) => ReadonlyArray<A>): ReadonlyArray<A> =>
  Array.from({ length: length / 2 }, (_, index) => turn(index)).flat()

export interface Request {
  readonly protocol: "anthropic-messages" | "openai-chat" | "openai-responses" | "gemini"
  readonly path: string
  readonly body: object
}

/** Conversations with a number of messages and a hundred tools. */
export const conversations = (length: number): ReadonlyArray<Request> => [
  {
    protocol: "anthropic-messages",
    path: "/v1/messages",
    body: {
      model: "claude-sonnet-5",
      max_tokens: 9,
      tools: tools.map(({ description, name, schema }) => ({ name, description, input_schema: schema })),
      messages: each(length, messages)
    }
  },
  {
    protocol: "openai-chat",
    path: "/v1/chat/completions",
    body: {
      model: "gpt-6",
      tools: named.map((tool) => ({ type: "function", function: tool })),
      messages: each(length, chat)
    }
  },
  {
    protocol: "openai-responses",
    path: "/v1/responses",
    body: { model: "gpt-6", tools: named.map((tool) => ({ type: "function", ...tool })), input: each(length, items) }
  },
  {
    protocol: "gemini",
    path: "/v1beta/models/gemini-3-pro:generateContent",
    body: { tools: [{ functionDeclarations: named }], contents: each(length, contents) }
  }
]

/** Requests with ten images of this total size. */
export const withImages = (bytes: number): ReadonlyArray<Request> => {
  const data = "iVBORw0KGgo/".repeat(bytes / 120)
  const ten = <A>(part: A): ReadonlyArray<A> => Array.from({ length: 10 }, () => part)
  const url = `data:image/png;base64,${data}`
  return [
    {
      protocol: "anthropic-messages",
      path: "/v1/messages",
      body: {
        model: "claude-sonnet-5",
        max_tokens: 9,
        messages: [
          { role: "user", content: ten({ type: "image", source: { type: "base64", media_type: "image/png", data } }) }
        ]
      }
    },
    {
      protocol: "openai-chat",
      path: "/v1/chat/completions",
      body: { model: "gpt-6", messages: [{ role: "user", content: ten({ type: "image_url", image_url: { url } }) }] }
    },
    {
      protocol: "openai-responses",
      path: "/v1/responses",
      body: { model: "gpt-6", input: [{ role: "user", content: ten({ type: "input_image", image_url: url }) }] }
    },
    {
      protocol: "gemini",
      path: "/v1beta/models/gemini-3-pro:generateContent",
      body: { contents: [{ role: "user", parts: ten({ inlineData: { mimeType: "image/png", data } }) }] }
    }
  ]
}
