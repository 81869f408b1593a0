/** Requests of coding agents: conversations that grow by a call of a tool and its result with each turn. */

const words = "const return await the of value request file error import function test path result index queue".split(
  " "
)
const mark = { cache_control: { type: "ephemeral" } }

/** How many turns of a conversation are sent before another one begins. */
const turnsOf = 10

type Block = Readonly<Record<string, unknown>>
interface Message {
  readonly role: string
  readonly content: ReadonlyArray<Block>
}

/** Bodies of Anthropic's Messages API, each about as large as asked. */
export class Conversations {
  private seed = 7
  private sent = 0
  private readonly tools: ReadonlyArray<object>
  private readonly system: string
  private readonly messages: ReadonlyArray<Message>

  constructor(size: number) {
    const forTools = Math.min(size * 0.3, 45_000)
    this.tools = Array.from({ length: Math.ceil(forTools / 1_500) }, (_, n) => {
      const properties = { path: { type: "string", description: this.text(300) } }
      return { name: `Tool${n}`, description: this.text(1_000), input_schema: { type: "object", properties } }
    })
    this.system = this.text(Math.min(size * 0.15, 14_000))
    const messages: Array<Message> = []
    let left = size - JSON.stringify([this.tools, this.system]).length
    while (left > 0) {
      const turn = this.turn(Math.min(left / 2, this.random() ** 3 * (size < 10_000 ? 400 : 12_000) + 50))
      messages.push(...turn)
      left -= JSON.stringify(turn).length
    }
    this.messages = messages
  }

  /** The next requests. */
  next(count: number): ReadonlyArray<string> {
    // A copy, because a text that was joined would be copied when it is read first.
    return Array.from({ length: count }, () => Buffer.from(JSON.stringify(this.body(this.sent++))).toString())
  }

  private body(n: number): object {
    const task = { role: "user", content: `Task ${Math.floor(n / turnsOf)}: ${"Say what this does. ".repeat(10)}` }
    const left = 2 * (turnsOf - 1 - (n % turnsOf))
    const messages = this.messages.slice(0, Math.max(2, this.messages.length - left))
    const { content, role } = messages.pop()!
    return {
      model: "claude-sonnet-5",
      max_tokens: 400,
      system: [{ type: "text", text: this.system, ...mark }],
      tools: this.tools,
      messages: [task, ...messages, { role, content: content.map((block) => ({ ...block, ...mark })) }]
    }
  }

  private turn(length: number): ReadonlyArray<Message> {
    const id = `toolu_01${Math.floor(this.random() * 1e15).toString(36)}`
    const input = { path: this.text(20), command: this.text(length / 10) }
    const use = { type: "tool_use", id, name: "Tool0", input }
    return [
      { role: "assistant", content: [{ type: "text", text: this.text(length / 10) }, use] },
      { role: "user", content: [{ type: "tool_result", tool_use_id: id, content: this.text(length) }] }
    ]
  }

  private random(): number {
    return (this.seed = (Math.imul(this.seed, 1_664_525) + 1_013_904_223) >>> 0) / 2 ** 32
  }

  private text(length: number): string {
    let made = ""
    while (made.length < length) made += `${words[Math.floor(this.random() * words.length)]!} `
    return made.slice(0, Math.max(1, Math.floor(length)))
  }
}
