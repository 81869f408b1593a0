/** Requests as coding agents send them: a system prompt, up to 30 tools, and messages with calls of tools and their results. */
let seed = 7
const random = (): number => (seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0) / 2 ** 32
const words = "const return await the of value request file error import function test path result index queue".split(
  " "
)
const text = (length: number): string => {
  let made = ""
  while (made.length < length) made += `${words[Math.floor(random() * words.length)]!} `
  return made.slice(0, Math.max(1, Math.floor(length)))
}
const mark = { cache_control: { type: "ephemeral" } }

/** About as many bytes of JSON as `size`, without a model. */
export const bodyOf = (size: number) => {
  const forTools = Math.min(size * 0.45, 45_000)
  const length = Math.min(30, Math.ceil(size / 400))
  const tools = Array.from({ length }, (_, n) => {
    const properties = { path: { type: "string", description: text(forTools / length / 4) } }
    return {
      name: `Tool${n}`,
      description: text(forTools / length / 1.5),
      input_schema: { type: "object", properties }
    }
  })
  const system = [{ type: "text", text: text(Math.min(size * 0.2, 14_000)), ...mark }]
  const messages: Array<object> = [{ role: "user", content: text(Math.min(size / 10, 2_000)) }]
  let left = size - JSON.stringify({ tools, system, messages }).length
  while (left > 200) {
    const id = `toolu_01${Math.floor(random() * 1e15).toString(36)}`
    const length = Math.min(left - 150, random() ** 3 * (size < 10_000 ? 1_600 : 20_000) + 50)
    const use = { type: "tool_use", id, name: "Tool3", input: { path: text(20), command: text(length / 10) } }
    messages.push({ role: "assistant", content: [{ type: "text", text: text(length / 10) }, use] })
    messages.push({ role: "user", content: [{ type: "tool_result", tool_use_id: id, content: text(length), ...mark }] })
    left -= 1.2 * length + 330
  }
  return { max_tokens: 32_000, system, tools, messages }
}
