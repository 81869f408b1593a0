/** Who makes a request, and how it stands in the queue. */
import { hash } from "node:crypto"
import type { CallRequest } from "../fetch/engine.ts"
import type * as Governor from "../Governor.ts"
import type { HeaderReader } from "../protocol/headers.ts"
import type * as Spending from "../Spending.ts"
import type { Key, Purses } from "./purses.ts"

/**
 * Callers, and what holds for them. All that it names must fit; what it leaves out fits everybody. In a text, `*` stands for
 * anything.
 *
 * @category models
 * @since 0.2.0
 */
export interface Rule {
  /** The name of the agent. */
  readonly agent?: string | undefined
  /** The key that the caller sends to the provider, such as `*x9Yz`: enough of it to tell it from others. */
  readonly key?: string | undefined
  readonly model?: string | undefined
  /** Headers by their names in lower case. */
  readonly headers?: Readonly<Record<string, string>> | undefined
  /** The share of service relative to other agents, 0.001 to 1000. @default 1 */
  readonly weight?: number | undefined
  /** Higher goes first. @default 1 for interactive calls, -1 for batches, else 0 */
  readonly priority?: number | undefined
  /** What all these callers together may cost; every rule that fits counts. @default no bound */
  readonly cap?: Spending.Cap | undefined
  /** What each agent may cost. An agent that its client names can have many names: bound keys, or all, as well. @default no bound */
  readonly capPerAgent?: Spending.Cap | undefined
  /** What each key may cost. @default no bound */
  readonly capPerKey?: Spending.Cap | undefined
}

/** What says that somebody waits for an answer, and what that nobody does: a header of ours, and Claude Code's. */
const classHeaders = ["x-floodgate-class", "x-claude-code-request-class"] as const
const priorities: Readonly<Record<string, number>> = { interactive: 1, main: 1, batch: -1, background: -1 }

const priorityOf = (header: HeaderReader): number => {
  const given = classHeaders.map(header).find((value) => value !== undefined && value !== null) ?? ""
  return Object.hasOwn(priorities, given) ? priorities[given]! : 0
}

/** What a request may have its key in. */
const keyHeaders = ["x-api-key", "authorization", "api-key", "x-goog-api-key"] as const

const keyOf = ({ header, url }: CallRequest): string => {
  const given = keyHeaders.map(header).find((value) => value !== undefined && value !== null)
  return (given ?? URL.parse(url)?.searchParams.get("key") ?? "").replace(/^bearer\s+/i, "")
}

/** A name and a hash of a key, which do not reveal it. */
const knownOf = (key: string): Key => {
  if (key === "") return { name: "unknown", hash: "" }
  const digest = hash("sha256", key)
  return { name: `key-${digest.slice(0, 8)}`, hash: digest.slice(0, 32) }
}

/** The pattern of a text in which `*` stands for anything. */
const patternOf = (text: string): RegExp =>
  new RegExp(
    `^${text
      .split("*")
      .map((part) => part.replaceAll(/[\\^$.|?+()[\]{}]/g, "\\$&"))
      .join(".*")}$`,
    "is"
  )

/** Whether a text fits what a rule says of it. */
type Fits = (text: string) => boolean

const fits = (text: string | undefined): Fits => {
  if (text === undefined) return () => true
  const pattern = patternOf(text)
  return (value) => pattern.test(value)
}

/** A caller, and how its calls stand in the queue. */
export interface Caller extends Governor.CallOptions {
  readonly agent: string
}

/** How a call stands in the queue, and who pays: for each setting the first rule that fits and has it counts. */
export const makeCallers = (rules: ReadonlyArray<Rule>, purses: Purses): ((request: CallRequest) => Caller) => {
  const parsed = rules.map((rule) => ({
    rule,
    agent: fits(rule.agent),
    key: fits(rule.key),
    model: fits(rule.model),
    headers: Object.entries(rule.headers ?? {}).map(([name, text]) => [name.toLowerCase(), fits(text)] as const)
  }))
  /** A call is described once, however often that is asked. */
  const known = new WeakMap<CallRequest, Caller>()
  const describe = (request: CallRequest): Caller => {
    const key = keyOf(request)
    const agent = request.agent ?? knownOf(key).name
    const fitting = parsed
      .filter(
        (of) =>
          of.agent(agent) &&
          of.key(key) &&
          of.model(request.model) &&
          of.headers.every(([name, fit]) => fit(request.header(name) ?? ""))
      )
      .map(({ rule }) => rule)
    return {
      agent,
      weight: fitting.find(({ weight }) => weight !== undefined)?.weight,
      priority: fitting.find(({ priority }) => priority !== undefined)?.priority ?? priorityOf(request.header),
      purses: purses.of(fitting, agent, () => knownOf(key))
    }
  }
  return (request) => {
    const caller = known.get(request) ?? describe(request)
    known.set(request, caller)
    return caller
  }
}
