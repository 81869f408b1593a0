/** What a prompt has in common with an earlier one, by the descriptions of all protocols. */
import { assert, describe, it } from "@effect/vitest"
import { type Description, type Protocol, protocols } from "floodgate/protocol"

type Prefixes = NonNullable<Description["prefixes"]>

const { anthropic, gemini, openaiChat, openaiResponses } = protocols

type Body = Readonly<Record<string, unknown>>

const prefixesOf = (protocol: Protocol, path: string, body: Body, betas?: string): Prefixes => {
  const route = protocol.match("POST", path)!
  const header = (name: string) => (name === "anthropic-beta" ? betas : undefined)
  return protocol.describe(body, route, header)?.prefixes ?? assert.fail("no prefixes")
}

/** How many of the parts of a request are as in another one. */
const common = (one: Prefixes, other: Prefixes): number => {
  let n = 0
  while (n < one.fingerprints.length && one.fingerprints[n] === other.fingerprints[n]) n++
  return n
}

const mark = { cache_control: { type: "ephemeral" } }
const tools = [
  { name: "read", description: "Reads a file.", input_schema: { type: "object" } },
  { name: "edit", description: "Changes a file.", input_schema: { type: "object" } }
]
const messages = [
  { role: "user", content: "What is in the file?" },
  {
    role: "assistant",
    content: [
      { type: "thinking", thinking: "I should read it.", signature: "c2ln" },
      { type: "tool_use", id: "toolu_01AbCdEfGh", name: "read", input: { path: "/a" } }
    ]
  },
  { role: "user", content: [{ type: "tool_result", tool_use_id: "toolu_01AbCdEfGh", content: "a line of text" }] }
]
const body: Body = { model: "m", max_tokens: 10, system: "You are careful.", tools, messages }
const ofMessages = (more: Body, betas?: string): Prefixes =>
  prefixesOf(anthropic, "/v1/messages", { ...body, ...more }, betas)
const own = ofMessages({})

describe("the prefixes of a prompt", () => {
  it("end after tools, system prompt and each block, and grow with the prompt", () => {
    assert.strictEqual(own.fingerprints.length, 6)
    assert.strictEqual(own.shared, 2)
    assert.deepStrictEqual(
      [...own.bytes].sort((a, b) => a - b),
      [...own.bytes]
    )
    assert.strictEqual(own.bytes.at(-1), anthropic.describe(body, anthropic.match("POST", "/v1/messages")!)!.bytes)
    assert.isTrue(own.fingerprints.every((value) => Number.isSafeInteger(value) && value >= 0))
    assert.strictEqual(new Set(own.fingerprints).size, 6)
    assert.deepStrictEqual(ofMessages({}), own)
  })

  it("are those of the next request, which asks for caching elsewhere", () => {
    const [question, ...rest] = messages
    const asked = { role: "user", content: [{ type: "text", text: "What is in the file?", ...mark }] }
    const first = ofMessages({ messages: [asked] })
    const next = ofMessages({
      messages: [question, ...rest, { role: "user", content: [{ type: "text", text: "And?", ...mark }] }]
    })
    assert.strictEqual(common(first, next), first.fingerprints.length)
    assert.deepStrictEqual(first.marks, [{ index: 2, life: 300_000 }])
    assert.deepStrictEqual(next.marks, [{ index: 6, life: 300_000 }])
    assert.strictEqual(next.automatic, undefined)
  })

  it("say for how long to keep them, and where", () => {
    const system = [{ type: "text", text: "Long.", cache_control: { type: "ephemeral", ttl: "1h" } }]
    const marked = ofMessages({ system, cache_control: { type: "ephemeral" } })
    assert.deepStrictEqual(marked.marks, [
      { index: 1, life: 3_600_000 },
      { index: 5, life: 300_000 }
    ])
    const last = [{ ...tools[0] }, { ...tools[1], ...mark }]
    assert.deepStrictEqual(ofMessages({ tools: last }).marks, [{ index: 0, life: 300_000 }])
  })

  const changed = (last: object) => [...messages.slice(0, -1), last]
  const changes: ReadonlyArray<readonly [what: string, more: Body, common: number, betas?: string]> = [
    ["nothing", {}, 6],
    ["reordered tools", { tools: [...tools].reverse() }, 0],
    ["another description of a tool", { tools: [tools[0], { ...tools[1], description: "Edits." }] }, 0],
    ["another schema of a tool", { tools: [tools[0], { ...tools[1], input_schema: { type: "array" } }] }, 0],
    ["another system prompt", { system: "You are quick." }, 1],
    ["the choice of a tool", { tool_choice: { type: "any" } }, 2],
    ["thinking", { thinking: { type: "enabled", budget_tokens: 1_024 } }, 2],
    ["a format", { output_config: { format: { type: "json_schema", schema: {} } } }, 0],
    ["a fast mode", { speed: "fast" }, 0],
    ["a beta", {}, 0, "context-1m"],
    [
      "an edited first message",
      { messages: [{ role: "user", content: "What is in a file??" }, ...messages.slice(1)] },
      2
    ],
    [
      "another result",
      {
        messages: changed({
          role: "user",
          content: [{ type: "tool_result", tool_use_id: "toolu_01AbCdEfGh", content: "another line" }]
        })
      },
      5
    ],
    [
      "another result of the same length",
      {
        messages: changed({
          role: "user",
          content: [
            {
              type: "tool_result",
              tool_use_id: "toolu_01AbCdEfGh",
              content: "b line of text"
            }
          ]
        })
      },
      5
    ],
    [
      "the result of another call",
      {
        messages: changed({
          role: "user",
          content: [{ type: "tool_result", tool_use_id: "toolu_01AbCdEfGi", content: "a line of text" }]
        })
      },
      5
    ],
    [
      "a thinking block that is dropped",
      { messages: [messages[0], { role: "assistant", content: [messages[1]!.content[1]] }, messages[2]] },
      3
    ],
    [
      "another input of the same call",
      {
        messages: [
          messages[0],
          {
            role: "assistant",
            content: [
              messages[1]!.content[0],
              { type: "tool_use", id: "toolu_01AbCdEfGh", name: "read", input: { path: "/another" } }
            ]
          }
        ]
      },
      4
    ],
    ["what the model does not see", { metadata: { user_id: "another" }, max_tokens: 20, temperature: 1 }, 6]
  ]
  for (const [what, more, expected, betas] of changes) {
    it(`tell how far ${what} leaves the prompt as it was`, () => {
      assert.strictEqual(common(own, ofMessages(more, betas)), expected)
    })
  }

  it("tell apart what was made of one template", () => {
    const long = "All agents get the same instructions. ".repeat(200)
    const of = (system: string, task: string) => ofMessages({ system, messages: [{ role: "user", content: task }] })
    const one = of(`Session 4711. ${long}`, `File 17: ${long}`)
    assert.strictEqual(common(one, of(`Session 4711. ${long}`, `File 17: ${long}`)), 3)
    assert.strictEqual(common(one, of(`Session 4711. ${long}`, `File 18: ${long}`)), 2)
    assert.strictEqual(common(one, of(`Session 4712. ${long}`, `File 17: ${long}`)), 1)
    assert.strictEqual(common(of(`${long}12:30:01`, "Go."), of(`${long}12:30:02`, "Go.")), 1)
    const id = (n: number) => `${long}${`${n}`.repeat(36)}${long}`
    assert.strictEqual(common(of(id(1), "Go."), of(id(2), "Go.")), 1)
  })

  it("tell pictures apart", () => {
    const picture = (data: string) => {
      const image = { type: "image", source: { type: "base64", media_type: "image/png", data } }
      return ofMessages({ messages: [{ role: "user", content: [image, { type: "text", text: "What is it?" }] }] })
    }
    assert.strictEqual(common(picture("aGVsbG8x"), picture("aGVsbG8x")), 4)
    assert.strictEqual(common(picture("aGVsbG8x"), picture("eGVsbG8x")), 2)
  })

  it("of a very long prompt are those that agents share, and the last", () => {
    const many = Array.from({ length: 1_000 }, (_, n) => ({
      role: n % 2 ? "assistant" : "user",
      content: `message ${n}`
    }))
    const long = ofMessages({ messages: many })
    const longer = ofMessages({ messages: [...many, { role: "user", content: "one more" }] })
    assert.strictEqual(long.fingerprints.length, 258)
    assert.strictEqual(long.shared, 2)
    assert.strictEqual(common(long, own), 2)
    assert.isTrue(longer.fingerprints.includes(long.fingerprints.at(-1)!))
    const marked = ofMessages({
      messages: [...many.slice(0, -1), { role: "user", content: [{ type: "text", text: "x", ...mark }] }]
    })
    assert.deepStrictEqual(marked.marks, [{ index: 257, life: 300_000 }])
  })

  it("survive what is no prompt", () => {
    const deep = JSON.parse(`${"[".repeat(5_000)}${"]".repeat(5_000)}`) as unknown
    for (const messages of [
      undefined,
      null,
      5,
      "text",
      [null, 5, [], {}],
      [{ content: 5 }],
      [{ content: [null, deep] }],
      deep
    ]) {
      const described = anthropic.describe(
        { messages, tools: messages, system: messages },
        { operation: "generate", path: "" }
      )
      assert.isDefined(described?.prefixes)
    }
  })

  it("are read of results within results, however deeply they are nested", () => {
    const nested = (depth: number, text: string): unknown =>
      JSON.parse(`${'[{"id":"x","content":'.repeat(depth)}"${text}"${"}]".repeat(depth)}`)
    const read = (depth: number, text: string) =>
      ofMessages({ messages: [{ role: "user", content: nested(depth, text) }] })
    assert.notDeepEqual(read(2, "one").fingerprints, read(2, "two").fingerprints)
    assert.strictEqual(read(50_000, "one").fingerprints.length, own.shared + 1)
  })

  const others: Readonly<
    Record<string, readonly [Protocol, string, (turns: ReadonlyArray<string>) => Body, automatic: number]>
  > = {
    chat: [
      openaiChat,
      "/v1/chat/completions",
      (turns) => ({
        messages: [{ role: "system", content: "Be brief." }, ...turns.map((content) => ({ role: "user", content }))]
      }),
      300_000
    ],
    "chat that is kept for a day": [
      openaiChat,
      "/v1/chat/completions",
      (turns) => ({
        messages: [{ role: "developer", content: "Be brief." }, ...turns.map((content) => ({ role: "user", content }))],
        prompt_cache_retention: "24h"
      }),
      86_400_000
    ],
    responses: [
      openaiResponses,
      "/v1/responses",
      (turns) => ({
        instructions: "Be brief.",
        input: turns.map((output, n) => ({ type: "function_call_output", call_id: `call_${n}`, output }))
      }),
      300_000
    ],
    gemini: [
      gemini,
      "/v1beta/models/gemini-3:generateContent",
      (turns) => ({
        systemInstruction: { parts: [{ text: "Be brief." }] },
        contents: turns.map((text) => ({ role: "user", parts: [{ text }] }))
      }),
      300_000
    ]
  }
  for (const [name, [protocol, path, make, automatic]] of Object.entries(others)) {
    it(`continue in the next request of ${name}, and are cached without being asked`, () => {
      const [one, two, other] = [["one"], ["one", "two"], ["two"]].map((turns) =>
        prefixesOf(protocol, path, make(turns))
      )
      assert.strictEqual(one!.shared, 1)
      assert.strictEqual(common(one!, two!), one!.fingerprints.length)
      assert.strictEqual(common(one!, other!), 1)
      assert.deepStrictEqual([one!.marks, one!.automatic], [[], automatic])
    })
  }
})
