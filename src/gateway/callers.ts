/** Identifies the caller of a request, and finds the weight, the priority and the caps that apply to it. */
import { credentialsOf } from "../fetch/credentials.ts"
import type { CallRequest } from "../fetch/index.ts"
import type * as Governor from "../Governor.ts"
import type { HeaderReader } from "../protocol/headers.ts"
import type * as Spending from "../Spending.ts"
import { digestOf, type Key, type Purses } from "./purses.ts"

/**
 * Settings for some callers. A rule applies to a caller if all its conditions (`agent`, `key`, `model`, `headers`) match; a
 * condition that is left out matches every caller. In a text, `*` stands for any characters.
 *
 * @category models
 * @since 0.2.0
 */
export interface Rule {
  /** The name of the agent. */
  readonly agent?: string | undefined
  /**
   * The key that the caller sends to the provider, or enough of it to tell it from others, such as `*x9Yz`; the access key for
   * AWS, and the project for Vertex AI. A call with several keys has all of them, because only the provider knows which it takes.
   */
  readonly key?: string | undefined
  readonly model?: string | undefined
  /** Headers by their names in lower case. */
  readonly headers?: Readonly<Record<string, string>> | undefined
  /** The share of service relative to other agents, 0.001 to 1000. @default 1 */
  readonly weight?: number | undefined
  /** Higher goes first. @default 1 for interactive calls, -1 for batches, else 0 */
  readonly priority?: number | undefined
  /** What all these callers together may cost. The caps of all matching rules apply. @default no bound */
  readonly cap?: Spending.Cap | undefined
  /** What each agent may cost. A client may use any number of agent names, so also bound its key, or all callers. @default no bound */
  readonly capPerAgent?: Spending.Cap | undefined
  /** What each key may cost. @default no bound */
  readonly capPerKey?: Spending.Cap | undefined
}

/** The headers that say whether somebody waits for the answer: our own, and Claude Code's. */
const classHeaders = ["x-floodgate-class", "x-claude-code-request-class"] as const
const priorities: Readonly<Record<string, number>> = { interactive: 1, main: 1, batch: -1, background: -1 }

const priorityOf = (header: HeaderReader): number => {
  const given = classHeaders.map(header).find((value) => value !== undefined && value !== null) ?? ""
  return Object.hasOwn(priorities, given) ? priorities[given]! : 0
}

const unknown: Key = { name: "unknown", hash: "" }

/** A name and a hash of a key, which do not reveal it. */
const knownOf = (key: string): Key => {
  const digest = digestOf(key)
  return { name: `key-${digest.slice(0, 8)}`, hash: digest }
}

/** Whether a text matches a condition of a rule. */
type Fits = (text: string) => boolean

/** In a pattern `*` stands for any characters. Callers choose the text, so it takes no backtracking. */
const fits = (pattern: string | undefined): Fits => {
  if (pattern === undefined) return () => true
  const [first = "", ...parts] = pattern.toLowerCase().split("*")
  const last = parts.pop()
  return (text) => {
    const value = text.toLowerCase()
    if (last === undefined) return value === first
    if (!value.startsWith(first) || !value.endsWith(last)) return false
    let from = first.length
    for (const part of parts) {
      const found = value.indexOf(part, from)
      if (found < 0) return false
      from = found + part.length
    }
    return from + last.length <= value.length
  }
}

/** A caller, and the options of its calls. */
export interface Caller extends Governor.CallOptions {
  readonly agent: string
}

/** Finds the options of a call. For each setting, the first rule that matches and has the setting applies. */
export const makeCallers = (rules: ReadonlyArray<Rule>, purses: Purses): ((request: CallRequest) => Caller) => {
  const parsed = rules.map((rule) => ({
    rule,
    agent: fits(rule.agent),
    key: fits(rule.key),
    model: fits(rule.model),
    headers: Object.entries(rule.headers ?? {}).map(([name, text]) => [name.toLowerCase(), fits(text)] as const)
  }))
  return (request) => {
    const keys = credentialsOf(request)
    const known = (): ReadonlyArray<Key> => (keys.length === 0 ? [unknown] : keys.map(knownOf))
    const agent = request.agent ?? known()[0]!.name
    const fitting = parsed
      .filter(
        (of) =>
          of.agent(agent) &&
          (keys.length === 0 ? of.key("") : keys.some(of.key)) &&
          of.model(request.model) &&
          of.headers.every(([name, fit]) => fit(request.header(name) ?? ""))
      )
      .map(({ rule }) => rule)
    return {
      agent,
      weight: fitting.find(({ weight }) => weight !== undefined)?.weight,
      priority: fitting.find(({ priority }) => priority !== undefined)?.priority ?? priorityOf(request.header),
      purses: purses.of(fitting, agent, known)
    }
  }
}
