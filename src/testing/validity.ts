/** Validates requests of the Messages API. Pure. */
import * as Predicate from "effect/Predicate"

type FormProblem = string | undefined

const first = (
  values: ReadonlyArray<unknown>,
  problemOf: (value: unknown, index: number) => FormProblem
): FormProblem => {
  for (let index = 0; index < values.length; index++) {
    const problem = problemOf(values[index], index)
    if (problem !== undefined) return problem
  }
  return undefined
}

const contentProblem = (content: unknown, at: string): FormProblem => {
  if (typeof content === "string") return undefined
  if (!Array.isArray(content)) return `${at}: expected a string or a list of content blocks`
  return first(content, (block, index) => {
    const where = `${at}.${index}`
    if (!Predicate.hasProperty(block, "type") || typeof block.type !== "string") return `${where}.type: Field required`
    switch (block.type) {
      case "text":
        return Predicate.hasProperty(block, "text") && typeof block.text === "string"
          ? undefined
          : `${where}.text: Field required`
      case "tool_result":
        return Predicate.hasProperty(block, "content") && block.content !== undefined
          ? contentProblem(block.content, `${where}.content`)
          : undefined
      case "document": {
        const source = Predicate.hasProperty(block, "source") ? block.source : undefined
        if (!Predicate.isObject(source)) return `${where}.source: Field required`
        const { content, data, type } = source
        if (data === undefined ? type === "text" || type === "base64" : typeof data !== "string") {
          return `${where}.source.data: expected a string`
        }
        return content === undefined && type !== "content"
          ? undefined
          : contentProblem(content, `${where}.source.content`)
      }
      default:
        return undefined
    }
  })
}

const roles: ReadonlyArray<unknown> = ["user", "assistant", "system"]

/** Deeper than any request, and not too deep for the stack. */
const maxDepth = 500

/** Whether a value is nested too deeply, or contains itself. */
const isTooDeep = (value: unknown, level = 1): boolean =>
  typeof value === "object" &&
  value !== null &&
  (level > maxDepth || Object.values(value).some((part) => isTooDeep(part, level + 1)))

/** The problem with the form of a body in any protocol; undefined if there is none. */
export const formProblem = (body: unknown): FormProblem => {
  if (!Predicate.isObject(body)) return "expected a JSON object"
  return isTooDeep(body) ? `expected at most ${maxDepth} levels of nesting` : undefined
}

/** The problem with the body of a `count_tokens` request; undefined if there is none. */
export const countProblem = (body: unknown): FormProblem => {
  const problem = formProblem(body)
  if (problem !== undefined) return problem
  const get = (name: string): unknown => (Predicate.hasProperty(body, name) ? body[name] : undefined)
  if (typeof get("model") !== "string" || get("model") === "") return "model: Field required"
  const messages = get("messages")
  if (!Array.isArray(messages)) return "messages: Field required"
  if (messages.length === 0) return "messages: at least one message is required"
  const system = get("system")
  if (system !== undefined) {
    const problem = contentProblem(system, "system")
    if (problem !== undefined) return problem
  }
  const tools = get("tools")
  if (tools !== undefined && !Array.isArray(tools)) return "tools: expected a list"
  return first(messages, (message, index) => {
    if (!Predicate.hasProperty(message, "role")) return `messages.${index}.role: Field required`
    if (!roles.includes(message.role)) return `messages.${index}.role: expected one of ${roles.join(", ")}`
    if (!Predicate.hasProperty(message, "content")) return `messages.${index}.content: Field required`
    return contentProblem(message.content, `messages.${index}.content`)
  })
}

/** The problem with the body of a `messages` request; undefined if there is none. */
export const createProblem = (body: unknown): FormProblem => {
  const problem = countProblem(body)
  if (problem !== undefined) return problem
  const max = Predicate.hasProperty(body, "max_tokens") ? body.max_tokens : undefined
  if (typeof max !== "number" || !Number.isInteger(max) || max < 1) return "max_tokens: expected an integer above 0"
  const metadata = Predicate.hasProperty(body, "metadata") ? body.metadata : undefined
  const user = Predicate.hasProperty(metadata, "user_id") ? metadata.user_id : undefined
  return user === undefined || user === null || typeof user === "string"
    ? undefined
    : "metadata.user_id: expected a string"
}
