/** Agents of callers that name none, as their conversations show them. They are counted and shown, and never refused. */
import type { CallRequest } from "floodgate/fetch"

/**
 * The turn of a conversation with which a call of it shows an agent: the first for one with tools. Without tools it may be a title or a
 * single question, so it takes a second.
 */
export type Showing = 1 | 2

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null

/** The messages of a conversation, where its protocol has them. */
const listsOf = ({ contents, input, messages }: Readonly<Record<string, unknown>>): ReadonlyArray<unknown> =>
  [messages, input, contents].find((list): list is ReadonlyArray<unknown> => Array.isArray(list)) ?? []

/** Whether a model has said or called this. */
const isAnswer = (message: unknown): boolean => {
  if (!isRecord(message)) return false
  const { role, type } = message
  return role === "assistant" || role === "model" || type === "function_call" || type === "reasoning"
}

/**
 * The turn at which a call shows an agent; undefined if it names its agent, or can show none. A conversation with tools in which the model
 * has answered before its first turn is an earlier one, whose history was rewritten or compacted.
 */
export const showing = ({ agent, body }: Pick<CallRequest, "agent" | "body">): Showing | undefined => {
  if (agent !== undefined || !isRecord(body)) return undefined
  const { toolConfig, tools = isRecord(toolConfig) ? toolConfig["tools"] : undefined } = body
  const hasTools = Array.isArray(tools) && tools.length > 0
  if (listsOf(body).some(isAnswer)) return hasTools ? undefined : 2
  return hasTools ? 1 : undefined
}
