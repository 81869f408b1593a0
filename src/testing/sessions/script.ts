/** Turns the numbers of a session into requests: conversations whose text grows, with the breakpoints of Claude Code. Pure. */
import type { MessageParam, TextBlockParam, Tool } from "@anthropic-ai/sdk/resources/messages/messages"
import type * as Duration from "effect/Duration"
import * as Input from "../../domain/input/checks.ts"
import type { Params } from "../../LlmProvider.ts"
import type { Session, SessionAgent, SessionTurn } from "./models.ts"
import * as Written from "./texts.ts"

/** The options of a played session. */
type ScriptOptions = {
  /**
   * All sizes are divided by this, also `max_tokens`. Providers do not scale their shortest cached prefix with it.
   *
   * @default 1, the full size
   */
  readonly scale?: number | undefined
  /** Longer pauses are cut to this. @default the full length */
  readonly maxPause?: Duration.Input | undefined
  /** @default "claude-sonnet-5" */
  readonly model?: string | undefined
}

/**
 * A call of a played session. Its sizes are those of its request, which differ from the table where a text is shorter than its name, or
 * where the prefix ends within a message.
 *
 * @stability unstable
 * @category models
 * @since 0.5.0
 */
export interface ScriptedCall {
  /** The name of its agent. */
  readonly agent: string
  /** Its number within the agent, from 0. */
  readonly index: number
  readonly params: Params
  readonly inputTokens: number
  /** The tokens that a cache reads if it forgets nothing. For the first turn of a sub-agent these are its tools and system prompt. */
  readonly cachedTokens: number
  readonly outputTokens: number
  readonly pauseMillis: number
  readonly subAgents: ReadonlyArray<AgentScript>
}

/**
 * The calls of an agent, one after the other.
 *
 * @stability unstable
 * @category models
 * @since 0.5.0
 */
export interface AgentScript {
  /** Its name: that of the session, with the path below the lead, as in `review/6`. */
  readonly agent: string
  readonly calls: ReadonlyArray<ScriptedCall>
  /** How many calls the agent that starts this one makes before it waits for its end. */
  readonly turnsMeanwhile: number
}

const optionsCheck = Input.options<ScriptOptions>({ scale: Input.positive, maxPause: Input.wait, model: Input.text })

/** The options with their defaults. */
interface CompleteScriptOptions {
  readonly scale: number
  readonly maxPauseMillis: number
  readonly model: string
}

/** The maximum output that Claude Code asks for. */
const maxOutput = 32_000

/** Most of a first prompt is tools and system prompt; 20,000 tokens are about what Claude Code sends. */
const shared = { max: 20_000, share: 0.95, tools: 2 / 3 }

const toolNames = ["Agent", "Bash", "Edit", "Glob", "Grep", "Read", "WebFetch", "Write"]

const cache_control = { type: "ephemeral" } as const

/** Tools and system prompt, which are the same for all agents of a session unless they are rewritten. */
interface SharedPrompt {
  readonly tools: Array<Tool>
  readonly system: Array<TextBlockParam>
  readonly tokens: number
}

const headOf = (session: string, version: string, tokens: number): SharedPrompt => {
  const forTools = Math.floor(tokens * shared.tools)
  const tools = toolNames.map((name): Tool => {
    const description = Written.write(`${session}/${version}/${name}`, forTools / toolNames.length)
    return { name, description, input_schema: { type: "object" } }
  })
  // The breakpoint is part of the last tool, and does not change what it says.
  tools.push({ ...tools.pop()!, cache_control })
  const said = Written.write(`${session}/${version}/system`, tokens - forTools)
  const system: Array<TextBlockParam> = [{ type: "text", text: said, cache_control }]
  return { tools, system, tokens: Written.inputTokens({ model: "", messages: [], tools, system }) }
}

/** A message, with and without a breakpoint: the same objects in each turn, so that readers may remember them. */
interface Said {
  readonly role: "user" | "assistant"
  readonly plain: MessageParam
  readonly marked: MessageParam
  readonly tokens: number
}

const saidOf = (role: Said["role"], name: string, tokens: number): Said => {
  const text = Written.write(name, tokens)
  return {
    role,
    plain: { role, content: [{ type: "text", text }] },
    marked: { role, content: [{ type: "text", text, cache_control }] },
    tokens: Written.tokensOf(text)
  }
}

/** Cached prefixes are recorded in blocks of 64 tokens, rounded down. */
const cacheBlock = 64

/** The conversation of an agent so far. */
interface Talk {
  readonly head: SharedPrompt
  readonly messages: ReadonlyArray<Said>
}

/** How many of the last messages of the user have a breakpoint, beside tools and system prompt: a request may have four. */
const markedMessages = 2

const requestOf = ({ head, messages }: Talk, model: string, agent: string, maxTokens: number): Params => {
  const users = messages.filter(({ role }) => role === "user").slice(-markedMessages)
  return {
    model,
    max_tokens: maxTokens,
    metadata: { user_id: agent },
    tools: head.tools,
    system: head.system,
    messages: messages.map((said) => (users.includes(said) ? said.marked : said.plain))
  }
}

/** The messages that a turn keeps of those before: all within its cached prefix, and the last is one of the user. */
const keptOf = (
  talk: Talk,
  cached: number,
  input: number,
  scale: number
): { readonly kept: Array<Said>; readonly tokens: number } => {
  let tokens = talk.head.tokens
  const kept: Array<Said> = []
  for (const said of talk.messages) {
    if (tokens + said.tokens > cached + cacheBlock / scale || tokens + said.tokens >= input) break
    tokens += said.tokens
    kept.push(said)
  }
  // Only a message of the user has a breakpoint.
  while (kept.at(-1)?.role === "assistant") tokens -= kept.pop()!.tokens
  return { kept, tokens }
}

/** Makes the calls of an agent. */
const agentScript = (
  session: Session,
  { path, turns, turnsMeanwhile = 0 }: SessionAgent,
  options: CompleteScriptOptions,
  first: SharedPrompt
): AgentScript => {
  const { maxPauseMillis, model, scale } = options
  const agent = `${session.name}${path.slice(1)}`
  const scaled = (tokens: number): number => Math.max(1, Math.round(tokens / scale))
  let talk: Talk = { head: first, messages: [] }
  let answered = 0
  const calls = turns.map((turn, index): ScriptedCall => {
    const input = scaled(turn.inputTokens)
    const isNew = (index > 0 && turn.cachedTokens + cacheBlock < talk.head.tokens * scale) || talk.head.tokens >= input
    const head = isNew
      ? headOf(session.name, `${path}-${index}`, Math.min(talk.head.tokens, input * shared.share))
      : talk.head
    const { kept, tokens } = isNew
      ? { kept: [], tokens: head.tokens }
      : keptOf(talk, turn.cachedTokens / scale, input, scale)
    const rest = Math.max(1, input - tokens)
    const name = `${agent}/${index}`
    const answer = kept.length === 0 ? 0 : Math.min(answered, rest - 1)
    const messages = [...kept]
    if (answer > 0) messages.push(saidOf("assistant", `${name}/answer`, answer))
    messages.push(saidOf("user", name, rest - answer))
    talk = { head, messages }
    answered = scaled(turn.outputTokens)
    return {
      agent,
      index,
      params: requestOf(talk, model, agent, Math.max(Math.ceil(maxOutput / scale), answered)),
      inputTokens: head.tokens + messages.reduce((sum, { tokens }) => sum + tokens, 0),
      // At first everything is new but what the lead of the session has sent.
      cachedTokens: isNew || (index === 0 && path === "0") ? 0 : tokens,
      outputTokens: answered,
      pauseMillis: Math.min(turn.pauseMillis, maxPauseMillis),
      subAgents: turn.subAgents.map((agent) => agentScript(session, agent, options, first))
    }
  })
  return { agent, calls, turnsMeanwhile }
}

const agentsOf = function* (agent: SessionAgent): Generator<SessionAgent> {
  yield agent
  for (const turn of agent.turns) for (const subAgent of turn.subAgents) yield* agentsOf(subAgent)
}

const firstTurns = (session: Session): ReadonlyArray<SessionTurn> =>
  [...agentsOf(session.lead)].flatMap(({ turns }) => turns.slice(0, 1))

/**
 * The requests of a session: real conversations in the form of the Messages API.
 *
 * **Details**
 *
 * - Each prompt repeats the prefix that the table calls cached, to the end of the last message in it, and adds an answer of the
 *   size that the last turn had, and a message of the user
 * - Breakpoints are where Claude Code sets them: at the last tool, the system prompt, and the last two messages of the user
 * - Tools and system prompt are at most 20,000 tokens, and are shared by all agents of a session, and by no other session
 * - Texts are code, prose and JSON, with a line at the start of each that names it. How many characters make a token differs from text to
 *   text, as measured; `providerOptions` count them
 *
 * **Gotchas**
 *
 * Throws a `RangeError` for invalid options.
 *
 * **Example** (The second turn repeats the first one)
 *
 * ```ts doctest
 * import { Sessions } from "floodgate/testing"
 *
 * const { sessions } = Sessions.parse("session,path,pause,input,cached,output\nfix,0,0,16000,0,300\n,,5,17000,16000,200\n")
 * const [first, second] = Sessions.script(sessions[0]!).calls
 *
 * first!.inputTokens // => 16_000
 * second!.inputTokens // => 17_000
 * second!.cachedTokens // => 16_000
 * second!.params.messages.map(({ role }) => role) // => ["user", "assistant", "user"]
 * ```
 *
 * @stability unstable
 * @category playing
 * @since 0.5.0
 */
export const script = (session: Session, options: ScriptOptions = {}): AgentScript => {
  Input.check("Sessions.script", optionsCheck, options)
  const { maxPause = Infinity, model = "claude-sonnet-5", scale = 1 } = options
  const maxPauseMillis = Input.millisOf(maxPause)
  const smallest = firstTurns(session).reduce((min, { inputTokens }) => Math.min(min, inputTokens), Infinity)
  const head = headOf(session.name, "0", Math.min(shared.max, smallest * shared.share) / scale)
  return agentScript(session, session.lead, { maxPauseMillis, model, scale }, head)
}
